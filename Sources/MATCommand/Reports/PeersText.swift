import MATControl

/// Who this node talks to by home addresses, and where the packets go.
enum PeersText {
    /// - Parameter names: of peers, by home address.
    /// - Parameter limit: show so many at most.
    static func text(_ report: PeersReport, limit: Int? = nil, names: [String: String] = [:], _ style: TextStyle = .plain) -> String {
        var peers = report.peers.isEmpty ? ["no peers"] : lines(report.peers, limit: limit, names: names, style: style)
        if report.peers.count > 1 {
            peers += summary(report.peers, count: max(report.peersCount, report.peers.count), troubled: report.peersTroubled)
        }
        let plain = (report.undecided?.destinations ?? []).filter(\.isPlain).map { destination in
            "\(destination.address): plain, it survives no move: \(destination.reason)"
        }
        return style.page(peers + plain)
    }

    static func lines(_ all: [PeerReport], limit: Int? = nil, indent: Int = 0, names: [String: String] = [:], style: TextStyle = .plain) -> [String] {
        let peers = Array(ordered(all).prefix(limit ?? all.count))
        var table = TextTable([
            ("PEER", .left), ("NAME", .left), ("AT", .left), ("FROM", .left), ("VIA", .left), ("STATE", .left), ("AGE", .right),
            ("CHECKED", .right),
            ("MOVES", .right), ("PACKETS OUT", .right), ("IN", .right),
        ])
        table.yields = [3: 5, 4: 3, 6: 4, 7: 7, 8: 6, 9: 1, 10: 2]
        table.spills = [1, 2]
        for peer in peers {
            table.add([
                peer.home, names[peer.home] ?? "", place(peer.locator, home: peer.home), place(peer.ownLocator, home: peer.ownHome),
                (peer.interface ?? "-") + (peer.chosenInterface == nil ? "" : " (chosen)"), state(peer),
                Quantity.duration(milliseconds: peer.ageMilliseconds), Quantity.duration(milliseconds: peer.refreshedAgoMilliseconds),
                "\(peer.switches)",
                "\(peer.packetsOut)", "\(peer.packetsIn)",
            ])
        }
        let margin = String(repeating: " ", count: indent)
        var lines = table.lines(indent: indent, style)
        if peers.count < all.count { lines.append("\(margin)and \(all.count - peers.count) more") }
        return lines + reasons(peers).map { margin + $0 }
    }

    /// What is wrong with some, once for all that it is said of.
    private static func reasons(_ peers: [PeerReport]) -> [String] {
        groups(peers) { $0.standingReason ?? $0.problem }.map { reason, homes in
            let more = homes.count > namedMax ? " and \(homes.count - namedMax) more" : ""
            return "\(homes.prefix(namedMax).joined(separator: ", "))\(more): \(reason)"
        }
    }

    private static let namedMax = 3

    /// The peers of which something is the same, by their home addresses; the one that comes first is in the first.
    private static func groups(_ peers: [PeerReport], by key: (PeerReport) -> String?) -> [(key: String, homes: [String])] {
        var (order, homes): ([String], [String: [String]]) = ([], [:])
        for peer in peers {
            guard let key = key(peer) else { continue }
            if homes[key] == nil { order.append(key) }
            homes[key, default: []].append(peer.home)
        }
        return order.map { ($0, homes[$0] ?? []) }
    }

    /// Those first that a person should look at, and else as they come.
    static func ordered(_ peers: [PeerReport]) -> [PeerReport] {
        let ranked = peers.enumerated().map { (rank: rank($1), place: $0, peer: $1) }
        return ranked.sorted { ($0.rank, $0.place) < ($1.rank, $1.place) }.map(\.peer)
    }

    private static func rank(_ peer: PeerReport) -> Int {
        switch word(peer) {
        case "unreachable": 0
        case "one-sided": 1
        case "detour": 2
        default: peer.problem == nil ? 4 : 3
        }
    }

    /// How many are in which state, the worst first.
    ///
    /// - Parameters:
    ///   - count: of all, of which these may be some.
    ///   - troubled: of all, those that a person should look at, if matd says so.
    static func summary(_ peers: [PeerReport], count: Int, troubled: Int?) -> [String] {
        let states = groups(ordered(peers), by: word).map { "\($1.count) \($0)" }.joined(separator: ", ")
        let all = Quantity.count(Int64(count), "peer")
        guard count > peers.count else { return ["\(all): \(states)"] }
        guard let troubled else { return ["\(all); of the \(peers.count) with the latest traffic \(states)"] }
        let leftOut = max(0, troubled - peers.count { rank($0) < 3 })
        let which = leftOut > 0 ? "\(leftOut) of which should be looked at too" : "none of which has to be looked at"
        return ["\(all), of which matd leaves out \(count - peers.count), \(which); of the others \(states)"]
    }

    /// The state without a time in it.
    private static func word(_ peer: PeerReport) -> String {
        let state = state(peer)
        return state.hasPrefix("detour") ? "detour" : state
    }

    /// A node at home is reached at its home address, which a repetition would hide.
    static func place(_ locator: String?, home: String) -> String {
        guard let locator else { return "no path" }
        return locator == home ? "home" : locator
    }

    /// How its packets go, if a conversation with it would survive a move; else why not in a word.
    static func state(_ peer: PeerReport) -> String {
        guard peer.standing != .unreachable else { return "unreachable" }
        guard peer.locator != nil else { return peer.standing == .mapped ? "idle" : "unreachable" }
        if !peer.confirmed { return "provisional" }
        if peer.standing == .oneSided { return "one-sided" }
        if let time = peer.detourMilliseconds { return "detour for \(Quantity.duration(milliseconds: time))" }
        guard peer.proven else { return "unproven" }
        return peer.path?.rawValue ?? "ok"
    }
}

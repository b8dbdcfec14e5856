import MATControl

/// Who this node talks to by home addresses, and where the packets go.
enum PeersText {
    /// - Parameter names: of peers, by home address.
    static func text(_ report: PeersReport, names: [String: String] = [:], _ style: TextStyle = .plain) -> String {
        let peers = report.peers.isEmpty ? ["no peers"] : lines(report.peers, names: names, style: style)
        let plain = (report.undecided?.destinations ?? []).filter(\.isPlain).map { destination in
            "\(destination.address): plain, it survives no move: \(destination.reason)"
        }
        return (peers + plain).joined(separator: "\n") + "\n"
    }

    static func lines(_ peers: [PeerReport], indent: Int = 0, names: [String: String] = [:], style: TextStyle = .plain) -> [String] {
        var table = TextTable([
            ("PEER", .left), ("NAME", .left), ("AT", .left), ("FROM", .left), ("VIA", .left), ("STATE", .left), ("AGE", .right),
            ("CHECKED", .right),
            ("MOVES", .right), ("PACKETS OUT", .right), ("IN", .right),
        ])
        table.yields = [3: 5, 4: 3, 6: 4, 7: 7, 8: 6, 9: 1, 10: 2]
        for peer in peers {
            table.add([
                peer.home, names[peer.home] ?? "", place(peer.locator, home: peer.home), place(peer.ownLocator, home: peer.ownHome),
                (peer.interface ?? "-") + (peer.chosenInterface == nil ? "" : " (chosen)"), state(peer),
                Quantity.duration(milliseconds: peer.ageMilliseconds), Quantity.duration(milliseconds: peer.refreshedAgoMilliseconds),
                "\(peer.switches)",
                "\(peer.packetsOut)", "\(peer.packetsIn)",
            ])
        }
        let reasons = peers.compactMap { peer in
            (peer.standingReason ?? peer.problem).map { "\(String(repeating: " ", count: indent))\(peer.home): \($0)" }
        }
        return table.lines(indent: indent, style) + reasons
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

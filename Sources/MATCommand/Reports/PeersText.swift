import MATControl

/// Who this node talks to by home addresses, and where the packets go.
enum PeersText {
    static func text(_ peers: [PeerReport], _ style: TextStyle = .plain) -> String {
        peers.isEmpty ? "no peers\n" : lines(peers, style: style).joined(separator: "\n") + "\n"
    }

    static func lines(_ peers: [PeerReport], indent: Int = 0, style: TextStyle = .plain) -> [String] {
        var table = TextTable([
            ("PEER", .left), ("AT", .left), ("FROM", .left), ("VIA", .left), ("STATE", .left), ("AGE", .right),
            ("CHECKED", .right),
            ("MOVES", .right), ("PACKETS OUT", .right), ("IN", .right),
        ])
        for peer in peers {
            table.add([
                peer.home, place(peer.locator, home: peer.home), place(peer.ownLocator, home: peer.ownHome),
                (peer.interface ?? "-") + (peer.chosenInterface == nil ? "" : " (chosen)"), state(peer),
                Quantity.duration(seconds: peer.ageSeconds), Quantity.duration(seconds: peer.refreshedSecondsAgo), "\(peer.switches)",
                "\(peer.packetsOut)", "\(peer.packetsIn)",
            ])
        }
        let problems = peers.compactMap { peer in
            peer.problem.map { "\(String(repeating: " ", count: indent))\(peer.home): \($0)" }
        }
        return table.lines(indent: indent, style) + problems
    }

    /// A node at home is reached at its home address, which a repetition would hide.
    private static func place(_ locator: String?, home: String) -> String {
        guard let locator else { return "no path" }
        return locator == home ? "home" : locator
    }

    private static func state(_ peer: PeerReport) -> String {
        guard peer.locator != nil else { return "unreachable" }
        if !peer.confirmed { return "provisional" }
        if peer.path == .encapsulated { return "encapsulated" }
        if let time = peer.detourSeconds { return "detour for \(Quantity.duration(seconds: time))" }
        return peer.proven ? "ok" : "unproven"
    }
}

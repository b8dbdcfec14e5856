import MATRuntime

/// Who this node talks to by home addresses, and where the packets go.
enum PeersReport {
    static func text(_ peers: [JSONValue], _ style: TextStyle = .plain) -> String {
        peers.isEmpty ? "no peers\n" : lines(peers, style: style).joined(separator: "\n") + "\n"
    }

    static func lines(_ peers: [JSONValue], indent: Int = 0, style: TextStyle = .plain) -> [String] {
        var table = TextTable([
            ("PEER", .left), ("AT", .left), ("FROM", .left), ("VIA", .left), ("STATE", .left), ("AGE", .right),
            ("CHECKED", .right),
            ("MOVES", .right), ("PACKETS OUT", .right), ("IN", .right),
        ])
        for peer in peers {
            table.add([
                peer["home"]?.string ?? "?", place(peer, "locator", home: peer["home"]),
                place(peer, "ownLocator", home: peer["ownHome"]),
                (peer["interface"]?.string ?? "-") + (peer["chosenInterface"]?.string == nil ? "" : " (chosen)"), state(peer), seconds(peer["ageSeconds"]), seconds(peer["refreshedSecondsAgo"]),
                number(peer["switches"]), number(peer["packetsOut"]), number(peer["packetsIn"]),
            ])
        }
        let problems = peers.compactMap { peer in
            peer["problem"]?.string.map { "\(String(repeating: " ", count: indent))\(peer["home"]?.string ?? "?"): \($0)" }
        }
        return table.lines(indent: indent, style) + problems
    }

    /// A node at home is reached at its home address, which a repetition would hide.
    private static func place(_ peer: JSONValue, _ key: String, home: JSONValue?) -> String {
        guard let address = peer[key]?.string else { return "no path" }
        return address == home?.string ? "home" : address
    }

    private static func state(_ peer: JSONValue) -> String {
        guard peer["locator"]?.string != nil else { return "unreachable" }
        if peer["confirmed"]?.bool == false { return "provisional" }
        if let time = peer["detourSeconds"]?.int { return "detour for \(Quantity.duration(seconds: time))" }
        return peer["proven"]?.bool == false ? "unproven" : "ok"
    }

    private static func seconds(_ value: JSONValue?) -> String { value?.int.map { Quantity.duration(seconds: $0) } ?? "-" }
    private static func number(_ value: JSONValue?) -> String { value?.int.map { "\($0)" } ?? "-" }
}

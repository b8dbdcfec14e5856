import MATRuntime

/// What `mat status` says of names: which DNS servers are asked and whether they answer, and destinations about which they give no answer.
enum NamesReport {
    /// Servers that have been silent for less may have lost a packet.
    private static let silenceMin: Int64 = 5

    static func lines(_ status: JSONValue, _ style: TextStyle) -> [String] {
        servers(status["dns"], style) + undecided(status["undecided"], style)
    }

    private static func servers(_ dns: JSONValue?, _ style: TextStyle) -> [String] {
        guard let servers = dns?["servers"]?.array else { return [] }
        let origin = dns?["from"]?.string ?? "?"
        var table = TextTable([("SERVER", .left), ("", .left)])
        for server in servers {
            let address = "\(server["address"]?.string ?? "?")\(server["isUpstream"]?.bool == true ? " (whom it asks)" : "")"
            table.add([address, state(server, style)])
        }
        var lines = ["", style.head("DNS servers, from \(origin)")] + (table.isEmpty ? ["  none"] : table.lines(indent: 2))
        if !servers.isEmpty, servers.allSatisfy({ isFailing($0) }) {
            lines.append("  " + style.bad("problem: none of them gives answers, so nobody new can be found and names may not resolve"))
            lines.append("  remedy: `dig @\(servers.first?["address"]?.string ?? "SERVER") .` shows whether it answers; other servers can be given as `dns: resolvers` in matd.yaml")
        }
        return lines
    }

    private static func isFailing(_ server: JSONValue) -> Bool { server["failingSeconds"]?.int.map { $0 >= silenceMin } ?? false }

    private static func state(_ server: JSONValue, _ style: TextStyle) -> String {
        let answered = server["answeredSecondsAgo"]?.int.map { "answered \(Quantity.duration(seconds: $0)) ago" }
        guard let failing = server["failingSeconds"]?.int else { return answered ?? "not asked yet" }
        let what = "\(server["failure"]?.string ?? "no answer"), for \(Quantity.duration(seconds: failing))"
        return isFailing(server) ? style.bad(what) : what
    }

    private static func undecided(_ undecided: JSONValue?, _ style: TextStyle) -> [String] {
        guard let count = undecided?["count"]?.int, count > 0 else { return [] }
        let listed = undecided?["destinations"]?.array ?? []
        let more = count > listed.count ? ", of which these were used last" : ""
        var table = TextTable([("DESTINATION", .left), ("MEANWHILE", .left), ("SINCE", .right), ("WHY", .left)])
        for destination in listed {
            table.add([
                destination["address"]?.string ?? "?", destination["isPlain"]?.bool == true ? "plain" : "waits",
                destination["ageSeconds"]?.int.map { Quantity.duration(seconds: $0) } ?? "?", destination["reason"]?.string ?? "?",
            ])
        }
        return [
            "", style.head("Destinations of which DNS does not say whether they are MAT nodes (\(count)\(more))"),
        ] + table.lines(indent: 2) + [
            "  remedy: `mat lookup ADDRESS` shows where it fails, mostly at the servers of a reverse zone; prefixes that are never MAT nodes go under `except` in matd.yaml",
        ]
    }
}

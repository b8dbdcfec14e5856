import MATControl

/// What `mat status` says of names: which DNS servers are asked and whether they answer, and destinations about which they give no answer.
enum NamesText {
    /// Servers that have been silent for less may have lost a packet.
    private static let silenceMillisecondsMin: Int64 = 5000

    static func lines(_ status: NodeReport, _ style: TextStyle) -> [String] {
        servers(status.dns, style) + undecided(status.undecided, style)
    }

    private static func servers(_ dns: DNSReport?, _ style: TextStyle) -> [String] {
        guard let dns else { return [] }
        var table = TextTable([("SERVER", .left), ("", .left)])
        for server in dns.servers { table.add(["\(server.address)\(server.isUpstream ? " (whom it asks)" : "")", state(server, style)]) }
        var lines = ["", style.head("DNS servers, from \(dns.from)")] + (table.isEmpty ? ["  none"] : table.lines(indent: 2))
        if let first = dns.servers.first, dns.servers.allSatisfy(isFailing) {
            lines.append("  " + style.bad("problem: none of them gives answers, so nobody new can be found and names may not resolve"))
            lines.append("  remedy: `dig @\(first.address) .` shows whether it answers; other servers can be given as `dns: resolvers` in matd.yaml")
        }
        return lines
    }

    private static func isFailing(_ server: DNSReport.Server) -> Bool { server.failingMilliseconds.map { $0 >= silenceMillisecondsMin } ?? false }

    private static func state(_ server: DNSReport.Server, _ style: TextStyle) -> String {
        let answered = server.answeredAgoMilliseconds.map { "answered \(Quantity.duration(milliseconds: $0)) ago" }
        guard let failing = server.failingMilliseconds else { return answered ?? "not asked yet" }
        let what = "\(server.failure ?? "no answer"), for \(Quantity.duration(milliseconds: failing))"
        return isFailing(server) ? style.bad(what) : what
    }

    private static func undecided(_ undecided: UndecidedReport, _ style: TextStyle) -> [String] {
        guard undecided.count > 0 else { return [] }
        let more = undecided.count > undecided.destinations.count ? ", of which these were used last" : ""
        var table = TextTable([("DESTINATION", .left), ("MEANWHILE", .left), ("SINCE", .right), ("WHY", .left)])
        table.spills = [3]
        for destination in undecided.destinations {
            table.add([
                destination.address, destination.isPlain ? "plain" : "waits", Quantity.duration(milliseconds: destination.ageMilliseconds),
                destination.reason,
            ])
        }
        return [
            "", style.head("Destinations of which DNS does not say whether they are MAT nodes (\(undecided.count)\(more))"),
        ] + table.lines(indent: 2, style.uncolored) + [
            "  remedy: `mat lookup ADDRESS` shows where it fails, mostly at the servers of a reverse zone; prefixes that are never MAT nodes go under `except` in matd.yaml"
        ]
    }
}

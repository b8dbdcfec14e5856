import BenchSupport

/// How many servers a number of nodes needs: arithmetic on measured figures, and the assumptions about nodes that it rests on.
struct ScaleModel: Codable {
    // What nodes do.
    var nodes = 1e9
    var handoverSeconds = 300.0
    /// Peers that a node talks to at a time, each polled every `pollSeconds`.
    var activePeers = 2.0
    var pollSeconds = 30.0
    /// Conversations that a node begins with peers it did not have, each a look-up in DNS.
    var newPeersPerHour = 6.0
    /// Of those look-ups, what the resolvers of the nodes' providers do not have in their caches.
    var dnsMissShare = 0.5

    // What was measured, of one core or one cluster.
    var queriesPerCore: Double
    var verificationsPerCore: Double
    var etcdPutsPerSecond: Double

    /// How much of anything is used on average: the rest is for bursts, for failed members, for growth.
    var utilisation = 0.4
    /// Cores of a server, half of them for queries.
    var coresPerServer = 16.0
    var instancesPerCluster = 3.0

    // Octets on the wire, with IPv6 and UDP headers (48).
    private static let queryOctets = 56.0 + 48
    private static let answerOctets = 332.0 + 48
    private static let updateOctets = 180.0 + 48
    private static let replyOctets = 60.0 + 48
    private static let pushOctets = 312.0 + 48
    private static let ackOctets = 56.0 + 48

    struct Line: Codable {
        var name: String
        var value: Double
        var unit: String
        var how: String
    }

    var updates: Double { nodes / handoverSeconds }
    var polls: Double { nodes * activePeers / pollSeconds }
    /// HA Notifies, one per active peer's IMS and handover; each makes that IMS ask the notifier's.
    var notifies: Double { updates * activePeers }
    var newPeers: Double { nodes * newPeersPerHour / 3600 }
    /// Polls, cookies for the new address, subscriptions renewed from it, confirmations of notifies, new peers (both ends ask).
    var queries: Double { polls + updates + updates * activePeers + notifies + newPeers * 2 }
    /// To each peer and to its IMS, which subscribed too; and what IMS_CN tells the CN.
    var pushes: Double { updates * activePeers * 2 + notifies }
    var clusters: Double { (updates / (etcdPutsPerSecond * utilisation)).rounded(.up) }
    var queryCores: Double { (queries / (queriesPerCore * utilisation)).rounded(.up) }
    /// Of updates, and of the records enclosed in HA Notifies.
    var verificationCores: Double { ((updates + notifies) / (verificationsPerCore * utilisation)).rounded(.up) }
    var servers: Double { max(clusters * instancesPerCluster, ((queryCores + verificationCores) / coresPerServer).rounded(.up)) }

    var lines: [Line] {
        let gigabits =
            (queries * (Self.queryOctets + Self.answerOctets) + updates * (Self.updateOctets + Self.replyOctets)
                + (pushes + notifies) * (Self.pushOctets + Self.ackOctets)) * 8 / 1e9
        return [
            Line(name: "IMS Updates", value: updates / 1e6, unit: "M/s", how: "nodes / \(number(handoverSeconds, 0)) s"),
            Line(name: "MA Queries", value: queries / 1e6, unit: "M/s", how: "\(number(polls / 1e6, 1)) M/s of them polls of active peers"),
            Line(name: "HA Notifies", value: notifies / 1e6, unit: "M/s", how: "one per handover and active peer"),
            Line(name: "MA Notifies (pushes)", value: pushes / 1e6, unit: "M/s", how: "peers, their servers, and what those pass on"),
            Line(
                name: "cores for queries", value: queryCores, unit: "",
                how: "\(number(queriesPerCore, 0))/s a core, used to \(number(utilisation * 100, 0)) %"),
            Line(name: "cores for signatures", value: verificationCores, unit: "", how: "\(number(verificationsPerCore, 0))/s a core, likewise"),
            Line(name: "etcd clusters", value: clusters, unit: "", how: "\(number(etcdPutsPerSecond, 0)) updates/s each, likewise"),
            Line(name: "nodes of one cluster", value: nodes / clusters / 1e6, unit: "M", how: ""),
            Line(
                name: "servers (imsd)", value: servers, unit: "",
                how: "of \(number(coresPerServer, 0)) cores; at least \(number(instancesPerCluster, 0)) to a cluster"),
            Line(name: "memory of one server", value: nodes / clusters * 512 / 1e9, unit: "GB", how: "all mappings of its cluster, 512 octets each"),
            Line(name: "network, all servers", value: gigabits, unit: "Gb/s", how: "both directions, IPv6"),
            Line(name: "network, one server", value: gigabits / servers, unit: "Gb/s", how: ""),
            Line(name: "DNS, resolvers", value: newPeers / 1e6, unit: "M/s", how: "one per new peer"),
            Line(
                name: "DNS, authoritative", value: newPeers * dnsMissShare / 1e6, unit: "M/s",
                how: "\(number(dnsMissShare * 100, 0)) % of them; zones of prefixes, that do not change when nodes move"),
        ]
    }
}

import ArgumentParser
import BenchSupport
import MATSignal

struct Storm: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "A simultaneous handover: a crowd updates within seconds, subscribers are to be told, and queries go on.",
        discussion: """
            Each node's subscribers are other nodes of the crowd, which acknowledge what the server pushes. Latencies count from when an \
            update was due: of a push, until it is with the subscriber. MoAs must be routed here as for updates.
            """)

    @OptionGroup var target: TargetOptions
    @OptionGroup var issuer: IssuerOptions
    @OptionGroup var query: QueryOptions
    @Option(help: "Nodes that move.") var nodes = 20_000
    @Option(help: "Queries a second meanwhile.") var queries = 50_000.0
    @Option(help: "The port that they go to, if not to the storm's: another server's on the same host, to compare with.") var queryPort: UInt16?
    @Option(help: "Subscribers of each node.") var subscribers = 3
    @Option(help: "How often the nodes have moved before.") var moved = 0
    @Option(help: "Tries of an update.") var tries = 5

    mutating func validate() throws {
        guard (2...1_000_000).contains(nodes), (0...8).contains(subscribers), queries >= 0, moved >= 0, (1...20).contains(tries) else {
            throw ValidationError("--nodes wants 2 to 1000000, --subscribers 0 to 8, --tries 1 to 20")
        }
    }

    /// How long after the last update what is on its way is waited for.
    private static let grace: UInt64 = 3_000_000_000

    func run() throws {
        let population = try target.nodes()
        let server = try target.servers()
        guard nodes <= population.population.signedCount else {
            throw BenchError("only \(population.population.signedCount) of the population's nodes have keys")
        }
        let cookies = Cookies(population, upTo: nodes)
        let asked = query.asked(population, seed: target.seed)
        let now = wallMilliseconds()
        let updates = try Updates(
            population, count: nodes, nodesCount: nodes, firstMove: moved, issuer: try issuer.issuer(), cookies: cookies,
            wholeCertificate: false, now: now)
        try target.pin()
        let side = NodeSide(try LoadSocket(port: SignalPort.node))
        let pushes = Pushes(population, nodesCount: nodes, each: subscribers, moves: moved, cookies: cookies)
        side.pushed = { message, to, now in pushes.took(message, to, now) }

        if subscribers > 0 {
            try getCookies((0..<nodes).map { ($0, moved) }, cookies, side, server)
            let subscribing = try Exchanges(pushes.subscriptions(), pace: .window(128), through: side, to: server)
            Generator.run([subscribing, side])
        }
        try getCookies(updates.places, cookies, side, server)

        let rate = Double(nodes) / target.seconds
        let exchanges = try Exchanges(
            updates.requests(), pace: .rate(rate), triesMax: tries, followsTryLater: true, through: side, to: server)
        var streams: [any LoadStream] = []
        var asking: QueryStream?
        if queries > 0 {
            let stream = try QueryStream(
                QueryStream.Setting(
                    server: Endpoint(server.v4.address, port: queryPort ?? target.port), messagesPerDatagram: query.messages, pace: .rate(queries)),
                asked: asked, offset: 0)
            asking = stream
            streams.append(stream)
        }
        streams += [exchanges, side]
        let begin = Ticks.wall()
        let end = begin &+ UInt64(target.seconds * 1e9)
        asking?.schedule(countsFrom: begin, end: end)
        pushes.begin(begin, rate: rate, sequencesFrom: now)
        Generator.run(streams, until: end &+ Self.grace)
        // Pushes that are still to come.
        let last = Ticks.wall() &+ 1_000_000_000
        while Ticks.wall() < last, pushes.delivered < pushes.granted { side.turn(Ticks.wall()) }

        var report = LoadReport(
            command: "storm",
            parameters: [
                "nodes": "\(nodes)", "seconds": "\(target.seconds)", "queries": "\(queries)", "subscribers": "\(subscribers)",
                "population": "\(population.count)",
            ])
        var updated = exchanges.tally
        updated.unanswered &+= updated.sent &- updated.answered &- updated.unanswered
        report.add("updates", updated, seconds: target.seconds, more: ["refused by this host": Double(side.outbox.refusedCount)])
        if let asking { report.add("queries", asking.tally, seconds: target.seconds) }
        if subscribers > 0 {
            var told = Tally()
            told.sent = UInt64(pushes.granted)
            told.codes[0] = UInt64(pushes.delivered)
            told.unanswered = UInt64(max(0, pushes.granted - pushes.delivered))
            told.resent = UInt64(pushes.repeated)
            told.latency = pushes.latency
            report.add(
                "pushes", told, seconds: target.seconds,
                more: [
                    "subscriptions wanted": Double(pushes.wanted), "subscriptions granted": Double(pushes.granted),
                    "within 1 s": Double(pushes.withinSecond),
                ])
        }
        try report.publish(json: target.json)
    }
}

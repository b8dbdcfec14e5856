import ArgumentParser
import BenchSupport
import MATSignal

struct UpdatesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "updates",
        abstract: "Nodes that move: IMS Updates, signed ahead, each from the node's new address.",
        discussion: """
            The MoAs (and the nodes' port 6289) must be this host's: ip route add local PREFIX dev lo, and a route back from the server. \
            Without --rate as many updates as --window says are without an answer at a time.
            """)

    @OptionGroup var target: TargetOptions
    @OptionGroup var issuer: IssuerOptions
    @Option(help: "Updates a second.") var rate: Double?
    @Option(help: "Updates without an answer at a time.") var window = 512
    @Option(help: "Updates in all; by default what --rate and --seconds come to.") var count: Int?
    @Option(help: "Nodes that take turns; by default all that have keys.") var nodes: Int?
    @Option(help: "Tries of an update: 5 as nodes do, 1 to see what is lost.") var tries = 5
    @Option(help: "How often the nodes have moved before.") var moved = 0
    @Option(help: ArgumentHelp("The server's process: tells how much processor time of it an update takes.", valueName: "pid")) var process: Int32?
    @Flag(help: "Send certificates whole, as nodes do whose certificate the server may not have.") var wholeCertificate = false

    /// Updates signed for a second of closed loop: more than a core verifies.
    private static let perSecondMax = 40_000.0

    mutating func validate() throws {
        guard (1...100_000).contains(window), (1...20).contains(tries), moved >= 0 else {
            throw ValidationError("--window wants 1 to 100000, --tries 1 to 20, --moved 0 or more")
        }
        if let rate, rate < 1 { throw ValidationError("--rate wants at least 1") }
        if let count, !(1...Exchanges.countMax).contains(count) { throw ValidationError("--count wants 1 to \(Exchanges.countMax)") }
    }

    func run() throws {
        let population = try target.nodes()
        let server = try target.servers()
        let nodesCount = min(nodes ?? population.population.signedCount, population.population.signedCount)
        let total = min(Exchanges.countMax, count ?? max(1, Int((rate ?? Self.perSecondMax) * target.seconds)))
        let cookies = Cookies(population, upTo: nodesCount)
        let updates = try Updates(
            population, count: total, nodesCount: nodesCount, firstMove: moved, issuer: try issuer.issuer(), cookies: cookies,
            wholeCertificate: wholeCertificate, now: wallMilliseconds())
        try target.pin()
        let side = NodeSide(try LoadSocket(port: SignalPort.node))
        try getCookies(updates.places, cookies, side, server)

        let exchanges = try Exchanges(
            updates.requests(), pace: rate.map { .rate($0) } ?? .window(window), triesMax: tries, through: side, to: server)
        // An open loop ends by itself when the last is answered or given up.
        let end = rate == nil && count == nil ? Ticks.wall() &+ UInt64(target.seconds * 1e9) : .max
        let start = Ticks.wall()
        let used = try process.map(usedBy)
        Generator.run([exchanges, side], until: end)
        let seconds = rate == nil ? Double((end == .max ? exchanges.ended : end) - start) / 1e9 : Double(total) / (rate ?? 1)
        var more = ["refused by this host": Double(side.outbox.refusedCount)]
        if let process, let used {
            more["processor us each"] = (try usedBy(process) - used) / 1000 / Double(max(1, exchanges.tally.answered))
        }
        var report = LoadReport(
            command: "updates",
            parameters: [
                "nodes": "\(nodesCount)", "rate": rate.map { "\($0)" } ?? "closed loop", "window": "\(window)", "tries": "\(tries)",
            ])
        report.add("updates", exchanges.tally, seconds: seconds, more: more)
        try report.publish(json: target.json)
        if exchanges.tally.answered == 0 { throw BenchError("no update was answered") }
    }
}

private func usedBy(_ process: Int32) throws -> Double {
    guard let used = processorNanoseconds(of: process) else { throw BenchError("there is no process \(process)") }
    return used
}

/// Gets the cookies of all these addresses, as nodes do before they need them.
func getCookies(_ places: [(node: Int, moves: Int)], _ cookies: Cookies, _ side: NodeSide, _ server: ServerPair) throws {
    let exchanges = try Exchanges(cookies.requests(places), pace: .window(128), through: side, to: server)
    Generator.run([exchanges, side])
    guard exchanges.tally.unanswered == 0 else {
        throw BenchError(
            "\(exchanges.tally.unanswered) of \(places.count) addresses got no cookie: is the server there, are the MoAs routed to this host "
                + "(ip route add local ...)? The kernel refused \(side.outbox.refusedCount) datagrams")
    }
}

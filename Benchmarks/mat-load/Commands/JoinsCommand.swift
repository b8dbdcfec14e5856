import ArgumentParser
import BenchSupport
import MATSignal

struct JoinsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "joins",
        abstract: "Nodes that join by a token, each with a key and an address of its own.",
        discussion: """
            The population's keys and MoAs are used, from --first on; it need not be registered. The MoAs must be this host's: \
            ip route add local PREFIX dev lo. Without --rate as many Joins as --window says are without an answer at a time.
            """)

    @OptionGroup var target: TargetOptions
    @Option(help: "What `mat ims token create` printed.") var token: String
    @Option(help: "Joins a second.") var rate: Double?
    @Option(help: "Joins without an answer at a time.") var window = 128
    @Option(help: "Joins in all.") var count = 10_000
    @Option(help: "The node that joins first.") var first = 0

    mutating func validate() throws {
        guard (1...100_000).contains(window), (1...1_000_000).contains(count), first >= 0 else {
            throw ValidationError("--window wants 1 to 100000, --count 1 to 1000000, --first 0 or more")
        }
        if let rate, rate < 1 { throw ValidationError("--rate wants at least 1") }
    }

    func run() throws {
        let nodes = try target.nodes()
        guard first + count <= nodes.count else { throw BenchError("the population has \(nodes.count) nodes; --first and --count go beyond") }
        let server = try target.servers()
        let held = try parsed(token)
        try target.pin()
        let cookies = Cookies(nodes, upTo: first + count)
        let side = NodeSide(try LoadSocket(port: SignalPort.node))
        try getCookies((first..<first + count).map { ($0, 0) }, cookies, side, server)
        let joins = try Joins(nodes, first: first, count: count, held, cookies)
        let exchanges = try Exchanges(
            joins.requests(), pace: rate.map { .rate($0) } ?? .window(window), followsTryLater: true, through: side, to: server)
        Generator.run([exchanges, side])
        let seconds = rate.map { Double(count) / $0 } ?? Double(exchanges.ended - exchanges.started) / 1e9
        var report = LoadReport(
            command: "joins", parameters: ["count": "\(count)", "rate": rate.map { "\($0)" } ?? "closed loop", "window": "\(window)"])
        report.add("joins", exchanges.tally, seconds: seconds)
        try report.publish(json: target.json)
        if exchanges.tally.ok == 0 { throw BenchError("nobody could join") }
    }
}

func parsed(_ token: String) throws -> JoinToken {
    do { return try JoinToken.parse(token) } catch { throw BenchError("--token: \(error)") }
}

/// The flood of Joins, as commands make it.
struct JoinsBeside {
    static let strangersCount = 2000
    var token: JoinToken?

    func stream(_ nodes: Nodes, _ server: Endpoint, rate: Double?, until end: UInt64, seed: UInt64) throws -> FloodStream {
        let strangers = try Strangers(isIPv4: server.address.isIPv4, count: Self.strangersCount)
        let socket = try LoadSocket(port: 0)
        let cookies = try strangerCookies(strangers, nodes, server, socket)
        return FloodStream(try JoinFlood.make(strangers, cookies: cookies, token, seed: seed), rate: rate, until: end, through: socket, to: server)
    }
}

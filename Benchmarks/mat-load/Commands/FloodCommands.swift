import ArgumentParser
import BenchSupport
import MATSignal

/// The flood of HA Notifies, as commands make it: cookies for the strangers first, if they are to have some.
struct StrangerNotifies {
    static let countDefault = 2000
    var count = countDefault
    var isProven: Bool

    func stream(_ nodes: Nodes, _ server: Endpoint, rate: Double?, until end: UInt64, seed: UInt64) throws -> FloodStream {
        let strangers = try Strangers(isIPv4: server.address.isIPv4, count: isProven ? count : 1_000_000)
        let socket = try LoadSocket(port: 0)
        let cookies = isProven ? try strangerCookies(strangers, nodes, server, socket) : []
        let flood = try NotifyFlood.make(strangers, about: nodes, cookies: cookies, seed: seed)
        return FloodStream(flood, rate: rate, until: end, through: socket, to: server)
    }
}

/// The flood's socket asks, since cookies are bound to its port.
func strangerCookies(_ strangers: Strangers, _ nodes: Nodes, _ server: Endpoint, _ socket: LoadSocket) throws -> [CookieOctets] {
    let side = NodeSide(socket)
    var cookies = Array(repeating: CookieOctets(), count: strangers.count)
    let exchanges = try Exchanges(
        Requests(
            count: strangers.count,
            write: { number, octets in
                let query = MAQuery(cookie: Cookie(client: UInt64(number)), hoa: HomeAddress(nodes.hoa(0)))
                let message = SignalMessage(sequence: 0, .maQuery(query)).octets
                put(message, at: octets)
                return message.count
            },
            source: { strangers[$0] }, endsWithCookie: true,
            done: { number, message, _ in if let cookie = message.serverCookie { cookies[number] = cookie } }),
        pace: .window(64), through: side, to: ServerPair(v4: server, v6: server))
    Generator.run([exchanges, side])
    guard exchanges.tally.unanswered == 0 else { throw BenchError("\(exchanges.tally.unanswered) of \(strangers.count) strangers got no cookie") }
    return cookies
}

struct Notifies: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "HA Notifies of strangers about the population's nodes.",
        discussion: "They come from \(Strangers.prefixes.joined(separator: " and ")), which must be routed here (ip route add local).")

    @OptionGroup var target: TargetOptions
    @Option(help: "Datagrams a second; as many as go without it.") var rate: Double?
    @Option(help: "Strangers.") var strangers = StrangerNotifies.countDefault
    @Flag(help: "The strangers have no cookies: their sources could be forged.") var unproven = false

    func run() throws {
        let nodes = try target.nodes()
        let server = try target.endpoint()
        try target.pin()
        let end = Ticks.wall() &+ UInt64(target.seconds * 1e9)
        let stream = try StrangerNotifies(count: strangers, isProven: !unproven)
            .stream(nodes, server, rate: rate, until: end, seed: target.seed)
        try runFlood(stream, "HA Notifies", target)
    }
}

struct Malformed: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Datagrams that are no messages of the protocol, or nearly some.",
        discussion: "They come from \(Strangers.prefixes.joined(separator: " and ")), which must be routed here (ip route add local).")

    @OptionGroup var target: TargetOptions
    @Option(help: "Datagrams a second; as many as go without it.") var rate: Double?
    @Option(help: "Of which kind: \(Garbage.Kind.allCases.map(\.rawValue).joined(separator: ", ")).") var kind = Garbage.Kind.mixed.rawValue

    func run() throws {
        guard let kind = Garbage.Kind(rawValue: kind) else { throw ValidationError("no kind is called \(kind)") }
        let nodes = try target.nodes()
        let server = try target.endpoint()
        try target.pin()
        let strangers = try Strangers(isIPv4: server.address.isIPv4, count: 4096)
        let flood = Garbage.make(kind, from: strangers, about: nodes, seed: target.seed)
        let end = Ticks.wall() &+ UInt64(target.seconds * 1e9)
        try runFlood(
            FloodStream(flood, rate: rate, until: end, through: try LoadSocket(port: 0), to: server), "malformed", target)
    }
}

private func runFlood(_ stream: FloodStream, _ name: String, _ target: TargetOptions) throws {
    Generator.run([stream])
    // What the server still has in hand.
    let quiet = Ticks.wall() &+ 300_000_000
    while Ticks.wall() < quiet { stream.turn(Ticks.wall()) }
    var tally = Tally()
    tally.sent = stream.sent
    tally.codes = stream.codes
    var report = LoadReport(command: name, parameters: ["seconds": "\(target.seconds)"])
    report.add(
        name, tally, seconds: target.seconds,
        more: [
            "datagrams/s": Double(stream.sent) / target.seconds, "octets sent": Double(stream.octetsSent),
            "octets received": Double(stream.octetsReceived),
        ])
    try report.publish(json: target.json)
}

import BenchSupport
import MATSignal
import SeededRandom

/// Datagrams that want no answer to go on, from many sources: what a server has to bear beside its work.
final class FloodStream: LoadStream {
    struct Flood {
        /// Writes datagram `number` and says how long it is.
        var write: (_ number: Int, _ octets: UnsafeMutableRawPointer) -> Int
        var source: (_ number: Int) -> IPAddress
    }

    private let flood: Flood
    private let server: Endpoint
    private let rate: Double?
    private var end: UInt64
    private let outbox: Outbox
    private let inbox: Inbox
    private var started: UInt64 = 0
    private var number = 0
    private(set) var codes: [UInt64] = Array(repeating: 0, count: 256)
    private(set) var octetsSent: UInt64 = 0
    private(set) var octetsReceived: UInt64 = 0
    private(set) var isDone = false

    /// - Parameter rate: datagrams a second; `nil` sends as many as go.
    init(_ flood: Flood, rate: Double?, until end: UInt64, through socket: LoadSocket, to server: Endpoint) {
        self.flood = flood
        self.rate = rate
        self.end = end
        self.server = server
        outbox = Outbox(socket)
        inbox = Inbox(socket, wantsAddresses: false)
    }

    /// Sets when it ends; before the first turn.
    func schedule(end: UInt64) { self.end = end }

    var sent: UInt64 { outbox.sentCount }
    var answered: UInt64 { codes.reduce(0, &+) }

    func turn(_ now: UInt64) {
        if started == 0 { started = now }
        if now < end {
            var count = Outbox.datagramsMax
            if let rate { count = min(count, Int(Double(now &- started) * rate / 1e9) - number) }
            for _ in 0..<max(0, count) {
                outbox.add(from: flood.source(number), to: server) { octets in
                    let length = flood.write(number, octets)
                    octetsSent &+= UInt64(length)
                    return length
                }
                number += 1
            }
            outbox.flush()
        } else {
            isDone = true
        }
        let received = inbox.receive()
        for index in 0..<received {
            let datagram = inbox.datagram(index)
            octetsReceived &+= UInt64(datagram.count)
            MessageView.forEach(in: datagram) { codes[Int($0.code)] &+= 1 }
        }
    }
}

/// Sources that are nobody's nodes.
struct Strangers: Sendable {
    static let prefixes = ["172.16.0.0/12", "2001:db8:4000::/34"]
    private let base: IPAddress
    private let isIPv4: Bool
    let count: Int

    init(isIPv4: Bool, count: Int) throws {
        guard let prefix = IPPrefix(Self.prefixes[isIPv4 ? 0 : 1]) else { throw BenchError("no prefix of strangers") }
        base = prefix.address
        self.isIPv4 = isIPv4
        self.count = max(1, min(count, 1_000_000))
    }

    subscript(number: Int) -> IPAddress {
        let number = UInt64(number % count) + 1
        return isIPv4 ? IPAddress(high: base.high, low: base.low &+ number) : IPAddress(high: base.high &+ number, low: 1)
    }
}

/// HA Notifies of strangers about nodes of this server: each would make it look something up in DNS, ask another server, keep state.
enum NotifyFlood {
    /// - Parameter cookies: of each stranger's address; empty ones make them come from unproven sources.
    static func make(_ strangers: Strangers, about nodes: Nodes, cookies: [CookieOctets], seed: UInt64) throws -> FloodStream.Flood {
        guard let own = HomeAddress("198.18.0.1") else { throw BenchError("no address") }
        let any = try AnyCookie.make()
        let isProven = !cookies.isEmpty
        let template = SignalMessage(
            sequence: 0,
            .haNotify(HANotify(cookie: Cookie(client: 0, server: isProven ? any : nil), hoa: own, peerHoA: HomeAddress(nodes.hoa(0))))
        ).octets
        let hoa = isProven ? Offset.hoa : Offset.hoa - 16
        let peer = hoa + 20
        var random = SeededGenerator(seed: seed)
        return FloodStream.Flood(
            write: { number, octets in
                put(template, at: octets)
                octets.store(sequence: UInt32(truncatingIfNeeded: number))
                let stranger = number % strangers.count
                octets.storeBytes(of: UInt64(stranger).bigEndian, toByteOffset: Offset.clientCookie, as: UInt64.self)
                if isProven { cookies[stranger].write(to: octets + Offset.serverCookie) }
                // 198.18.0.0/15 is for benchmarks; nobody serves its HoAs.
                octets.store(IPAddress(ipv4: 0xC612_0000 | UInt32(random.next() & 0x1_FFFF)), at: hoa)
                octets.store(nodes.hoa(Int(random.next() % UInt64(nodes.count))), at: peer)
                return template.count
            },
            source: { strangers[$0] })
    }
}

/// What is no message of the protocol, or nearly one.
enum Garbage {
    enum Kind: String, CaseIterable, Sendable {
        /// Octets by chance.
        case random
        /// Requests with some bits turned over.
        case damaged
        /// Requests cut short.
        case truncated
        /// Headers of requests with options by chance.
        case options
        case mixed
    }

    private static let templatesCount = 512

    static func make(_ kind: Kind, from strangers: Strangers, about nodes: Nodes, seed: UInt64) -> FloodStream.Flood {
        var random = SeededGenerator(seed: seed)
        let kinds: [Kind] = kind == .mixed ? [.random, .damaged, .truncated, .options] : [kind]
        let templates = (0..<templatesCount).map { number -> [UInt8] in
            let request = SignalMessage(
                sequence: UInt32(number),
                .maQuery(
                    MAQuery(
                        cookie: Cookie(client: random.next()), hoa: HomeAddress(nodes.hoa(number % nodes.count)),
                        padding: Int.random(in: 0..<400, using: &random)))
            ).octets
            func chance(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) } }
            switch kinds[number % kinds.count] {
            case .damaged:
                var damaged = request
                for _ in 0..<8 { damaged[Int.random(in: 0..<damaged.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random) }
                return damaged
            case .truncated:
                return Array(request.prefix(Int.random(in: 1..<request.count, using: &random)))
            case .options:
                let words = Int.random(in: 4..<250, using: &random)
                return [UInt8.random(in: 1...10, using: &random), 0, 1, UInt8(words)] + chance(words * 4 - 4)
            case .random, .mixed:
                return chance(Int.random(in: 1...1400, using: &random))
            }
        }
        return FloodStream.Flood(
            write: { number, octets in
                let template = templates[number % templates.count]
                put(template, at: octets)
                return template.count
            },
            source: { strangers[$0] })
    }
}

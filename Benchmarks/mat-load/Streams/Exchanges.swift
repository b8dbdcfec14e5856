import BenchSupport
import MATSignal

/// The server as nodes of either family reach it.
struct ServerPair: Sendable {
    var v4: Endpoint
    var v6: Endpoint
    subscript(source: IPAddress) -> Endpoint { source.isIPv4 ? v4 : v6 }
}

/// What the requests of one kind are: written by number, answered by number.
struct Requests {
    var count: Int
    /// Writes request `number` and says how long it is. The first option is a COOKIE with both halves; the sequence number is filled in
    /// by the caller.
    var write: (_ number: Int, _ octets: UnsafeMutableRawPointer) -> Int
    /// The address that it comes from.
    var source: (_ number: Int) -> IPAddress
    /// Whether the cookie is all that is wanted: code 9 ends the exchange.
    var endsWithCookie = false
    /// A cookie that the server wants to have in it.
    var follow: (_ number: Int, _ cookie: CookieOctets) -> Void = { _, _ in }
    /// The final answer has come.
    var done: (_ number: Int, _ message: MessageView, _ now: UInt64) -> Void = { _, _, _ in }
}

/// Requests of nodes, each from an address of its own, sent again until they are answered as section 7 of the protocol wants it.
final class Exchanges: LoadStream {
    /// Requests of one stream: the sequence number's lower bits.
    static let countMax = 1 << 24
    /// New requests sent in one turn, so that answers are taken in between.
    private static let perTurnMax = 32
    private static let cookiesFollowedMax = 2
    private static let triesLaterMax = 20

    private struct State {
        var due: UInt64 = 0
        var tries: UInt8 = 0
        var cookies: UInt8 = 0
        var later: UInt8 = 0
        var isOpen = false
    }

    /// Requests waiting for the same time: the first in is the first due.
    private struct Waiting {
        private var items: [(at: UInt64, number: UInt32)] = []
        private var first = 0
        mutating func add(_ number: Int, at time: UInt64) { items.append((time, UInt32(truncatingIfNeeded: number))) }
        mutating func take(_ now: UInt64) -> Int? {
            guard first < items.count, items[first].at <= now else { return nil }
            first += 1
            defer {
                if first > 65_536 {
                    items.removeFirst(first)
                    first = 0
                }
            }
            return Int(items[first - 1].number)
        }
    }

    /// The tries' distances: 250 ms, doubled each time. What is tried once is waited for as long as a node would in all its tries.
    private func interval(_ tries: UInt8) -> UInt64 { triesMax == 1 ? 8_000_000_000 : 250_000_000 << UInt64(min(tries, 6) - 1) }

    private let requests: Requests
    private let pace: Pace
    private let triesMax: UInt8
    private let followsTryLater: Bool
    private let server: ServerPair
    private let side: NodeSide
    private let number: UInt8
    private var states: [State]
    private var waiting: [Waiting]
    private var later = Waiting()
    private var next = 0
    private var open = 0
    private(set) var started: UInt64 = 0
    private(set) var ended: UInt64 = 0
    private(set) var tally = Tally()

    /// - Parameters:
    ///   - triesMax: 1 to see what is lost; 5 is the protocol's.
    ///   - followsTryLater: whether "try later" is followed until it is something else.
    init(_ requests: Requests, pace: Pace, triesMax: Int = 5, followsTryLater: Bool = false, through side: NodeSide, to server: ServerPair) throws {
        guard requests.count <= Self.countMax else { throw BenchError("\(requests.count) requests, at most \(Self.countMax)") }
        self.requests = requests
        self.pace = pace
        self.triesMax = UInt8(clamping: max(1, triesMax))
        self.followsTryLater = followsTryLater
        self.server = server
        self.side = side
        states = Array(repeating: State(), count: requests.count)
        waiting = Array(repeating: Waiting(), count: Int(self.triesMax) + 1)
        number = side.nextStreamNumber()
        side.add(self, number)
    }

    var isDone: Bool { next == requests.count && open == 0 }

    func turn(_ now: UInt64) {
        if started == 0 { started = now }
        for tries in 1...Int(triesMax) {
            while let request = waiting[tries].take(now) {
                guard states[request].isOpen, Int(states[request].tries) == tries else { continue }
                if states[request].tries >= triesMax {
                    close(request, now)
                    tally.unanswered &+= 1
                } else {
                    tally.resent &+= 1
                    attempt(request, now)
                }
            }
        }
        while let request = later.take(now) {
            guard states[request].isOpen else { continue }
            states[request].tries = 0
            tally.resent &+= 1
            attempt(request, now)
        }
        var budget = Self.perTurnMax
        while budget > 0, next < requests.count {
            var due = now
            switch pace {
            case .window(let window):
                if open >= window { return }
            case .rate(let rate):
                due = started &+ UInt64(Double(next) * 1e9 / rate)
                if due > now { return }
            }
            states[next].due = due
            states[next].isOpen = true
            open += 1
            tally.sent &+= 1
            attempt(next, now)
            next += 1
            budget -= 1
        }
    }

    private func attempt(_ request: Int, _ now: UInt64) {
        states[request].tries += 1
        waiting[Int(states[request].tries)].add(request, at: now &+ interval(states[request].tries))
        transmit(request)
    }

    private func transmit(_ request: Int) {
        let source = requests.source(request)
        side.outbox.add(from: source, to: server[source]) { octets in
            let length = requests.write(request, octets)
            octets.store(sequence: UInt32(number) << 24 | UInt32(truncatingIfNeeded: request))
            return length
        }
    }

    private func close(_ request: Int, _ now: UInt64) {
        states[request].isOpen = false
        open -= 1
        ended = now
    }

    /// An answer with this stream's number has come.
    func took(_ message: MessageView, _ now: UInt64) {
        let request = Int(message.sequence & 0xFF_FFFF)
        guard request < next, states[request].isOpen else { return }
        let code = ResponseCode(rawValue: message.code)
        if code == .cookieRequired, !requests.endsWithCookie, let cookie = message.serverCookie, states[request].cookies < Self.cookiesFollowedMax {
            tally.interim[Int(message.code)] &+= 1
            states[request].cookies += 1
            requests.follow(request, cookie)
            return transmit(request)
        }
        if code == .tryLater, followsTryLater, states[request].later < Self.triesLaterMax {
            tally.interim[Int(message.code)] &+= 1
            states[request].later += 1
            // No retransmission is due meanwhile.
            states[request].tries = 0
            let seconds =
                message.option(.lifetime).flatMap { $0.count == 4 ? $0 : nil }
                .map { UInt64(UInt32(bigEndian: $0.loadUnaligned(as: UInt32.self))) } ?? 1
            return later.add(request, at: now &+ min(5, max(1, seconds)) * 1_000_000_000)
        }
        tally.codes[Int(message.code)] &+= 1
        tally.latency.record(now > states[request].due ? now - states[request].due : 0)
        close(request, now)
        requests.done(request, message, now)
    }
}

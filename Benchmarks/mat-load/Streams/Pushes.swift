import BenchSupport
import MATSignal

/// Who subscribes to whom, and what has been pushed to them. Node i has subscribers i+1, i+2, ... in a ring: nodes like all others, so
/// that a crowd that moves at once also has to be told at once.
final class Pushes {
    private let nodes: Nodes
    private let cookies: Cookies
    private let nodesCount: Int
    private let each: Int
    private let moves: Int
    /// When each node's update was due; 0 if it has not been.
    private let due: UnsafeMutablePointer<UInt64>
    private let isDelivered: UnsafeMutablePointer<Bool>
    private var since: UInt64 = .max
    private(set) var latency = LatencyHistogram()
    private(set) var granted = 0
    private(set) var delivered = 0
    private(set) var withinSecond = 0
    private(set) var repeated = 0

    /// - Parameters:
    ///   - each: subscribers of each node.
    ///   - moves: how often the nodes have moved when they subscribe.
    init(_ nodes: Nodes, nodesCount: Int, each: Int, moves: Int, cookies: Cookies) {
        self.nodes = nodes
        self.nodesCount = nodesCount
        self.each = min(each, max(0, nodesCount - 1))
        self.moves = moves
        self.cookies = cookies
        due = .allocate(capacity: nodesCount)
        due.initialize(repeating: 0, count: nodesCount)
        isDelivered = .allocate(capacity: max(1, nodesCount * self.each))
        isDelivered.initialize(repeating: false, count: max(1, nodesCount * self.each))
    }

    deinit {
        due.deallocate()
        isDelivered.deallocate()
    }

    var wanted: Int { nodesCount * each }

    /// MA Queries with SUBSCRIBE, under the subscribers' cookies.
    func subscriptions() throws -> Requests {
        let placeholder = try AnyCookie.make()
        let template = SignalMessage(
            sequence: 0, .maQuery(MAQuery(cookie: Cookie(client: 0, server: placeholder), hoa: HomeAddress(nodes.hoa(0)), subscribe: 300))
        ).octets
        func subscriber(_ number: Int) -> Int { (number / each + number % each + 1) % nodesCount }
        return Requests(
            count: wanted,
            write: { [self] number, octets in
                put(template, at: octets)
                octets.storeBytes(of: cookies.client(subscriber(number), moves).bigEndian, toByteOffset: Offset.clientCookie, as: UInt64.self)
                cookies[subscriber(number), moves].write(to: octets + Offset.serverCookie)
                octets.store(nodes.hoa(number / each), at: Offset.hoa)
                return template.count
            },
            source: { [self] in nodes.moa(subscriber($0), moves) },
            follow: { [self] number, cookie in cookies[subscriber(number), moves] = cookie },
            done: { [self] _, message, _ in if message.option(.subscribe) != nil { granted += 1 } })
    }

    /// The updates begin: each node's is due at its time.
    func begin(_ start: UInt64, rate: Double, sequencesFrom sequence: UInt64) {
        since = sequence
        for node in 0..<nodesCount { due[node] = start &+ UInt64(Double(node) * 1e9 / rate) }
    }

    func took(_ message: MessageView, _ to: IPAddress, _ now: UInt64) {
        guard let (hoa, sequence) = message.mapping, sequence >= since, let node = nodes.node(of: hoa), node < nodesCount,
            let subscriber = nodes.node(at: to)
        else { return }
        let place = (subscriber - node - 1 + nodesCount) % nodesCount
        guard place < each, due[node] != 0 else { return }
        guard !isDelivered[node * each + place] else {
            repeated += 1
            return
        }
        isDelivered[node * each + place] = true
        delivered += 1
        let taken = now > due[node] ? now - due[node] : 0
        if taken <= 1_000_000_000 { withinSecond += 1 }
        latency.record(taken)
    }
}

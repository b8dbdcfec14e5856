import Foundation
import MATSignal
import MATTesting
import NodeCore
import Testing

/// Two nodes, each with its own IMS, in a network that loses, repeats and reorders:
///
/// ```
///   MN  HoA 198.51.100.1, roams 192.0.2.0/24       CN  HoA 203.0.113.1, roams 198.18.0.0/24
///   IMS_MN 192.88.1.1 and .2: one cluster          IMS_CN 192.88.2.1           (or all of it in IPv6)
/// ```
/// A run is right if both IMTs come to have exactly the entries that follow from where the nodes are, and packets flow both ways.
final class World {
    let seed: UInt64
    let network: SimulatedNetwork
    let dns: SimulatedDNS
    let imsOfMN: SimulatedIMS
    let imsOfCN: SimulatedIMS
    let mn: SimulatedNode
    let cn: SimulatedNode
    let mnPlaces: [IPAddress]
    let cnPlaces: [IPAddress]
    /// How often each end sends a packet.
    var interval: Duration = .milliseconds(50)
    private(set) var packetsSent = 0
    private var isTalking = false

    /// - Parameter conditions: the network's; what the seed has unless given. Odd seeds speak IPv6.
    init(seed: UInt64, conditions: NetworkConditions? = nil, adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) {
        self.seed = seed
        network = SimulatedNetwork(seed: seed, conditions: conditions ?? Self.weather(seed))
        let isIPv6 = seed % 2 == 1
        func pick(_ ipv4: String, _ ipv6: String) -> String { isIPv6 ? ipv6 : ipv4 }
        mnPlaces = (0..<8).map { ip(pick("192.0.2.\(10 + $0)", "2001:db8:a::\(10 + $0)")) }
        cnPlaces = (0..<8).map { ip(pick("198.18.0.\(10 + $0)", "2001:db8:b::\(10 + $0)")) }
        dns = SimulatedDNS(network)
        let mnAuthority = TestAuthority(seed: 201)
        let cnAuthority = TestAuthority(seed: 202)
        imsOfMN = SimulatedIMS(
            network, dns, addresses: [ip(pick("192.88.1.1", "2001:db8:1::1")), ip(pick("192.88.1.2", "2001:db8:1::2"))],
            serving: prefix(pick("198.51.100.0/24", "2001:db8:100::/48")), authority: mnAuthority)
        imsOfCN = SimulatedIMS(
            network, dns, addresses: [ip(pick("192.88.2.1", "2001:db8:2::1"))], serving: prefix(pick("203.0.113.0/24", "2001:db8:200::/48")),
            authority: cnAuthority)
        // In networks that lose two fifths, all checks of an address may be lost; what comes of that is others' subject.
        func lossy(_ configuration: inout NodeCoreConfiguration) {
            configuration.inbound = .open
            adjust(&configuration)
        }
        mn = SimulatedNode(network, dns, mnAuthority.enrol(home(pick("198.51.100.1", "2001:db8:100::1")), seed: 11), adjust: lossy)
        cn = SimulatedNode(network, dns, cnAuthority.enrol(home(pick("203.0.113.1", "2001:db8:200::1")), seed: 12), adjust: lossy)
    }

    /// Loss 0...40 %, duplication 0...20 %, and latencies that reorder, as the seed has it; every eighth network is perfect.
    static func weather(_ seed: UInt64) -> NetworkConditions {
        var random = SeededGenerator(seed: seed ^ 0xF00D)
        guard seed % 8 != 0 else { return NetworkConditions() }
        let slow = Duration.milliseconds(Int.random(in: 5...120, using: &random))
        return NetworkConditions(
            latency: .milliseconds(1)...slow, loss: Double.random(in: 0...0.4, using: &random),
            duplication: Double.random(in: 0...0.2, using: &random))
    }

    // MARK: What nodes do

    /// Both nodes register, and applications begin to talk: MN to CN, and CN back as soon as it hears something.
    func start() {
        mn.move(to: [mnPlaces[0]])
        cn.move(to: [cnPlaces[0]])
        network.drive(max: .seconds(120)) { self.mn.core.isRegistered && self.cn.core.isRegistered }
        talk()
    }

    /// Packets in both directions, for ever.
    func fallSilent() { isTalking = false }

    func talk() {
        isTalking = true
        say()
    }

    private func say() {
        guard isTalking else { return }
        packetsSent += 1
        // A connection: it is opened until something comes back, then there are segments.
        mn.send(UserPacket(packetsSent, mn.delivered.isEmpty ? .opening : .segment), to: cn.hoa.address)
        if !cn.delivered.isEmpty { cn.send(UserPacket(1_000_000 + packetsSent), to: mn.hoa.address) }
        network.after(interval) { [weak self] in self?.say() }
    }

    // MARK: What should be

    /// What the IMT of `node` should be: exactly the entries that both nodes' places make, and no other.
    func differences(of node: SimulatedNode, to peer: SimulatedNode) -> [String] {
        let pair = HomePair(own: node.hoa, peer: peer.hoa)
        let places = node.locators.map(\.moa)
        let peerPlaces = peer.locators.map(\.moa)
        var wantedInbound: [MobilePair: HomePair] = [:]
        for own in places { for moa in peerPlaces { wantedInbound[MobilePair(own: own, peer: moa)] = pair } }
        var wantedOutbound: [HomePair: MobilePair] = [:]
        if let own = places.first, let moa = peerPlaces.first { wantedOutbound[pair] = MobilePair(own: own, peer: moa) }
        var result: [String] = []
        if node.imt.outbound != wantedOutbound { result.append("\(node.hoa) sends by \(node.imt.outbound), should by \(wantedOutbound)") }
        if node.imt.inbound != wantedInbound { result.append("\(node.hoa) accepts \(node.imt.inbound), should \(wantedInbound)") }
        return result
    }

    var differences: [String] { differences(of: mn, to: cn) + differences(of: cn, to: mn) }
    var isTrue: Bool { differences.isEmpty }

    // MARK: Expectations

    /// The IMTs become right within the time, while the network loses as before; after that, in a network that loses nothing, every packet arrives.
    func expectConvergence(within limit: Duration = .seconds(180), _ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
        let began = network.time
        let didConverge = network.drive(max: limit) { self.isTrue }
        if Self.isVerbose, network.time - began > .seconds(5) { printLogs() }
        guard didConverge else {
            fail("\(what): not true after \(limit): \(differences.joined(separator: "; "))", sourceLocation)
            return
        }
        Self.noteTime(what, network.time - began, in: network.conditions)
        let weather = network.conditions
        network.conditions = NetworkConditions()
        // First let arrive what was sent while the network still lost packets.
        network.run(for: .seconds(1))
        let (toCN, toMN) = (cn.delivered.count, mn.delivered.count)
        network.run(for: .seconds(1))
        if cn.delivered.count - toCN < 19 || mn.delivered.count - toMN < 19 {
            fail("\(what): \(cn.delivered.count - toCN) packets to CN and \(mn.delivered.count - toMN) to MN in a second, of 20", sourceLocation)
        }
        if !isTrue { fail("\(what): did not stay true: \(differences.joined(separator: "; "))", sourceLocation) }
        network.conditions = weather
    }

    /// Whatever an IMS has acked it must still have.
    func expectNothingLost(sourceLocation: SourceLocation = #_sourceLocation) {
        for (node, ims) in [(mn, imsOfMN), (cn, imsOfCN)] {
            for registration in node.core.status(now: network.now).registrations where registration.phase == "registered" {
                let kept = ims.durable[IPPrefix(node.hoa.address)]?.record.sequence ?? 0
                if kept < registration.sequence { fail("\(node.hoa): \(registration.sequence) was acked, \(kept) is kept", sourceLocation) }
            }
        }
        for node in [mn, cn] where !node.imt.violations.isEmpty { fail("\(node.imt.violations)", sourceLocation) }
        for node in [mn, cn] {
            let leaked = node.deliveredPlain.filter { $0.kind == .segment }.count
            if leaked > 0 { fail("\(node.hoa) got \(leaked) segments of a mapped flow untranslated, and would have reset it", sourceLocation) }
        }
    }

    func fail(_ text: String, _ sourceLocation: SourceLocation) {
        Issue.record("seed \(seed) (\(network.conditions)): \(text)", sourceLocation: sourceLocation)
        if Self.isVerbose { printLogs() }
    }

    /// All that was logged, in the order of time.
    private func printLogs() {
        let logs = mn.logs.map { "MN \($0)" } + cn.logs.map { "CN \($0)" } + imsOfMN.logs.map { "IMS_MN \($0)" } + imsOfCN.logs.map { "IMS_CN \($0)" }
        print(logs.sorted { Self.time($0) < Self.time($1) }.joined(separator: "\n"))
    }

    private static func time(_ line: String) -> Int { Int(line.split(separator: " ").dropFirst().first ?? "") ?? 0 }

    // MARK: Seeds

    /// One seed to look at closely, from the environment: MAT_SEED=17 swift test --filter Simulation
    static let seedFromEnvironment = ProcessInfo.processInfo.environment["MAT_SEED"].flatMap { UInt64($0) }
    static var isVerbose: Bool { seedFromEnvironment != nil }
    /// How many seeds each scenario is tried with; MAT_SEEDS=1000 for a long night.
    static let seeds: [UInt64] =
        seedFromEnvironment.map { [$0] } ?? Array(0..<(ProcessInfo.processInfo.environment["MAT_SEEDS"].flatMap { UInt64($0) } ?? 60))

    nonisolated(unsafe) private static var times: [String: [(time: Duration, loss: Double)]] = [:]
    private static let lock = NSLock()

    private static func noteTime(_ what: String, _ time: Duration, in conditions: NetworkConditions) {
        lock.withLock { times[what, default: []].append((time, conditions.loss)) }
    }

    /// How long it took in that share of the runs (1: in all), in networks that lose no more than this.
    static func time(_ what: String, of share: Double = 1, lossMax: Double = 1) -> Duration {
        let sorted = lock.withLock { times[what] ?? [] }.filter { $0.loss <= lossMax }.map(\.time).sorted()
        return sorted.dropFirst(min(Int(Double(sorted.count) * share), sorted.count - 1)).first ?? .zero
    }

    /// How long convergence took, for people who compare versions.
    static func summary(_ what: String) -> String {
        let sorted = lock.withLock { times[what] ?? [] }.map(\.time).sorted()
        guard let median = sorted.dropFirst(sorted.count / 2).first, let last = sorted.last else { return "\(what): none" }
        let high = sorted[sorted.count * 95 / 100]
        return
            "\(what): \(sorted.count) runs, median \(median.millisecondsSaturated) ms, 95 % \(high.millisecondsSaturated) ms, longest \(last.millisecondsSaturated) ms"
    }
}

extension SimulatedNode {
    /// Numbers of packets that did not arrive, of those after the first so many.
    func lost(after count: Int) -> [Int] {
        let numbers = Set(delivered.dropFirst(max(0, count - 5)).map(\.packet.number))
        return ((numbers.min() ?? 0)..<(numbers.max() ?? 0)).filter { !numbers.contains($0) }
    }
}

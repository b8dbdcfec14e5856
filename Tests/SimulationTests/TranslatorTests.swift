import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Two nodes that move among open networks, translators and firewalls; each stands at an own IMS.
///
/// ```
///   MN  HoA 198.51.100.1        CN  HoA 203.0.113.1          open: 192.0.2.x and 198.18.0.x
///   IMS_MN 192.88.1.1, .2       IMS_CN 192.88.2.1            behind A: 10.1.x (192.0.2.100), B: 10.2.x (198.18.0.100), C: 10.3.x (192.0.2.200)
///                                                            behind firewalls: 198.18.5.x, 198.18.6.x
/// ```
final class TranslatedWorld {
    let network: SimulatedNetwork
    let dns: SimulatedDNS
    let mn: SimulatedNode
    let cn: SimulatedNode
    let a: SimulatedTranslator
    let b: SimulatedTranslator
    let c: SimulatedTranslator
    let firewall: SimulatedTranslator
    let otherFirewall: SimulatedTranslator
    let imsOfMN: SimulatedIMS
    let imsOfCN: SimulatedIMS
    private var sent = 0
    var isTalking = true
    enum Direction { case both, toCN, toMN }
    var direction = Direction.both
    /// Between two packets of each end.
    var pause = Duration.milliseconds(20)

    init(
        seed: UInt64, _ mapping: SimulatedTranslator.Mapping = .endpointIndependent,
        _ filtering: SimulatedTranslator.Filtering = .addressAndPortDependent, conditions: NetworkConditions = NetworkConditions(),
        sharesIMS: Bool = false
    ) {
        network = SimulatedNetwork(seed: seed, conditions: conditions)
        dns = SimulatedDNS(network)
        let (mnAuthority, cnAuthority) = (TestAuthority(seed: 201), TestAuthority(seed: 202))
        imsOfMN = SimulatedIMS(
            network, dns, addresses: [ip("192.88.1.1"), ip("192.88.1.2")], serving: prefix("198.51.100.0/24"), authority: mnAuthority)
        imsOfCN = SimulatedIMS(network, dns, addresses: [ip("192.88.2.1")], serving: prefix("203.0.113.0/24"), authority: cnAuthority)
        a = SimulatedTranslator(network, at: ip("192.0.2.100"), mapping, filtering)
        b = SimulatedTranslator(network, at: ip("198.18.0.100"), mapping, filtering)
        c = SimulatedTranslator(network, at: ip("192.0.2.200"), mapping, filtering)
        firewall = SimulatedTranslator(network, at: nil)
        otherFirewall = SimulatedTranslator(network, at: nil)
        network.put(firewall, before: prefix("198.18.5.0/24"))
        network.put(otherFirewall, before: prefix("198.18.6.0/24"))
        network.put(a, before: prefix("10.1.0.0/16"))
        network.put(b, before: prefix("10.2.0.0/16"))
        network.put(c, before: prefix("10.3.0.0/16"))
        mn = SimulatedNode(network, dns, mnAuthority.enrol(home("198.51.100.1"), seed: 11))
        cn = SimulatedNode(
            network, dns, sharesIMS ? mnAuthority.enrol(home("198.51.100.2"), seed: 12) : cnAuthority.enrol(home("203.0.113.1"), seed: 12))
    }

    /// Both are at these places, registered, and talk: 50 packets a second each way.
    func start(_ mnPlace: String, _ cnPlace: String) -> Bool {
        mn.move(to: [ip(mnPlace)])
        cn.move(to: [ip(cnPlace)])
        guard network.drive(max: .seconds(60), until: { self.mn.core.isRegistered && self.cn.core.isRegistered }) else { return false }
        return talk()
    }

    /// Packets begin to flow: 50 a second each way.
    func talk(within limit: Duration = .seconds(30)) -> Bool {
        say()
        return network.drive(max: limit) { !self.mn.delivered.isEmpty && !self.cn.delivered.isEmpty }
    }

    private func say() {
        guard isTalking else { return }
        sent += 1
        if direction != .toMN { mn.send(UserPacket(sent, mn.delivered.isEmpty ? .opening : .segment), to: cn.hoa.address) }
        if direction != .toCN, !cn.delivered.isEmpty { cn.send(UserPacket(1_000_000 + sent), to: mn.hoa.address) }
        network.after(pause) { [weak self] in self?.say() }
    }

    /// How long it takes until packets that are sent from now on arrive, each way; `nil`: not within the time.
    func resumption(within limit: Duration = .seconds(10)) -> (toCN: Duration, toMN: Duration)? {
        let began = network.time
        let first = sent
        func arrived(_ node: SimulatedNode, _ base: Int) -> MonotonicTime? {
            node.delivered.first { $0.packet.number > base + first && $0.at > began }?.at
        }
        guard network.drive(max: limit, until: { arrived(self.cn, 0) != nil && arrived(self.mn, 1_000_000) != nil }),
            let there = arrived(cn, 0), let back = arrived(mn, 1_000_000)
        else { return nil }
        return (there - began, back - began)
    }

    /// What goes on arriving: packets in the next second each way, of 50.
    func rate() -> (toCN: Int, toMN: Int) {
        let before = (cn.delivered.count, mn.delivered.count)
        network.run(for: .seconds(1))
        return (cn.delivered.count - before.0, mn.delivered.count - before.1)
    }

    /// How each end's packets go: "direct", "encapsulated", "relayed" or "none".
    var ways: (mn: String, cn: String) { (way(mn), way(cn)) }

    private func way(_ node: SimulatedNode) -> String {
        if !node.imt.outbound.isEmpty { return "direct" }
        switch node.imt.encapsulated.values.first {
        case .encapsulated?: return "encapsulated"
        case .relayed?: return "relayed"
        case .rewritten?, nil: return "none"
        }
    }

    /// Relays, found by DNS: of MN's HoA, and of CN's.
    func relays(ofMN: [IPAddress], ofCN: [IPAddress]) -> [SimulatedRelay] {
        let (mnHomes, cnHomes) = (prefix("198.51.100.0/24"), prefix("203.0.113.0/24"))
        let relays = (ofMN + ofCN.filter { !ofMN.contains($0) }).map { address in
            SimulatedRelay(
                network, dns, at: address,
                residents: (ofMN.contains(address) ? [mnHomes] : []) + (ofCN.contains(address) ? [cnHomes] : []))
        }
        dns.zones[mnHomes]?.relays = relays.filter { ofMN.contains($0.address) }.map(\.host)
        dns.zones[cnHomes]?.relays = relays.filter { ofCN.contains($0.address) }.map(\.host)
        return relays
    }

    func logs() -> String { (mn.logs.map { "MN " + $0 } + cn.logs.map { "CN " + $0 }).joined(separator: "\n") }
}

@Suite("Networks that translate") struct TranslatorTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let from: (mn: String, cn: String)
        let to: (mn: String, cn: String)
        let ways: (mn: String, cn: String)
        var testDescription: String { "\(from.mn) and \(from.cn) become \(to.mn) and \(to.cn)" }
    }

    static let open = "192.0.2.10"
    static let open2 = "192.0.2.11"
    static let open3 = "192.0.2.12"
    static let peer = "198.18.0.10"
    static let (inA, inA2, inB, inC) = ("10.1.0.10", "10.1.0.11", "10.2.0.10", "10.3.0.10")
    static let (direct, encapsulated) = (("direct", "direct"), ("encapsulated", "encapsulated"))

    @Test(
        "A node behind a translator is reached, and reaches, wherever it and its peer go",
        arguments: [
            Case(from: (inA, peer), to: (inA, peer), ways: encapsulated),
            Case(from: (open, peer), to: (inA, peer), ways: encapsulated),
            Case(from: (inA, peer), to: (open, peer), ways: direct),
            Case(from: (inA, peer), to: (inC, peer), ways: encapsulated),
            Case(from: (inA, peer), to: (inA2, peer), ways: encapsulated),
            Case(from: (open, inB), to: (open2, inB), ways: encapsulated),
            Case(from: (open, peer), to: (inA, inB), ways: encapsulated),
            Case(from: (inA, inB), to: (inC, inB), ways: encapsulated),
            Case(from: (inA, inB), to: (open, peer), ways: direct),
        ], [1, 2] as [UInt64])
    func movement(_ one: Case, seed: UInt64) {
        let world = TranslatedWorld(seed: seed)
        guard world.start(one.from.mn, one.from.cn) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(3))
        let switches = [world.mn, world.cn].map { $0.core.status(now: world.network.now).peers.first?.switches ?? 0 }
        if one.from.mn != one.to.mn { world.mn.move(to: [ip(one.to.mn)]) }
        if one.from.cn != one.to.cn { world.cn.move(to: [ip(one.to.cn)]) }
        guard let times = world.resumption() else {
            Issue.record("nothing goes on\n\(world.logs())")
            return
        }
        #expect(times.toCN < .milliseconds(700) && times.toMN < .milliseconds(700), "\(times)")
        world.network.run(for: .seconds(3))
        #expect(world.ways == one.ways, "\(world.logs())")
        // People are told of each move, however packets go before and after it; a move may take more than one step.
        let hasMoved = one.from != one.to
        for (node, before) in zip([world.mn, world.cn], switches) {
            let since = (node.core.status(now: world.network.now).peers.first?.switches ?? 0) - before
            #expect((hasMoved ? 1...4 : 0...0).contains(since), "\(since) after \(before)\n\(world.logs())")
        }
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)\n\(world.logs())")
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    static let (inFirewall, inOtherFirewall) = ("198.18.5.10", "198.18.6.10")

    @Test(
        "A node behind a firewall finds out by the check that does not come, is listed by its endpoint, and is reached encapsulated",
        arguments: [(inFirewall, peer), (inFirewall, inOtherFirewall), (inFirewall, inB)])
    func firewalls(_ places: (mn: String, cn: String)) {
        let world = TranslatedWorld(seed: 21)
        world.mn.move(to: [ip(places.mn)])
        world.cn.move(to: [ip(places.cn)])
        world.network.run(for: .seconds(8))
        let place = Endpoint(ip(places.mn), port: SignalPort.node)
        #expect(world.mn.core.homes[world.mn.hoa]?.mapping?.record.places == [.endpoint(place, preference: 10)], "\(world.logs())")
        let uplink = world.mn.core.status(now: world.network.now).uplinks.first
        #expect(uplink?.translation?.text == "filtered: no packets from outside arrive")
        #expect(world.start(places.mn, places.cn), "\(world.logs())")
        world.network.run(for: .seconds(2))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)\n\(world.logs())")
        // Into a network without one, packets are rewritten again.
        world.mn.move(to: [ip(Self.open)])
        world.network.run(for: .seconds(6))
        if places.cn == Self.peer { #expect(world.ways == Self.direct, "\(world.logs())") }
        #expect(world.rate().toCN >= 49)
    }

    @Test(
        "A move to where a firewall drops flows in their middle is over in a second, before the checks that do not come tell of it",
        arguments: [true, false], [22, 23] as [UInt64])
    func firstTimeBehindFirewall(isMN: Bool, seed: UInt64) {
        let world = TranslatedWorld(seed: seed)
        #expect(world.start(Self.open, Self.peer), "\(world.logs())")
        world.network.run(for: .seconds(8))
        #expect(world.ways == Self.direct)
        (isMN ? world.mn : world.cn).move(to: [ip(Self.inFirewall)])
        guard let times = world.resumption() else {
            Issue.record("nothing goes on\n\(world.logs())")
            return
        }
        #expect(max(times.toCN, times.toMN) <= .seconds(1), "\(times)\n\(world.logs())")
        for _ in 1...10 {
            let rate = world.rate()
            #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)\n\(world.logs())")
        }
        #expect(world.ways == Self.encapsulated)
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    @Test(
        "Who only listens, and moves to where a firewall drops flows in their middle, hears its peer again within 1.5 s; elsewhere nothing is changed by its silence",
        arguments: [inFirewall, open2], [22, 23] as [UInt64])
    func listenerMoves(place: String, seed: UInt64) {
        let world = TranslatedWorld(seed: seed)
        #expect(world.start(Self.open, Self.peer), "\(world.logs())")
        world.network.run(for: .seconds(8))
        world.direction = .toMN
        // From its next place nothing has ever come, by which the peer could judge.
        world.mn.move(to: [ip(Self.open3)])
        world.network.run(for: .seconds(15))
        #expect(world.ways == Self.direct)
        let (began, before) = (world.network.time, world.mn.delivered.count)
        world.mn.move(to: [ip(place)])
        let isHeard = world.network.drive(max: .seconds(10)) { world.mn.delivered.count > before }
        #expect(isHeard && world.network.time - began <= .milliseconds(1500), "\(world.network.time - began)\n\(world.logs())")
        for _ in 1...10 {
            let rate = world.rate()
            #expect(rate.toMN >= 49, "\(rate)\n\(world.logs())")
        }
        #expect(world.ways == (place == Self.open2 ? Self.direct : Self.encapsulated), "\(world.logs())")
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    @Test(
        "Back in a network that was found to be filtered, a node is reached there at once; after an hour, or in another one, it finds out anew",
        arguments: [(inFirewall, 60, true), ("198.18.5.11", 60, true), (inFirewall, 3700, false), (inOtherFirewall, 60, false)])
    func knownFirewall(place: String, seconds: Int, isKnown: Bool) {
        let world = TranslatedWorld(seed: 24)
        #expect(world.start(Self.open, Self.peer), "\(world.logs())")
        world.network.run(for: .seconds(8))
        world.mn.move(to: [ip(Self.inFirewall)])
        world.network.run(for: .seconds(12))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
        world.mn.move(to: [ip(Self.open)])
        world.network.run(for: .seconds(10))
        #expect(world.ways == Self.direct, "\(world.logs())")
        world.isTalking = false
        world.network.run(for: .seconds(Int64(seconds)))
        world.isTalking = true
        #expect(world.talk())
        world.network.run(for: .seconds(2))
        world.mn.move(to: [ip(place)])
        guard let times = world.resumption() else {
            Issue.record("nothing goes on\n\(world.logs())")
            return
        }
        // Who finds out anew does so by packets that are lost.
        #expect(max(times.toCN, times.toMN) < (isKnown ? .milliseconds(300) : .seconds(1)), "\(times)\n\(world.logs())")
        world.network.run(for: .milliseconds(500))
        let endpoint = Endpoint(ip(place), port: SignalPort.node)
        let listed = world.mn.core.homes[world.mn.hoa]?.mapping?.record.places
        #expect((listed == [.endpoint(endpoint, preference: 10)]) == isKnown, "\(listed ?? [])\n\(world.logs())")
        world.network.run(for: .seconds(10))
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)\n\(world.logs())")
    }

    @Test("Where datagrams never get through, relayed nodes try again less and less, ten minutes apart in the end, and at once in another network")
    func neverThrough() {
        let world = TranslatedWorld(seed: 25, .endpointDependent)
        _ = world.relays(ofMN: [ip("192.88.9.1")], ofCN: [ip("192.88.9.2")])
        #expect(world.start(Self.inA, Self.inB), "\(world.logs())")
        var tries: [MonotonicTime] = []
        world.network.onSend = { packet, time in
            // Between the two translators nothing else goes.
            let ends = [packet.source, packet.destination]
            if ends == [ip(Self.inA), ip("198.18.0.100")] { tries.append(time) }
        }
        world.pause = .seconds(5)
        world.network.run(for: .seconds(2300))
        #expect(world.ways == RelayTests.relayed, "\(world.logs())")
        let began = world.network.time
        let series = zip(tries, tries.dropFirst()).filter { $1 - $0 > .seconds(5) }.map { $1 - $0 }
        #expect(series.count >= 5 && series.count <= 7, "\(series)")
        #expect(series.last.map { $0 > .seconds(590) && $0 < .seconds(620) } ?? false, "\(series)")
        #expect(zip(series, series.dropFirst()).allSatisfy { $1 >= $0 - .seconds(1) }, "\(series)")
        #expect(tries.count <= 14 * (series.count + 1), "\(tries.count)")
        // Either end's move is a reason to try at once.
        tries = []
        world.pause = .milliseconds(20)
        world.cn.move(to: [ip("10.2.0.11")])
        world.network.run(for: .seconds(3))
        #expect(tries.contains { $0 - began < .seconds(2) }, "\(tries)")
        world.mn.move(to: [ip(Self.open)])
        world.network.run(for: .seconds(5))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
    }

    @Test("At an open address the check comes, and packets are rewritten", arguments: [1, 2] as [UInt64])
    func notFiltered(seed: UInt64) {
        let world = TranslatedWorld(seed: seed, conditions: NetworkConditions(latency: .milliseconds(5) ... .milliseconds(60), loss: 0.1))
        #expect(world.start(Self.open, Self.peer), "\(world.logs())")
        world.network.run(for: .seconds(8))
        #expect(world.ways == Self.direct, "\(world.logs())")
    }

    @Test(
        "Every kind of translator lets a node reach an open peer",
        arguments: [
            (SimulatedTranslator.Mapping.endpointIndependent, SimulatedTranslator.Filtering.endpointIndependent),
            (.endpointIndependent, .addressDependent), (.endpointDependent, .addressDependent), (.endpointDependent, .addressAndPortDependent),
        ])
    func kinds(_ mapping: SimulatedTranslator.Mapping, _ filtering: SimulatedTranslator.Filtering) {
        let world = TranslatedWorld(seed: 3, mapping, filtering)
        #expect(world.start(Self.inA, Self.peer), "\(world.logs())")
        world.network.run(for: .seconds(2))
        world.mn.move(to: [ip(Self.inC)])
        let times = world.resumption()
        #expect(times.map { max($0.toCN, $0.toMN) < .milliseconds(700) } ?? false, "\(times.debugDescription) \(world.logs())")
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)")
    }

    @Test("Both behind translators that filter less, or map by the endpoint alone: no packet needs a relay", arguments: [1, 2, 3] as [UInt64])
    func bothMove(seed: UInt64) {
        let world = TranslatedWorld(seed: seed, .endpointIndependent, seed == 1 ? .endpointIndependent : .addressAndPortDependent)
        #expect(world.start(Self.inA, Self.inB), "\(world.logs())")
        world.network.run(for: .seconds(2))
        world.mn.move(to: [ip(Self.inC)])
        world.cn.move(to: [ip("10.2.0.11")])
        let times = world.resumption()
        #expect(times.map { max($0.toCN, $0.toMN) < .seconds(1) } ?? false, "\(times.debugDescription) \(world.logs())")
    }

    @Test(
        "A translator that starts anew, with another address too, holds packets up for a second at most, both ways",
        arguments: [(peer, false), (peer, true), (inB, false), (inB, true)])
    func reboot(_ cn: String, isElsewhere: Bool) {
        let world = TranslatedWorld(seed: 5)
        #expect(world.start(Self.inA, cn))
        world.network.run(for: .seconds(4))
        world.a.reboot(at: isElsewhere ? ip("192.0.2.101") : nil)
        guard let times = world.resumption() else {
            Issue.record("nothing goes on\n\(world.logs())")
            return
        }
        #expect(max(times.toCN, times.toMN) <= .seconds(1), "\(times)\n\(world.logs())")
        world.network.run(for: .seconds(2))
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate) \(world.logs())")
        #expect(world.ways == Self.encapsulated)
    }

    @Test(
        "What comes from a new endpoint of a peer waits until that has proven itself, and none of it is lost or overtaken", arguments: [false, true])
    func newEndpoint(isElsewhere: Bool) {
        let world = TranslatedWorld(seed: 17)
        #expect(world.start(Self.inA, Self.peer))
        world.network.run(for: .seconds(4))
        world.direction = .toCN
        world.network.run(for: .milliseconds(100))
        let before = world.cn.delivered.count
        world.a.reboot(at: isElsewhere ? ip("192.0.2.101") : nil)
        world.network.run(for: .seconds(2))
        let numbers = world.cn.delivered.dropFirst(before).map(\.packet.number)
        #expect(numbers.count > 95 && world.cn.encapsulatedHeld > 0, "\(numbers.count)")
        #expect(zip(numbers, numbers.dropFirst()).allSatisfy { $1 == $0 + 1 }, "\(numbers)")
    }

    @Test("A translator that starts anew under a stream of one direction holds it up for 1.5 s at most", arguments: [true, false], [false, true])
    func rebootOneWay(fromInside: Bool, isElsewhere: Bool) {
        let world = TranslatedWorld(seed: 15)
        #expect(world.start(Self.inA, Self.peer))
        world.direction = fromInside ? .toCN : .toMN
        world.network.run(for: .seconds(4))
        world.a.reboot(at: isElsewhere ? ip("192.0.2.101") : nil)
        let began = world.network.time
        func arrived() -> Bool {
            let node = fromInside ? world.cn : world.mn
            return node.delivered.last.map { $0.at > began + .milliseconds(100) } ?? false
        }
        #expect(world.network.drive(max: .milliseconds(1500), until: arrived), "\(world.logs())")
    }

    @Test("A stream that nobody answers stays on its path, and costs five messages a second at most", arguments: [true, false])
    func oneWay(fromInside: Bool) {
        let world = TranslatedWorld(seed: 16, conditions: NetworkConditions(latency: .milliseconds(20) ... .milliseconds(40), loss: 0.02))
        #expect(world.start(Self.inA, Self.peer))
        world.direction = fromInside ? .toCN : .toMN
        world.network.run(for: .seconds(4))
        let node = fromInside ? world.mn : world.cn
        let (logs, messages) = (node.logs.count, node.core.counters.messagesSent)
        let way = node.imt.encapsulated
        world.network.run(for: .seconds(60))
        #expect(node.imt.encapsulated == way)
        let changes = node.logs.dropFirst(logs).filter { $0.contains("silent") || $0.contains("go encapsulated") }
        #expect(changes.isEmpty, "\(changes)")
        // Beside the probes, its two server addresses are asked every two seconds whether they see it where it was; they are one server's, which
        // each time knows no more what was bound at the other.
        #expect(node.core.counters.messagesSent - messages < 300)
        let rate = world.rate()
        #expect((fromInside ? rate.toCN : rate.toMN) >= 45)
    }

    @Test("The size of packets in datagrams follows what the path carries, wider and narrower, and where 1280 octets do not pass they are cut up")
    func sizes() {
        let world = TranslatedWorld(seed: 7)
        let pairs = [(world.mn, world.cn), (world.cn, world.mn)].map { ($0, HomePair(own: $0.hoa, peer: $1.hoa)) }
        func largest() -> [UInt32] { pairs.compactMap { $0.imt.largest[$1] } }
        world.network.largest = 1400
        #expect(world.start(Self.inA, Self.peer))
        #expect(world.network.drive(max: .seconds(3)) { largest() == [1372, 1372] }, "\(largest())")
        // Nobody says that the path has become narrower.
        world.network.largest = 1320
        #expect(world.network.drive(max: .seconds(17)) { largest() == [1280, 1280] }, "\(largest())")
        world.network.largest = 1124
        #expect(world.network.drive(max: .seconds(17)) { largest() == [1279, 1279] }, "\(largest())")
        world.network.largest = 1500
        #expect(world.network.drive(max: .seconds(605)) { largest() == [1472, 1472] }, "\(largest())")
        // Another path is another matter.
        world.network.largest = 1452
        world.mn.move(to: [ip(Self.inC)])
        #expect(world.resumption() != nil)
        #expect(world.network.drive(max: .seconds(5)) { largest() == [1424, 1424] }, "\(largest()) \(world.logs())")
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    @Test("After an hour of silence the first packet finds its way, in either direction", arguments: [true, false])
    func idle(fromInside: Bool) {
        let world = TranslatedWorld(seed: 6)
        #expect(world.start(Self.inA, Self.peer))
        world.isTalking = false
        world.network.run(for: .seconds(300))
        // Nobody is told meanwhile that the other can't be reached.
        for node in [world.mn, world.cn] {
            let peer = node.core.status(now: world.network.now).peers.first
            #expect(peer?.standing == .mapped, "\(String(describing: peer))")
        }
        let before = (world.cn.delivered.count, world.mn.delivered.count)
        if fromInside {
            world.mn.send(UserPacket(9_000_000), to: world.cn.hoa.address)
            #expect(world.network.drive(max: .seconds(1)) { world.cn.delivered.count > before.0 }, "\(world.logs())")
        } else {
            world.cn.send(UserPacket(9_000_000), to: world.mn.hoa.address)
            #expect(world.network.drive(max: .seconds(1)) { world.mn.delivered.count > before.1 }, "\(world.logs())")
        }
    }

    @Test(
        "What keeps an idle node's ways open goes together: it wakes no more often than one refresh is due",
        arguments: 30...32 as ClosedRange<UInt64>)
    func keepalives(seed: UInt64) {
        let world = TranslatedWorld(seed: seed)
        _ = world.relays(ofMN: [ip("192.88.9.1")], ofCN: [ip("192.88.9.2")])
        #expect(world.start(Self.inA, Self.inB), "\(world.logs())")
        world.network.run(for: .milliseconds(Int64.random(in: 20_000...50_000, using: &world.network.random)))
        world.isTalking = false
        world.network.run(for: .seconds(120))
        var sent: [MonotonicTime] = []
        world.network.onSend = { packet, time in
            guard packet.source == ip(Self.inA) else { return }
            sent.append(time)
        }
        world.network.run(for: .seconds(200))
        // Refreshes are 22.5 to 25 s apart.
        let wakes = zip(sent, sent.dropFirst()).count { $1 - $0 > .seconds(1) } + 1
        #expect(wakes <= 10, "\(sent.map { "\($0)" })")
    }

    @Test("In networks that lose a fifth, repeat and reorder, every move ends in the right way", arguments: 10...17 as ClosedRange<UInt64>)
    func convergence(seed: UInt64) {
        let weather = NetworkConditions(latency: .milliseconds(5) ... .milliseconds(60), loss: 0.2, duplication: 0.1)
        let world = TranslatedWorld(seed: seed, conditions: weather)
        guard world.start(Self.inA, seed % 2 == 0 ? Self.peer : Self.inB) else {
            Issue.record("seed \(seed): no packets at the start\n\(world.logs())")
            return
        }
        for place in [Self.inC, Self.open, Self.inA2, Self.inC] {
            world.mn.move(to: [ip(place)])
            world.network.run(for: .seconds(30))
            guard let times = world.resumption() else {
                Issue.record("seed \(seed): nothing goes on at \(place)\n\(world.logs())")
                return
            }
            #expect(max(times.toCN, times.toMN) < .seconds(5), "seed \(seed) at \(place): \(times)")
        }
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }
}

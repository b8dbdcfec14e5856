import MATCore
import MATSignal
import MATTesting
import SeededRandom
import Testing

@testable import RelayCore

@Suite("Fairness among the HoAs of a relay") struct FairQueueTests {
    private func packet(_ source: UInt32, octets: Int, until: MonotonicTime = .distantFuture) -> FairQueue.Packet {
        FairQueue.Packet(
            octets: [UInt8](repeating: 0, count: octets), source: source, destination: .unspecifiedIPv6, trafficClass: 0, until: until)
    }

    @Test("Lines share by octets, whatever their packets' sizes, and each keeps its order", arguments: [1, 2, 3])
    func shares(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var queue = FairQueue(octetsMax: 1 << 20)
        let sizes: [UInt32: ClosedRange<Int>] = [1: 40...80, 2: 1400...1452, 3: 200...9000]
        for (source, range) in sizes.sorted(by: { $0.key < $1.key }) {
            for _ in 0..<5000 {
                let octets = Int.random(in: range, using: &random)
                if queue.hasRoom(for: octets, of: source) { queue.add(packet(source, octets: octets)) }
            }
        }
        var sent: [UInt32: Int] = [:]
        // As long as all have something.
        while queue.linesCount == 3, case .send(let packet) = queue.next(.zero, take: { _ in true }) {
            sent[packet.source, default: 0] += packet.octets.count
        }
        let counts = sizes.keys.compactMap { sent[$0] }
        #expect(counts.count == 3 && (counts.max() ?? 0) - (counts.min() ?? 0) <= 1500 + 9000, "\(sent), seed \(seed)")
    }

    @Test("A line that is full takes nothing from what others may hold; what waits too long is told; whose turn it is waits for the rate")
    func bounds() {
        var queue = FairQueue(octetsMax: 10_000)
        var held = 0
        while queue.hasRoom(for: 1000, of: 1) {
            queue.add(packet(1, octets: 1000))
            held += 1
        }
        #expect(held == 4)
        #expect(queue.hasRoom(for: 1000, of: 2))
        queue.add(packet(2, octets: 100, until: MonotonicTime(nanoseconds: 5)))
        var asked: [Int] = []
        for hasRoom in [false, true] {
            let next = queue.next(.zero) { octets in
                asked.append(octets)
                return hasRoom
            }
            #expect(next == (hasRoom ? .send(packet(1, octets: 1000)) : .none))
        }
        #expect(asked == [1000, 1000])
        let old = MonotonicTime(nanoseconds: 5)
        #expect(queue.next(old, take: { _ in true }) == .tooOld(packet(2, octets: 100, until: old)))
        for _ in 0..<3 { #expect(queue.next(old, take: { _ in true }) == .send(packet(1, octets: 1000))) }
        #expect(queue.isEmpty && queue.octets == 0 && queue.next(old, take: { _ in true }) == .none)
    }

    /// A stream of 50 packets/s of 200 octets from one node to another for nearly 5 s, beside floods of others.
    ///
    /// - Returns: how many of the stream's packets arrived, of how many, and the longest wait in ms.
    private func stream(
        _ limits: RelayLimits, floods: Int, toSame: Bool, octetsPerMillisecond: Int
    ) -> (arrived: Int, of: Int, waitedMax: Int, floodOctets: Int) {
        var relay = Fixture(limits)
        let nodes = (1...10).map { relay.authority.enrol(home("10.0.0.\($0)"), seed: UInt8($0)) }
        for (number, node) in nodes.enumerated() { relay.bind(node, from: at("198.51.100.\(number + 1)")) }
        let (speaker, listener) = (nodes[0], nodes[1])
        var sentAt: [UInt8: Int] = [:]
        var (arrived, of, waitedMax, floodOctets) = (0, 0, 0, 0)
        for millisecond in 0..<5000 {
            for flood in 0..<floods {
                let flooder = nodes[2 + flood]
                let target = toSame ? listener : nodes[(3 + flood) % nodes.count]
                for _ in 0..<(octetsPerMillisecond / 1000) {
                    let way = relay.forward(Fixture.packet(flooder.hoa, target.hoa, octets: 1000), from: at("198.51.100.\(3 + flood)"))
                    if case .forward = way { floodOctets += 1000 }
                }
            }
            if millisecond % 20 == 10, millisecond < 4900 {
                let number = UInt8(truncatingIfNeeded: of)
                var packet = Fixture.packet(speaker.hoa, listener.hoa, octets: 200)
                packet[199] = number
                of += 1
                sentAt[number] = millisecond
                switch relay.forward(packet, from: at("198.51.100.1")) {
                case .forward: arrived += 1
                case .held, .leave: break
                case .drop(let reason): Issue.record("\(reason) at \(millisecond)")
                }
            }
            relay.wait(1)
            for packet in relay.core.release(max: 10_000, now: relay.now.monotonic) {
                guard packet.octets.count == 200, let number = packet.octets.last, let sent = sentAt[number] else {
                    floodOctets += packet.octets.count
                    continue
                }
                arrived += 1
                waitedMax = max(waitedMax, millisecond - sent)
            }
        }
        return (arrived, of, waitedMax, floodOctets)
    }

    @Test("A flood of one HoA to a third leaves another's 50 packets/s to it whole, and has what the stream leaves of its rate")
    func destination() {
        var limits = RelayLimits()
        // 2 Mbit/s; the flood alone is allowed as much, and sends four times that.
        (limits.octetsPerSecond, limits.burstOctets) = (250_000, 20_000)
        let result = stream(limits, floods: 1, toSame: true, octetsPerMillisecond: 1000)
        #expect(result.arrived == result.of && result.of == 245)
        #expect(result.waitedMax <= 10, "waited \(result.waitedMax) ms")
        #expect(result.floodOctets > 1_000_000, "\(result.floodOctets) octets of the flood in 5 s")
    }

    @Test("Floods of eight HoAs that exceed the relay's rate leave a stream between two others whole", arguments: [1, 3, 8])
    func relay(floods: Int) {
        var limits = RelayLimits()
        limits.relayOctetsPerSecond = 1_000_000
        let result = stream(limits, floods: floods, toSame: false, octetsPerMillisecond: 2000)
        #expect(result.arrived == result.of && result.of == 245, "\(result)")
        #expect(result.waitedMax <= 30, "waited \(result.waitedMax) ms")
        #expect(result.floodOctets > 4_000_000, "\(result.floodOctets) octets of the floods in 5 s")
    }

    @Test("While the link takes nothing packets wait, and go when it does")
    func stalled() {
        var relay = Fixture()
        let (a, b) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("10.0.0.2"), seed: 12))
        relay.bind(a, from: at("198.51.100.1"))
        relay.bind(b, from: at("198.51.100.2"))
        relay.core.stalled(now: relay.now.monotonic)
        #expect(relay.forward(Fixture.packet(a.hoa, b.hoa), from: at("198.51.100.1")) == .held)
        #expect(relay.core.isHolding && relay.core.release(max: 10, now: relay.now.monotonic).isEmpty)
        relay.wait(2)
        let released = relay.core.release(max: 10, now: relay.now.monotonic)
        #expect(released.map(\.way) == [ForwardWay(from: Fixture.relay, to: at("198.51.100.2"))] && !relay.core.isHolding)
        #expect(relay.core.counters.packetsForwarded == 1)
    }

    @Test("What waits for a node goes to where it has moved meanwhile, and nowhere if it has left")
    func movedMeanwhile() {
        var relay = Fixture()
        let (a, b) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("10.0.0.2"), seed: 12))
        relay.bind(a, from: at("198.51.100.1"))
        relay.bind(b, from: at("198.51.100.2"))
        relay.wait(2000)
        relay.core.stalled(now: relay.now.monotonic)
        #expect(relay.forward(Fixture.packet(a.hoa, b.hoa), from: at("198.51.100.1")) == .held)
        relay.bind(b, from: at("198.51.100.77"))
        relay.wait(2)
        #expect(relay.core.release(max: 10, now: relay.now.monotonic).map(\.way?.to) == [at("198.51.100.77")])
        relay.wait(2000)
        relay.core.stalled(now: relay.now.monotonic)
        #expect(relay.forward(Fixture.packet(a.hoa, b.hoa), from: at("198.51.100.1")) == .held)
        relay.bind(b, from: at("198.51.100.77"), lifetime: 0)
        relay.wait(2)
        #expect(relay.core.release(max: 10, now: relay.now.monotonic).isEmpty && relay.core.counters[.unknownDestination] == 1)
    }
}

import MATSignal
import MATTesting
import Testing

/// How long things take and what is lost on the way, in a network that loses nothing: 10 ms between any two hosts.
@Suite("What users notice") struct TimingTests {
    static let oneWay = Duration.milliseconds(10)
    static let roundTrip = oneWay * 2

    /// Two nodes that exchange a packet a millisecond.
    private func talking(seed: UInt64) -> World {
        let world = World(seed: seed, conditions: NetworkConditions(latency: Self.oneWay...Self.oneWay))
        world.interval = .milliseconds(1)
        world.start()
        world.network.run(for: .seconds(2))
        return world
    }

    /// The longest time between two packets that a node got since `start`.
    private func longestGap(_ node: SimulatedNode, since start: MonotonicTime) -> Duration {
        let times = [start] + node.delivered.map(\.at).filter { $0 > start } + [node.network.time]
        return zip(times, times.dropFirst()).map { $1 - $0 }.max() ?? .zero
    }

    @Test("The first packets wait for DNS and IMSs, four round trips in all, and go in order without loss", arguments: [UInt64(0), 1])
    func start(seed: UInt64) {
        let world = World(seed: seed, conditions: NetworkConditions(latency: Self.oneWay...Self.oneWay))
        // An agent holds 64 packets.
        world.interval = .milliseconds(2)
        world.mn.move(to: [world.mnPlaces[0]])
        world.cn.move(to: [world.cnPlaces[0]])
        world.network.run(for: .seconds(5))
        world.talk()
        let start = world.network.time
        world.network.run(for: .seconds(1))
        let first = world.cn.delivered.first.map { $0.at - start } ?? .seconds(999)
        // Look-up by MN; HA Notify, once for the cookie; look-up by IMS_CN; its MA Notify to CN, once for the cookie; look-up by CN.
        #expect(first <= .milliseconds(5) * 3 + Self.roundTrip * 3 + .milliseconds(1), "\(first)")
        #expect(world.cn.delivered.count >= world.packetsSent - 8)
        #expect(Set(world.cn.delivered.map(\.packet.number)).count == world.cn.delivered.count)
        #expect(world.cn.deliveredPlain.isEmpty)
        // In the order in which they were sent.
        let numbers = world.cn.delivered.map(\.packet.number)
        #expect(numbers == numbers.sorted())
    }

    @Test("Agents whose peers are silent leave the counts alone, and look at them with the next packet", arguments: [UInt64(0), 1])
    func silence(seed: UInt64) {
        let world = talking(seed: seed)
        let before = world.mn.countsRead
        world.network.run(for: .seconds(10))
        #expect((9...12).contains(world.mn.countsRead - before))
        world.fallSilent()
        world.network.run(for: .seconds(15))
        let rested = (world.mn.countsRead, world.cn.countsRead)
        world.network.run(for: .seconds(300))
        #expect(world.mn.countsRead - rested.0 <= 5 && world.cn.countsRead - rested.1 <= 5)
        // Watched again: at once, and then each second.
        let silent = world.mn.countsRead
        world.talk()
        world.network.run(for: .milliseconds(50))
        #expect(world.mn.countsRead == silent + 1)
        world.network.run(for: .seconds(10))
        #expect((9...13).contains(world.mn.countsRead - silent))
    }

    @Test("A handover with overlap loses nothing and is not noticed", arguments: [UInt64(0), 1])
    func overlap(seed: UInt64) {
        let world = talking(seed: seed)
        var place = 0
        for _ in 0..<20 {
            let start = world.network.time
            let next = (place + 1) % world.mnPlaces.count
            world.mn.move(to: [world.mnPlaces[next], world.mnPlaces[place]])
            world.network.run(for: .milliseconds(500))
            world.mn.move(to: [world.mnPlaces[next]])
            world.network.run(for: .milliseconds(500))
            place = next
            #expect(longestGap(world.mn, since: start) <= .milliseconds(12))
            #expect(longestGap(world.cn, since: start) <= .milliseconds(12))
        }
        expectNoLoss(world)
    }

    /// Nothing goes to a new place before it has proved itself: one round trip more than it takes to hear of it (sections 6 and 11.4). What is for
    /// it is held meanwhile, not lost.
    @Test("A handover without overlap: the other way resumes within two round trips", arguments: [UInt64(0), 1])
    func noOverlap(seed: UInt64) {
        let world = talking(seed: seed)
        for place in 1..<8 {
            let start = world.network.time
            world.mn.move(to: [world.mnPlaces[place]])
            world.network.run(for: .seconds(2))
            // What was on its way to the old address is lost; packets from the new one are taken as soon as they come.
            #expect(longestGap(world.cn, since: start) <= Self.oneWay + .milliseconds(2))
            #expect(longestGap(world.mn, since: start) <= Self.roundTrip * 2 + .milliseconds(2))
            #expect(world.isTrue, "\(world.differences)")
        }
        #expect(world.cn.deliveredPlain.isEmpty && world.mn.deliveredPlain.isEmpty)
    }

    @Test("Both nodes move at once: traffic resumes within a few round trips", arguments: [UInt64(0), 1])
    func simultaneous(seed: UInt64) {
        let world = talking(seed: seed)
        let start = world.network.time
        world.mn.move(to: [world.mnPlaces[1]])
        world.cn.move(to: [world.cnPlaces[1]])
        world.network.run(for: .seconds(3))
        #expect(world.isTrue, "\(world.differences)")
        #expect(longestGap(world.cn, since: start) <= Self.roundTrip * 5, "\(longestGap(world.cn, since: start))")
        #expect(longestGap(world.mn, since: start) <= Self.roundTrip * 5, "\(longestGap(world.mn, since: start))")
    }

    @Test("A stationary node at home is reached without translation of its own address", arguments: [UInt64(0), 1])
    func atHome(seed: UInt64) {
        let world = World(seed: seed, conditions: NetworkConditions(latency: Self.oneWay...Self.oneWay))
        world.mn.move(to: [world.mnPlaces[0]])
        world.cn.move(to: [world.cn.hoa.address])
        world.network.run(for: .seconds(2))
        world.talk()
        world.expectConvergence("at home")
        world.mn.move(to: [world.mnPlaces[1]])
        world.expectConvergence("at home")
        world.expectNothingLost()
    }

    @Test("A node that comes home and leaves again keeps its connections", arguments: [UInt64(0), 1])
    func comesHome(seed: UInt64) {
        let world = talking(seed: seed)
        world.mn.move(to: [world.mn.hoa.address])
        world.expectConvergence("comes home")
        world.mn.move(to: [world.mnPlaces[3]])
        world.expectConvergence("leaves home")
        world.expectNothingLost()
    }

    @Test("Plain hosts are reached, and reach a node, as if there were no MAT", arguments: [UInt64(0), 1])
    func plain(seed: UInt64) {
        let world = talking(seed: seed)
        let host = SimulatedPlainHost(world.network, at: ip(seed == 0 ? "198.19.0.1" : "2001:db8:f::1"))
        world.mn.send(UserPacket(7, .opening), to: host.address)
        world.network.run(for: .seconds(1))
        #expect(host.received.map(\.packet.number) == [7])
        #expect(host.received.first?.from == world.mnPlaces[0])
        let other = SimulatedPlainHost(world.network, at: ip(seed == 0 ? "198.19.0.2" : "2001:db8:f::2"))
        for kind in [UserPacket.Kind.opening, .datagram] {
            other.send(UserPacket(8, kind), to: world.mnPlaces[0])
            world.network.run(for: .seconds(7))
        }
        #expect(world.mn.deliveredPlain.filter { $0.number == 8 }.count == 2)
    }

    /// All but the last packets, which are still on their way, arrived.
    private func expectNoLoss(_ world: World) {
        let numbers = Set(world.cn.delivered.map(\.packet.number))
        let missing = (1000...(world.packetsSent - 20)).filter { !numbers.contains($0) }
        #expect(missing.isEmpty, "to CN \(missing.count): \(missing.prefix(10))")
        let back = Set(world.mn.delivered.map { $0.packet.number - 1_000_000 })
        let first = back.min() ?? 0
        let missingBack = (first...(world.packetsSent - 20)).filter { !back.contains($0) }
        #expect(missingBack.isEmpty, "to MN \(missingBack.count): \(missingBack.prefix(10))")
    }
}

import MATSignal
import MATTesting
import NodeCore
import Testing

/// Links that are up but dead, between nodes with several addresses each:
///
/// ```
///   MN at p0, p1 (, p2)  ───┐         ┌───  CN at c0, c1        every address stands for a link of its own,
///                           network                             and any of them may swallow everything
///   IMS_MN  ────────────────┘         └───  IMS_CN
/// ```
@Suite("Dead paths on links that are up") struct PathTests {
    /// A world whose addresses can be made dead.
    private final class Trial {
        let world: World
        var dead: Set<IPAddress> = []
        var cutPairs: Set<SimulatedNetwork.Link> = []

        init(seed: UInt64, mnPlaces: Int, cnPlaces: Int, latency: ClosedRange<Duration> = .milliseconds(5) ... .milliseconds(60)) {
            world = World(seed: seed, conditions: NetworkConditions(latency: latency, loss: 0.01))
            world.mn.move(to: Array(world.mnPlaces.prefix(mnPlaces)))
            world.cn.move(to: Array(world.cnPlaces.prefix(cnPlaces)))
            world.network.drive(max: .seconds(60)) { self.world.mn.core.isRegistered && self.world.cn.core.isRegistered }
            world.network.isCut = { [unowned self] a, b in
                dead.contains(a) || dead.contains(b) || cutPairs.contains(SimulatedNetwork.Link(a, b))
            }
            world.talk()
            world.network.run(for: .seconds(5))
        }

        func outbound(_ node: SimulatedNode, to peer: SimulatedNode) -> MobilePair? { node.imt.outbound[HomePair(own: node.hoa, peer: peer.hoa)] }

        /// The longest time without a packet at a node, from `start` until now.
        func longestGap(_ node: SimulatedNode, since start: MonotonicTime) -> Duration {
            let times = [start] + node.delivered.map(\.at).filter { $0 > start } + [world.network.time]
            return zip(times, times.dropFirst()).map { $1 - $0 }.max() ?? .zero
        }

        func isPreferred(_ node: SimulatedNode, _ peer: SimulatedNode, _ own: IPAddress, _ moa: IPAddress) -> Bool {
            outbound(node, to: peer) == MobilePair(own: MobileAddress(own), peer: MobileAddress(moa))
        }

        var isPreferred: Bool {
            isPreferred(world.mn, world.cn, world.mnPlaces[0], world.cnPlaces[0])
                && isPreferred(world.cn, world.mn, world.cnPlaces[0], world.mnPlaces[0])
        }

        var story: String {
            let logs = world.mn.logs.map { "MN \($0)" } + world.cn.logs.map { "CN \($0)" }
            return World.isVerbose ? logs.joined(separator: "\n") : ""
        }
    }

    @Test("Traffic leaves a dead uplink within 3 s, both ways, and comes back after the hold-down", arguments: [UInt64(0), 1])
    func uplink(seed: UInt64) {
        let trial = Trial(seed: seed, mnPlaces: 2, cnPlaces: 1)
        let world = trial.world
        #expect(trial.isPreferred)
        let start = world.network.time
        trial.dead = [world.mnPlaces[0]]
        world.network.run(for: .seconds(20))
        #expect(trial.longestGap(world.cn, since: start) <= .seconds(3), "\(trial.longestGap(world.cn, since: start)) \(trial.story)")
        #expect(trial.longestGap(world.mn, since: start) <= .seconds(3), "\(trial.longestGap(world.mn, since: start)) \(trial.story)")
        let status = world.mn.core.status(now: world.network.now)
        #expect(status.locators.map(\.moa.address) == [world.mnPlaces[1], world.mnPlaces[0]])
        #expect(status.uplinks.map(\.state) == ["sound", "dead"])
        #expect(status.registrations.first?.locators.first == "\(world.mnPlaces[1])", "the IMS knows the new order")

        trial.dead = []
        let healed = world.network.time
        #expect(world.network.drive(max: .seconds(40)) { trial.isPreferred }, "\(trial.story)")
        #expect(world.network.time - healed >= .seconds(10))
        world.network.run(for: .seconds(1))
        #expect(trial.longestGap(world.cn, since: healed) <= .milliseconds(500))
        #expect(trial.longestGap(world.mn, since: healed) <= .milliseconds(500))
        world.expectNothingLost()
    }

    @Test("A peer's dead locator is left for its second within 3 s, and gone back to", arguments: [UInt64(0), 1])
    func peerLocator(seed: UInt64) {
        let trial = Trial(seed: seed, mnPlaces: 1, cnPlaces: 2)
        let world = trial.world
        let start = world.network.time
        // Only between the two: the CN's uplink is sound, and says so to its IMS.
        trial.cutPairs = [SimulatedNetwork.Link(world.mnPlaces[0], world.cnPlaces[0])]
        world.network.run(for: .seconds(20))
        for node in [world.cn, world.mn] { #expect(trial.longestGap(node, since: start) <= .seconds(3), "\(trial.story)") }
        #expect(trial.isPreferred(world.mn, world.cn, world.mnPlaces[0], world.cnPlaces[1]))
        #expect(world.cn.core.status(now: world.network.now).uplinks.map(\.state) == ["sound", "sound"], "a silent peer is no dead uplink")
        trial.cutPairs = []
        #expect(world.network.drive(max: .seconds(40)) { trial.isPreferred }, "\(trial.story)")
    }

    @Test("If nothing answers anywhere nothing changes", arguments: [UInt64(0), 1])
    func nothingAnswers(seed: UInt64) {
        let trial = Trial(seed: seed, mnPlaces: 3, cnPlaces: 2)
        let world = trial.world
        let before = trial.outbound(world.mn, to: world.cn)
        trial.dead = Set(world.mnPlaces.prefix(3))
        world.network.run(for: .seconds(60))
        #expect(trial.outbound(world.mn, to: world.cn) == before, "\(trial.story)")
        trial.dead = []
        let healed = world.network.time
        world.network.run(for: .seconds(12))
        #expect(world.cn.delivered.contains { $0.at > healed })
        #expect(world.network.drive(max: .seconds(330)) { trial.isPreferred }, "\(trial.story)")
    }

    @Test("A silent server or peer alone is no dead uplink", arguments: [UInt64(0), 1])
    func silentOthers(seed: UInt64) {
        let trial = Trial(seed: seed, mnPlaces: 2, cnPlaces: 1)
        let world = trial.world
        trial.dead = Set(world.imsOfMN.addresses)
        world.network.run(for: .seconds(30))
        #expect(trial.isPreferred, "\(trial.story)")
        trial.dead = [world.cnPlaces[0]]
        world.network.run(for: .seconds(30))
        #expect(world.mn.core.counters.uplinkFailures == 0, "\(trial.story)")
        #expect(trial.isPreferred, "\(trial.story)")
    }

    @Test("A node that talks to nobody notices all the same, within the idle interval", arguments: [UInt64(0), 1])
    func idle(seed: UInt64) {
        let world = World(seed: seed, conditions: NetworkConditions())
        world.mn.move(to: [world.mnPlaces[0], world.mnPlaces[1]])
        world.network.run(for: .seconds(30))
        world.network.isCut = { a, b in a == world.mnPlaces[0] || b == world.mnPlaces[0] }
        world.network.run(for: .seconds(63))
        let status = world.mn.core.status(now: world.network.now)
        #expect(status.locators.first?.moa.address == world.mnPlaces[1])
        #expect(status.registrations.first?.locators.first == "\(world.mnPlaces[1])")
    }

    @Test("What idles is not probed but for one small question a minute, and a node with one address not even so", arguments: [UInt64(0), 1])
    func silence(seed: UInt64) {
        for places in [1, 2] {
            let world = World(seed: seed, conditions: NetworkConditions())
            world.mn.move(to: Array(world.mnPlaces.prefix(places)))
            world.cn.move(to: [world.cnPlaces[0]])
            world.network.run(for: .seconds(30))
            world.mn.send(UserPacket(1, .opening), to: world.cn.hoa.address)
            world.network.run(for: .seconds(30))
            let before = world.mn.core.counters.probesSent
            world.network.run(for: .seconds(600))
            #expect(world.mn.core.counters.probesSent - before <= (places == 1 ? 0 : 10))
        }
    }

    @Test("A link that dies again and again is trusted ever later", arguments: [UInt64(0), 1])
    func doubling(seed: UInt64) {
        let trial = Trial(seed: seed, mnPlaces: 2, cnPlaces: 1)
        let world = trial.world
        var pauses: [Duration] = []
        for _ in 0..<4 {
            trial.dead = [world.mnPlaces[0]]
            #expect(
                world.network.drive(max: .seconds(5)) {
                    world.mn.core.status(now: world.network.now).locators.first?.moa.address == world.mnPlaces[1]
                })
            trial.dead = []
            let healed = world.network.time
            #expect(world.network.drive(max: .seconds(400)) { trial.isPreferred }, "\(trial.story)")
            pauses.append(world.network.time - healed)
            world.network.run(for: .seconds(3))
        }
        for (index, least) in [10, 20, 40, 80].enumerated() {
            #expect(pauses[index] >= .seconds(least) && pauses[index] <= .seconds(least + 15), "\(pauses)")
        }
    }

    @Test(
        "With links dying at random traffic goes on within 3 s while some pair works, never swings faster than the hold-down, and ends on the best path"
    )
    func random() {
        for seed in World.seeds.prefix(10) {
            let trial = Trial(seed: seed, mnPlaces: 3, cnPlaces: 2)
            let world = trial.world
            for _ in 0..<8 {
                // One place of each side stays alive, which one changes; so some pair always works.
                let mnAlive = Int.random(in: 0..<3, using: &world.network.random)
                let cnAlive = Int.random(in: 0..<2, using: &world.network.random)
                // Those that worked and go on working need no time; the others have 3 s.
                var dead: Set<IPAddress> = []
                for index in 0..<3 where index != mnAlive && world.network.random.chance(0.5) { dead.insert(world.mnPlaces[index]) }
                for index in 0..<2 where index != cnAlive && world.network.random.chance(0.5) { dead.insert(world.cnPlaces[index]) }
                trial.dead = dead
                let start = world.network.time
                world.network.run(for: .milliseconds(Int.random(in: 3500...20_000, using: &world.network.random)))
                for node in [world.mn, world.cn] {
                    let gap = trial.longestGap(node, since: start)
                    if gap > .milliseconds(3300) {
                        world.fail(
                            "\(node.hoa) heard nothing for \(gap) since \(start.nanoseconds / 1_000_000) ms, with \(dead) dead", #_sourceLocation)
                    }
                }
            }
            trial.dead = []
            if !world.network.drive(max: .seconds(700), until: { trial.isPreferred }) {
                world.fail("did not come back: \(world.differences)", #_sourceLocation)
            }
            // A node returns to a path no sooner than the hold-down allows, and leaves a dead one at once.
            for node in [world.mn, world.cn] {
                for text in ["has its place", "its traffic goes back"] {
                    let returns = node.logs.filter { $0.contains(text) }
                    for place in world.mnPlaces.prefix(3) + world.cnPlaces.prefix(2) {
                        let times = returns.filter {
                            $0.contains("\(place)") && (text != "its traffic goes back" || $0.contains("-> \(place) again"))
                        }
                        .compactMap { Int($0.split(separator: " ").first ?? "") }
                        for (one, next) in zip(times, times.dropFirst()) where next - one < 10_000 {
                            world.fail("\(node.hoa) swings: back at \(place) after \(next - one) ms", #_sourceLocation)
                        }
                    }
                }
            }
            world.expectNothingLost()
        }
    }
}

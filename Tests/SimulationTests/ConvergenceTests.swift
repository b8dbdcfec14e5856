import MATSignal
import MATTesting
import Testing

/// Each scenario in many networks. Whatever was lost on the way, both IMTs come to say where the nodes are.
@Suite("Both IMTs converge to the truth") struct ConvergenceTests {
    private func inManyWorlds(_ what: String, _ scenario: (World) -> Void) {
        for seed in World.seeds {
            let world = World(seed: seed)
            world.start()
            world.expectConvergence("start")
            scenario(world)
            world.expectNothingLost()
        }
        print(World.summary(what))
    }

    @Test("at the start of communication") func start() {
        inManyWorlds("start") { _ in }
        guard !World.isVerbose else { return }
        // Until both ends know each other, the caller's packets are a plain stranger's to the other end, which itself finds nobody. Three requests have
        // to get through: to the peer's IMS, from that to its node, and to the caller's IMS; each is repeated for 8 s, and the first, after its
        // two tries, 2, 4 and 8 s later. So usual networks take a moment, and bad ones what a person waits for a page; none waits for a poll (30 s).
        #expect(World.time("start", of: 0.95, lossMax: 0.1) <= .seconds(2))
        #expect(World.time("start", of: 0.95, lossMax: 0.2) <= .seconds(4))
        #expect(World.time("start", of: 0.95) <= .seconds(12))
    }

    @Test("after a handover without overlap") func handover() {
        inManyWorlds("handover") { world in
            world.mn.move(to: [world.mnPlaces[1]])
            world.expectConvergence("handover")
            world.cn.move(to: [world.cnPlaces[1]])
            world.expectConvergence("handover")
        }
    }

    @Test("after a handover with overlap") func overlap() {
        inManyWorlds("overlap") { world in
            world.mn.move(to: [world.mnPlaces[1], world.mnPlaces[0]])
            world.network.run(for: .milliseconds(Int(world.seed % 50) * 100))
            world.mn.move(to: [world.mnPlaces[1]])
            world.expectConvergence("overlap")
        }
    }

    @Test("after both nodes moved at once") func simultaneous() {
        inManyWorlds("simultaneous") { world in
            world.mn.move(to: [world.mnPlaces[1]])
            world.network.run(for: .milliseconds(Int(world.seed % 10) * 20))
            world.cn.move(to: [world.cnPlaces[1]])
            world.expectConvergence("simultaneous")
        }
    }

    @Test("after a time without any address") func gap() {
        inManyWorlds("gap") { world in
            world.mn.move(to: [])
            world.network.run(for: .milliseconds(Int(world.seed % 40) * 250))
            world.mn.move(to: [world.mnPlaces[2]])
            world.expectConvergence("gap")
        }
    }

    @Test("when an IMS restarts during a handover") func restart() {
        inManyWorlds("restart") { world in
            world.mn.move(to: [world.mnPlaces[1]])
            world.network.run(for: .milliseconds(Int(world.seed % 30) * 20))
            world.imsOfMN.crash()
            world.imsOfCN.crash()
            world.network.run(for: .milliseconds(Int(world.seed % 20) * 100))
            world.imsOfMN.restart()
            world.imsOfCN.restart()
            world.expectConvergence("restart")
        }
    }

    @Test("when the first IMS of the DNS set is down") func failover() {
        inManyWorlds("failover") { world in
            world.imsOfMN.takeDown(world.imsOfMN.addresses[0])
            world.mn.move(to: [world.mnPlaces[1]])
            world.expectConvergence("failover")
            world.cn.move(to: [world.cnPlaces[1]])
            world.expectConvergence("failover")
        }
    }

    @Test("after both agents crashed, an IMS with them, and a node moved meanwhile") func everything() {
        inManyWorlds("everything") { world in
            world.mn.crash()
            world.cn.crash()
            world.imsOfCN.crash()
            world.network.run(for: .seconds(2))
            world.mn.move(to: [world.mnPlaces[1]])
            world.imsOfCN.restart()
            world.mn.restart()
            world.network.run(for: .milliseconds(Int(world.seed % 20) * 100))
            world.cn.restart()
            world.expectConvergence("everything")
        }
    }

    @Test("after a partition has healed") func partition() {
        inManyWorlds("partition") { world in
            let mnSide = Set(world.mnPlaces + world.imsOfMN.addresses)
            world.network.isCut = { mnSide.contains($0) != mnSide.contains($1) }
            world.network.run(for: .seconds(1))
            world.mn.move(to: [world.mnPlaces[1]])
            world.cn.move(to: [world.cnPlaces[1]])
            world.network.run(for: .seconds(Int(world.seed % 40)))
            world.network.isCut = { _, _ in false }
            world.expectConvergence("partition")
        }
    }

    @Test("when pushes are lost, and the CN's IMS hears of no handover") func pushesLost() {
        inManyWorlds("pushes lost") { world in
            // MA Notify and, in half of the worlds, HA Notify: the CN must find out by itself.
            let lost: Set<MessageType> = world.seed % 4 < 2 ? [.maNotify] : [.maNotify, .haNotify]
            let cnSide = Set(world.cnPlaces + world.imsOfCN.addresses)
            world.network.isLost = { packet in
                guard case .signal(let octets, _, _) = packet.content, cnSide.contains(packet.destination) else { return false }
                return SignalDatagram.decode(octets).contains { if case .message(let message, _) = $0 { lost.contains(message.type) } else { false } }
            }
            world.mn.move(to: [world.mnPlaces[1]])
            world.expectConvergence("pushes lost")
            world.network.isLost = { _ in false }
        }
    }

    @Test("when the CN's agent stands still for 5 s during a handover") func frozen() {
        inManyWorlds("frozen") { world in
            world.cn.freeze()
            world.network.run(for: .milliseconds(Int(world.seed % 10) * 50))
            world.mn.move(to: [world.mnPlaces[1]])
            world.network.run(for: .seconds(5))
            world.cn.thaw()
            world.expectConvergence("frozen")
        }
    }

    @Test("while strangers flood the CN") func flooded() {
        inManyWorlds("flooded") { world in
            let source = FloodSource(world)
            world.network.run(for: .milliseconds(200))
            world.mn.move(to: [world.mnPlaces[1]])
            world.network.run(for: .seconds(1))
            source.stop()
            world.expectConvergence("flooded")
            let asked = world.cn.core.counters.strangersAsked
            if asked > 90 * 4 { world.fail("\(asked) HA Queries in a flood of 1 s", #_sourceLocation) }
        }
    }

    @Test("when a node's agent crashes and comes back") func agentRestart() {
        inManyWorlds("agent restart") { world in
            world.cn.crash()
            world.network.run(for: .milliseconds(Int(world.seed % 20) * 100))
            if world.seed % 2 == 0 { world.mn.move(to: [world.mnPlaces[1]]) }
            world.network.run(for: .milliseconds(Int(world.seed % 7) * 100))
            world.cn.restart()
            world.expectConvergence("agent restart")
        }
    }
}

/// Packets from made-up addresses to the CN: as many as its kernel would copy to the agent.
private final class FloodSource: SimulatedHost {
    private let world: World
    private var number = 0
    private var isRunning = true

    init(_ world: World) {
        self.world = world
        send()
    }

    func stop() { isRunning = false }
    func receive(_ packet: SimulatedPacket) {}

    private func send() {
        guard isRunning else { return }
        for _ in 0..<10 {
            number += 1
            let source = ip(world.cn.hoa.isIPv4 ? "10.1.\(number / 250 % 250).\(number % 250 + 1)" : "2001:db8:f:\(String(number, radix: 16))::1")
            world.network.attach(self, at: source)
            // Openers, which may pass, and datagrams; segments would be counted as a mapped flow's.
            if let target = world.cn.locators.first?.moa.address {
                world.network.send(
                    SimulatedPacket(from: source, to: target, .user(UserPacket(9_000_000 + number, number % 2 == 0 ? .opening : .datagram))), by: self
                )
            }
            world.network.detach(source)
        }
        world.network.after(.milliseconds(10)) { [self] in send() }
    }
}

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

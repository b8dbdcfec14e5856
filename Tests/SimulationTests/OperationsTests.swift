import MATSignal
import MATTesting
import Testing

/// What an operator does to an IMS, as both ends of a conversation see it.
@Suite("Operations in many networks") struct OperationsTests {
    @Test("A revoked node's peer drops the mapping, and no move or message of the node brings it back") func revocation() {
        for seed in World.seeds.prefix(16) {
            let world = World(seed: seed)
            world.start()
            world.expectConvergence("start")
            let pair = HomePair(own: world.cn.hoa, peer: world.mn.hoa)
            #expect(world.imsOfMN.revoke(world.mn.hoa))
            let isDropped = { world.cn.imt.outbound[pair] == nil && !world.cn.imt.inbound.values.contains(pair) }
            if !world.network.drive(max: .seconds(180), until: isDropped) { world.fail("the peer keeps the revoked mapping", #_sourceLocation) }
            let knows = { world.mn.core.status(now: world.network.now).registrations.contains { $0.problem?.code == .certificateRevoked } }
            // Where the network may lose all that would tell it, it finds out by itself.
            if seed % 8 == 0, !world.network.drive(max: .seconds(20), until: knows) { world.fail("the node does not know", #_sourceLocation) }
            // It moves, tells everybody, and registers again and again; a restart of its IMS changes nothing.
            world.mn.move(to: [world.mnPlaces[1]])
            world.network.run(for: .seconds(20))
            world.imsOfMN.crash()
            world.imsOfMN.restart()
            world.mn.move(to: [world.mnPlaces[2], world.mnPlaces[1]])
            world.network.run(for: .seconds(40))
            if !isDropped() { world.fail("the peer took the revoked node back: \(world.cn.imt.outbound)", #_sourceLocation) }
            if world.mn.core.isRegistered { world.fail("the revoked node is registered", #_sourceLocation) }
        }
    }

    @Test("A rotation of the IMS's key by the book gives each node a new certificate and interrupts nothing") func rotation() {
        for seed in World.seeds.prefix(10) {
            let world = World(seed: seed, conditions: seed % 2 == 0 ? NetworkConditions() : nil)
            world.dns.lifetime = .seconds(60)
            world.start()
            world.expectConvergence("start")
            let (old, new) = (makeKey(201), makeKey(99))
            // Publish, wait, sign with it, wait, drop the old.
            world.imsOfMN.sign(with: old, accepting: [new.publicKey])
            world.imsOfMN.publishKeys()
            world.network.run(for: .seconds(120))
            world.imsOfMN.sign(with: new, previous: [old.publicKey])
            world.network.drive(max: .seconds(900)) { world.mn.keptCertificate?.isIssued(by: new.publicKey) == true }
            if world.mn.keptCertificate?.isIssued(by: new.publicKey) != true { world.fail("no certificate of the new key", #_sourceLocation) }
            // The next registration is made under it.
            world.mn.move(to: [world.mnPlaces[1]])
            world.expectConvergence("with the new key")
            world.imsOfMN.sign(with: new)
            world.imsOfMN.publishKeys()
            world.network.run(for: .seconds(120))
            world.mn.move(to: [world.mnPlaces[2]])
            world.expectConvergence("without the old key")
            world.expectNothingLost()
        }
    }

    @Test("After a start with a wrong clock, ahead or behind, setting the clock is enough: the node registers, in each network") func wrongClock() {
        for (seed, lead) in zip(World.seeds.prefix(8), [601, 86_400, 400 * 86_400, -700, 3600, 10 * 86_400, 601, -86_400] as [Int64]) {
            let world = World(seed: seed) { $0.isClockConfirmed = false }
            world.mn.clockLead = .seconds(lead)
            world.mn.move(to: [world.mnPlaces[0]])
            world.cn.move(to: [world.cnPlaces[0]])
            world.network.run(for: .seconds(60))
            if world.mn.core.isRegistered { world.fail("it registered with a clock \(lead) s off", #_sourceLocation) }
            let problem = world.mn.core.status(now: world.network.now).registrations.first?.problem?.text ?? ""
            // In the networks that lose most, the IMS may not have answered yet.
            if !problem.contains("this host's clock is"), !problem.contains("no answer") { world.fail("it says \(problem)", #_sourceLocation) }
            #expect(world.mn.keptSequence == 0)
            // A crash in between changes nothing.
            world.mn.crash()
            world.mn.restart()
            world.network.run(for: .seconds(10))
            world.mn.clockLead = .zero
            if !world.network.drive(max: .seconds(120), until: { world.mn.core.isRegistered }) {
                world.fail("it does not register", #_sourceLocation)
            }
        }
    }

    @Test("After an IMS lost its store, both ends are registered again within three minutes, without a word from anybody") func lostStore() {
        for seed in World.seeds.prefix(8) {
            let world = World(seed: seed, conditions: NetworkConditions())
            world.mn.move(to: [world.mnPlaces[0]])
            world.cn.move(to: [world.cn.hoa.address])
            world.network.drive(max: .seconds(120)) { world.mn.core.isRegistered && world.cn.core.isRegistered }
            world.network.run(for: .seconds(Int64(seed % 100)))
            world.imsOfMN.loseStore()
            world.imsOfCN.loseStore()
            #expect(world.imsOfCN.durable.isEmpty && world.imsOfMN.durable.isEmpty)
            let isBack = { !world.imsOfCN.durable.isEmpty && !world.imsOfMN.durable.isEmpty }
            if !world.network.drive(max: .seconds(180), until: isBack) { world.fail("not registered again", #_sourceLocation) }
        }
    }
}

import MATSignal
import MATTesting
import NodeCore
import Testing

@Suite("Registration") struct RegistrationTests {
    typealias H = NodeHarness

    @Test("A node with an address finds its IMS in the DNS and registers, with the whole certificate")
    func registers() throws {
        let node = try NodeHarness()
        node.links([H.first])
        #expect(node.lookUps == [node.own.hoa])
        node.foundOwn()
        let update = try node.take(.imsUpdate)
        #expect(update.to == node.ownIMS && update.from == H.first)
        let record = try #require(update.update?.record)
        #expect(record.mapping.record.locators.map(\.moa.address) == [H.first])
        #expect(record.certificate == .whole(node.own.certificate))
        #expect(
            node.actions.contains {
                if case .remember(let hoa, let sequence) = $0 { hoa == node.own.hoa && sequence == record.mapping.record.sequence } else { false }
            })
        #expect(!node.core.isRegistered)
        node.answer(update, .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: node.cookie(update), observed: Endpoint(H.first, port: 6289))))
        #expect(node.core.isRegistered)
    }

    @Test("An update without cookie is repeated at once with the one that code 9 brings, at most twice")
    func followsCookies() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        for number in 1...2 {
            let update = try node.take(.imsUpdate)
            node.answer(update, .imsUpdateReply(IMSUpdateReply(code: .cookieRequired, cookie: node.cookie(update, UInt8(number)), observed: nil)))
            #expect(node.sent.first?.message.cookie == node.cookie(update, UInt8(number)))
        }
        let third = try node.take(.imsUpdate)
        node.answer(third, .imsUpdateReply(IMSUpdateReply(code: .cookieRequired, cookie: node.cookie(third, 3), observed: nil)))
        #expect(node.sent.isEmpty)
    }

    @Test("A second locator is listed with a proof fetched from there")
    func proves() throws {
        let node = try NodeHarness()
        node.links([H.first, H.second])
        node.foundOwn()
        #expect(node.count(.imsUpdate) == 0)
        let queries = node.sent.filter { $0.message.type == .maQuery }
        #expect(Set(queries.map(\.from)) == [H.first, H.second])
        #expect(queries.allSatisfy { $0.octetsCount == 40 })
        node.answerProofs()
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(update.record.mapping.record.locators.map(\.moa.address) == [H.first, H.second])
        #expect(update.proofs.map(\.locator.address) == [H.second])
        #expect(update.cookie.server != nil)
    }

    @Test("A locator that gets no answer from the IMS delays the registration by 0.4 s and is left out")
    func leavesOutUnproven() throws {
        let node = try NodeHarness()
        node.links([H.first, H.second])
        node.foundOwn()
        node.advance(.milliseconds(399))
        #expect(node.count(.imsUpdate) == 0)
        node.advance(.milliseconds(2))
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.locators.map(\.moa.address) == [H.first])
    }

    @Test("Code 5 makes it sign beyond the enclosed record")
    func stale() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let current = node.own.record([H.second], sequence: node.wall + 100_000, issued: node.wall)
        try node.answerUpdate(.stale, current: current.mapping)
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.sequence == node.wall + 100_001)
    }

    @Test("A current record from far in the future is not followed there, since nobody would believe the next")
    func staleFromTheFuture() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        try node.answerUpdate(.stale, current: node.own.record([H.second], sequence: .max - 1, issued: node.wall).mapping)
        #expect(node.hasLogged("lies in the future"))
        node.advance(.seconds(2))
        // A clock may be wrong, so its IMS's is read before the next try.
        #expect(node.count(.imsUpdate) == 0)
        node.answerProofs()
        let sequence = try #require(try node.take(.imsUpdate).update?.record.mapping.record.sequence)
        #expect(sequence < node.wall + 1000)
    }

    @Test("Try later is obeyed")
    func tryLater() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        try node.answerUpdate(.tryLater, lifetime: 7)
        node.advance(.milliseconds(6900))
        #expect(node.count(.imsUpdate) == 0)
        node.advance(.milliseconds(101))
        #expect(node.count(.imsUpdate) == 1)
    }

    @Test("It is refreshed at half the lifetime, by the certificate's id")
    func refreshes() throws {
        let node = try NodeHarness()
        try node.register()
        node.advance(.seconds(299))
        #expect(node.count(.imsUpdate) == 0)
        node.advance(.seconds(2))
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(update.record.certificate == .id(node.own.certificate.id))
    }

    @Test("An IMS that does not know the certificate's id gets the certificate")
    func unknownCertID() throws {
        let node = try NodeHarness()
        try node.register()
        node.advance(.seconds(300))
        try node.answerUpdate(.authenticationFailed)
        #expect(try node.take(.imsUpdate).update?.record.certificate == .whole(node.own.certificate))
    }

    @Test("From the third try on the next IMS is asked too, and the one that answered is asked first from then on")
    func failsOver() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        node.advance(.milliseconds(249))
        #expect(node.sent.map(\.to.address) == [H.ownServers[0]])
        node.advance(.milliseconds(501))
        #expect(node.sent.map(\.to.address) == [H.ownServers[0], H.ownServers[0], H.ownServers[0], H.ownServers[1]])
        let second = try node.take(.imsUpdate, to: H.ownServers[1])
        node.answer(second, .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: node.cookie(second), observed: Endpoint(H.first, port: 6289))))
        #expect(node.core.isRegistered)
        node.clear()
        node.links([H.second])
        #expect(try node.take(.imsUpdate).to.address == H.ownServers[1])
    }

    @Test("Without any answer it goes on trying, and says why it is not registered")
    func goesOn() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        node.advance(.seconds(60))
        #expect(node.count(.imsUpdate) > 15)
        #expect(node.core.status(now: node.now).registrations.first?.problem?.text.contains("no answer") == true)
        // It may just be trying.
        while node.core.status(now: node.now).registrations.first?.phase != "pausing" { node.advance(.milliseconds(500)) }
        let next = try #require(node.core.status(now: node.now).registrations.first?.nextTryIn)
        #expect(next > .zero && next <= .seconds(30))
        let tries = node.count(.imsUpdate)
        node.advance(next)
        #expect(node.count(.imsUpdate) > tries, "it is tried when it says")
        #expect(node.core.status(now: node.now).registrations.first?.nextTryIn == nil)
        #expect(node.logs.filter { $0.contains("could not be registered") }.count == 1)
    }

    @Test("A renewed certificate is kept, and signed for from then on")
    func renewal() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let renewed = node.ownAuthority.certify(node.own.hoa, node.own.key.publicKey, notBefore: VirtualClock.wallAtStart)
        try node.answerUpdate(certificate: renewed)
        #expect(node.actions.contains(.keepCertificate(renewed)))
        node.clear()
        node.advance(.seconds(301))
        #expect(try node.take(.imsUpdate).update?.record.certificate.id == renewed.id)
    }

    @Test("An update on its way when the addresses change does not end the new one")
    func overtaken() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let old = try node.take(.imsUpdate)
        node.links([H.second, H.first])
        node.answer(old, .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: node.cookie(old), observed: Endpoint(H.first, port: 6289))))
        node.answerProofs()
        node.advance(.milliseconds(500))
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.locators.first?.moa.address == H.second)
    }

    @Test("At home the record lists the HoA alone, for longer")
    func atHome() throws {
        let node = try NodeHarness()
        node.links([node.own.hoa.address, H.second])
        node.foundOwn()
        let record = try #require(try node.take(.imsUpdate).update?.record.mapping.record)
        #expect(record.isAtHome && record.lifetime == MappingRecord.lifetimeMax)
    }

    @Test("A person who chooses another interface is told that the home address stays at home, and no handover is counted", arguments: [true, false])
    func chosenElsewhere(hasFamily: Bool) throws {
        let node = try NodeHarness()
        try node.register(at: [node.own.hoa.address, hasFamily ? H.second : ip("2001:db8::11")])
        node.event { core, now in core.prefer(interface: "if1", now: now) }
        node.advance(.seconds(5))
        #expect(node.hasLogged("198.51.100.1 is at home on if0, and stays there as long as that link has it"))
        #expect(node.core.counters.handovers == 0 && !node.hasLogged("handover of"), "\(node.logs)")
        let records = node.sent.compactMap { $0.update?.record.mapping.record }
        #expect(records.allSatisfy { $0.isAtHome })
    }

    @Test("The DNS is asked again when it fails or has no IMS, at growing intervals")
    func noServers() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.event { core, now in core.lookedUp(node.own.hoa, .absent(lifetime: .seconds(60)), now: now) }
        #expect(node.hasLogged("mat zone"))
        node.clear()
        node.advance(.seconds(3))
        #expect(node.lookUps == [node.own.hoa])
        node.foundOwn()
        #expect(node.count(.imsUpdate) == 1)
    }

    @Test("Responses from another source, to another address, or with another sequence, type or cookie are dropped")
    func unmatched() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let update = try node.take(.imsUpdate)
        let good = SignalMessage(
            sequence: update.message.sequence,
            .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: node.cookie(update), observed: Endpoint(H.first, port: 6289))))
        var wrongSequence = good
        wrongSequence.sequence &+= 1
        var stranger = node.cookie(update)
        stranger.client ^= 1
        let wrongCookie = SignalMessage(
            sequence: good.sequence, .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: stranger, observed: Endpoint(H.first, port: 6289))))
        let wrongType = SignalMessage(sequence: good.sequence, .maAnswer(MAAnswer(code: .ok, cookie: node.cookie(update), hoa: node.own.hoa)))
        node.deliver(good, from: Endpoint(ip("192.88.9.9"), port: 6288), to: H.first)
        node.deliver(good, from: Endpoint(H.ownServers[0], port: 6289), to: H.first)
        node.deliver(good, from: update.to, to: H.second)
        node.deliver(wrongSequence, from: update.to, to: H.first)
        node.deliver(wrongCookie, from: update.to, to: H.first)
        node.deliver(wrongType, from: update.to, to: H.first)
        #expect(!node.core.isRegistered)
        #expect(node.core.counters.unmatchedDropped == 6)
        node.deliver(good, from: update.to, to: H.first)
        #expect(node.core.isRegistered)
    }
}

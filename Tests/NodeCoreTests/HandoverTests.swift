import IMTPlan
import MATSignal
import MATTesting
import NodeCore
import Testing

@Suite("Handover") struct HandoverTests {
    typealias H = NodeHarness

    // MARK: With overlap

    /// Meets the peer at the first address, then has the second as well, preferred.
    private func overlapping() throws -> NodeHarness {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second, H.first])
        return node
    }

    @Test("With overlap the kernel accepts at the new address first, then the IMS gets both, with a proof, new one first")
    func overlapBegins() throws {
        let node = try overlapping()
        #expect(node.imt.inbound[node.path(H.second, H.peerFirst)] == node.pair)
        #expect(node.imt.inbound[node.path(H.first, H.peerFirst)] == node.pair)
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        let change = try #require(node.actions.firstIndex { if case .changeIMT = $0 { true } else { false } })
        let send = try #require(node.actions.firstIndex { if case .send = $0 { true } else { false } })
        #expect(change < send)
        node.answerProofs()
        let update = try node.take(.imsUpdate)
        #expect(update.from == H.second)
        #expect(update.update?.record.mapping.record.locators.map(\.moa.address) == [H.second, H.first])
        #expect(update.update?.proofs.map(\.locator.address) == [H.first])
        // Nobody else is told before the IMS has it.
        #expect(node.count(.maNotify) == 0 && node.count(.haNotify) == 0)
    }

    @Test("With overlap the peer and its IMS are told when the own IMS has it, and traffic switches when the peer acks")
    func overlapSwitches() throws {
        let node = try overlapping()
        node.answerProofs()
        try node.answerUpdate()
        let notify = try node.take(.maNotify)
        #expect(notify.to == node.peerNode && notify.from == H.second)
        #expect(try node.take(.haNotify).to == node.peerIMS)
        let query = try node.take(.maQuery, to: H.peerServer)
        #expect(query.from == H.second && query.query?.subscribe == 300)
        node.advance(.milliseconds(100))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        node.sent = []
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        // Repeated once with the cookie of the ack, which proves the new address to the peer.
        let repeated = try node.take(.maNotify)
        #expect(repeated.message.cookie == node.cookie(notify))
        node.answer(repeated, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(node.count(.maNotify) == 0)
    }

    @Test("A peer is one-sided until it or its IMS has heard of a move, then mapped; without any address it is unreachable")
    func standing() throws {
        func standing(_ node: NodeHarness) throws -> Standing { try #require(node.core.status(now: node.now).peers.first).standing }
        let node = try NodeHarness()
        try node.meet()
        #expect(try standing(node) == .mapped)
        node.links([H.second, H.first])
        guard case .oneSided(let waits) = try standing(node) else { return #expect(try standing(node) != .mapped) }
        #expect(waits.contains("not registered"))
        node.answerProofs()
        try node.answerUpdate()
        guard case .oneSided(let untold) = try standing(node) else { return #expect(try standing(node) != .mapped) }
        #expect(untold.contains("acknowledged"))
        let notify = try node.take(.maNotify)
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(try standing(node) == .mapped)
        node.links([])
        guard case .unreachable = try standing(node) else { return #expect(try standing(node) == .unreachable("")) }
    }

    // MARK: What people are told of it

    @Test("The history says from where to where and why, when the IMS and the peer knew, and how long there was no address")
    func history() throws {
        let node = try overlapping()
        func newest() throws -> HandoverHistory.Handover { try #require(node.core.history.handovers.last) }
        #expect(node.core.history.handovers.count == 1)
        #expect(try newest().from?.moa.address == H.first && newest().to?.moa.address == H.second)
        #expect(try newest().hasOverlap && newest().cause == .preferred && newest().registeredAfter == nil && newest().peers == 1)
        node.advance(.milliseconds(30))
        node.answerProofs()
        try node.answerUpdate()
        #expect(try newest().registeredAfter == .milliseconds(30) && newest().peersTold == 0)
        node.advance(.milliseconds(20))
        let notify = try node.take(.maNotify)
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(try newest().peersTold == 1 && newest().toldAfter == .milliseconds(50))
        // Without any address, one entry tells of the loss and of the way back.
        node.links([])
        #expect(try node.core.history.handovers.count == 2 && newest().to == nil && newest().cause == .addressGone)
        _ = node.core.heldOutbound(to: node.peer.hoa.address, now: node.now)
        node.advance(.seconds(3))
        node.links([H.first])
        #expect(try node.core.history.handovers.count == 2 && newest().withoutAddress == .seconds(3))
        #expect(try newest().from?.moa.address == H.second && newest().to?.moa.address == H.first && newest().packetsHeld == 1)
    }

    @Test("The history keeps the latest moves and no more")
    func historyBound() throws {
        let node = try NodeHarness()
        try node.meet()
        for number in 0..<HandoverHistory.countMax + 5 { node.links([number % 2 == 0 ? H.second : H.first]) }
        #expect(node.core.history.handovers.count == HandoverHistory.countMax)
    }

    /// Registers at both; the peer answers none of the three MA Notifies.
    private func unacked() throws -> NodeHarness {
        let node = try overlapping()
        node.answersChecks = false
        node.answerProofs()
        try node.answerUpdate()
        // The peer's IMS answers, and holds our record.
        try node.acknowledgeHANotify()
        node.advance(.seconds(3))
        #expect(node.count(.maNotify) == 3)
        return node
    }

    @Test("With overlap a peer whose agent is silent keeps the old path while that works, and is told again when it shows that it lives")
    func overlapSilent() throws {
        let node = try unacked()
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        node.clear()
        // Told again with each poll.
        node.advance(.seconds(30))
        #expect(node.count(.maNotify) == 3)
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        // Its agent works again: the locator check of the poll is answered.
        while node.count(.maQuery, to: H.peerFirst) > 0 { _ = try node.take(.maQuery, to: H.peerFirst) }
        while node.count(.maQuery, to: H.peerFirst) == 0 { node.advance(.milliseconds(100)) }
        node.advance(.seconds(1))
        node.sent.removeAll { $0.message.type == .maNotify }
        try node.answerCheck()
        let notify = try node.take(.maNotify)
        #expect(notify.from == H.second)
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(node.outbound == node.path(H.second, H.peerFirst))
    }

    @Test("When the old address goes, a silent peer's traffic leaves from the new one at once: nothing better is left")
    func overlapSilentThenGone() throws {
        let node = try unacked()
        node.links([H.second])
        #expect(node.outbound == node.path(H.second, H.peerFirst))
    }

    @Test("A peer whose agent lives, but does not ack, is switched after three tries")
    func overlapAliveWithoutAck() throws {
        let node = try overlapping()
        node.answerProofs()
        try node.answerUpdate()
        let notify = try node.take(.maNotify)
        node.advance(.milliseconds(100))
        // A MA Notify of its own with our cookie: it is there.
        let mapping = node.peerRecord(sequence: node.wall + 10)
        node.notify(mapping, from: node.peerNode)
        let cookie = try node.takeAck()
        _ = cookie
        node.event { core, now in core.traffic([node.peer.hoa: 7], now: now) }
        while node.outbound == node.path(H.first, H.peerFirst), node.now.monotonic < .zero + .seconds(20) {
            while let index = node.sent.firstIndex(where: { $0.message.type == .maQuery && $0.to.address == H.peerFirst }) {
                let query = node.sent.remove(at: index)
                node.answer(query, .maAnswer(MAAnswer(code: .ok, cookie: Cookie(client: query.message.cookie.client), hoa: node.peer.hoa)))
            }
            node.advance(.milliseconds(10))
        }
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(node.sent.filter { $0.message.type == .maNotify }.count == 2 && notify.from == H.second)
    }

    @Test("The old address may go before the IMS has answered: then peers are told at once")
    func overlapCutShort() throws {
        let node = try overlapping()
        node.answerProofs()
        _ = try node.take(.imsUpdate)
        node.advance(.milliseconds(20))
        node.links([H.second])
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(node.count(.maNotify, to: H.peerFirst) == 1)
        #expect(node.count(.haNotify) == 1)
    }

    @Test("An IMS that is down does not keep the peers from being told")
    func overlapWithoutIMS() throws {
        let node = try overlapping()
        node.answerProofs()
        node.advance(.seconds(9))
        #expect(node.count(.maNotify, to: H.peerFirst) >= 1)
    }

    @Test("A person can ask for a handover to an interface, and back")
    func byHand() throws {
        let node = try NodeHarness()
        try node.meet(at: [H.first, H.second])
        node.event { core, now in core.prefer(interface: "if1", now: now) }
        node.answerProofs()
        #expect(try node.take(.imsUpdate).from == H.second)
        #expect(node.core.counters.handovers == 1)
        node.event { core, now in core.prefer(interface: nil, now: now) }
        #expect(node.core.ownLocatorsInOrder == [H.first, H.second])
    }

    // MARK: Without overlap

    @Test("Without overlap everything goes at once from the new address, and held packets with it")
    func noOverlap() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second])
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(node.imt.inbound == [node.path(H.second, H.peerFirst): node.pair])
        #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
        for type in [MessageType.imsUpdate, .haNotify, .maNotify] { #expect(node.count(type) == 1) }
        #expect(node.sent.contains { $0.query?.hoa == node.peer.hoa && $0.query?.subscribe == 300 })
        #expect(node.sent.allSatisfy { $0.from == H.second })
        let records = try [node.take(.imsUpdate).update?.record, node.take(.haNotify).haNotify?.record, node.take(.maNotify).notify?.record]
        #expect(Set(records.map { $0?.mapping }).count == 1)
        #expect(records[0]?.mapping.record.locators.map(\.moa.address) == [H.second])
    }

    // MARK: Connections that begin meanwhile

    @Test("Without overlap a connection that begins to a peer waits, from the moment of the move, until the peer has acked or its IMS has")
    func begunConnections() throws {
        for isAckedByPeer in [true, false] {
            let node = try NodeHarness()
            try node.meet()
            #expect(!node.core.holdsConnections(to: node.peer.hoa))
            node.links([H.second])
            // In the transaction after which they would leave from the new address.
            let moving = try #require(node.imtChanges.first { $0.contains { if case .moveOutbound = $0 { true } else { false } } })
            #expect(moving.contains(.holdConnections(of: node.own.hoa, lifetime: .seconds(1))))
            #expect(node.core.holdsConnections(to: node.peer.hoa) && node.imt.holdsConnections(of: node.own.hoa, now: node.now.monotonic))
            let notify = try node.take(.maNotify)
            node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
            node.advance(.milliseconds(40))
            #expect(node.core.holdsConnections(to: node.peer.hoa))
            if isAckedByPeer {
                node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
            } else {
                try node.acknowledgeHANotify()
            }
            #expect(!node.core.holdsConnections(to: node.peer.hoa) && node.actions.contains(.releaseOutbound(to: node.peer.hoa.address)))
        }
    }

    @Test("A peer that says nothing keeps connections back for a second, and no longer; nor do moves that it has heard of, or an address that works")
    func begunConnectionsEnd() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second])
        node.advance(.milliseconds(999))
        #expect(node.core.holdsConnections(to: node.peer.hoa))
        node.clear()
        node.advance(.milliseconds(1))
        #expect(!node.core.holdsConnections(to: node.peer.hoa) && !node.imt.holdsConnections(of: node.own.hoa, now: node.now.monotonic))
        #expect(node.actions.contains(.changeIMT([.letConnections(of: node.own.hoa)])) && node.actions.contains(.releaseRouted))
        // The old address works until the peer has acked, and what leaves from it is known there.
        let overlapping = try overlapping()
        #expect(!overlapping.core.holdsConnections(to: node.peer.hoa))
        overlapping.answerProofs()
        try overlapping.answerUpdate()
        #expect(!overlapping.core.holdsConnections(to: node.peer.hoa))
        // It listed both before the first went.
        let listed = try NodeHarness()
        try listed.meet(at: [H.first, H.second])
        listed.links([H.second])
        #expect(listed.outbound?.own.address == H.second && !listed.core.holdsConnections(to: node.peer.hoa))
        // An address of the other family stood in for those of its own: nothing was rewritten from it, though it works on.
        let stoodIn = try NodeHarness()
        try stoodIn.meet()
        let other = ip("2001:db8:77::1")
        stoodIn.links([other])
        stoodIn.advance(.seconds(2))
        #expect(stoodIn.outbound == nil && !stoodIn.core.holdsConnections(to: node.peer.hoa))
        stoodIn.clear()
        stoodIn.links([H.second, other])
        #expect(stoodIn.outbound?.own.address == H.second && stoodIn.core.holdsConnections(to: node.peer.hoa))
        #expect(stoodIn.imtChanges.first?.contains(.holdConnections(of: node.own.hoa, lifetime: .seconds(1))) == true)
        #expect(stoodIn.count(.maNotify) == 1, "what waits for the peer to hear of it does not wait for the mapping server as well")
        // Cut short, before the peer had heard of the new one.
        let short = try self.overlapping()
        short.links([H.second])
        #expect(short.core.holdsConnections(to: node.peer.hoa))
    }

    @Test("What was on its way when the node moved again, and is acked then, shows nobody to know of the new place")
    func ackOfAnEarlierMove() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second])
        let earlier = try node.take(.maNotify)
        // With overlap: its traffic stays until it knows of the new place.
        node.links([H.first, H.second])
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        node.answer(earlier, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(earlier), hoa: node.own.hoa)))
        try node.acknowledgeHANotify()
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        node.clear()
        node.links([H.first])
        #expect(node.outbound == node.path(H.first, H.peerFirst) && node.core.holdsConnections(to: node.peer.hoa))
        let notify = try node.take(.maNotify)
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(!node.core.holdsConnections(to: node.peer.hoa))
    }

    @Test("Without any address packets wait; with the next one they go")
    func gap() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([])
        #expect(node.outbound == nil)
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.advance(.seconds(3))
        #expect(!node.hasReleased(.dropOutbound(to: node.peer.hoa.address)))
        node.clear()
        node.links([H.second])
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
        #expect(node.count(.imsUpdate) == 1 && node.count(.maNotify) == 1)
    }

    @Test("An address that comes back or goes without being the first is no handover: peers keep their path")
    func noHandover() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.first, H.second])
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.core.counters.handovers == 0)
        node.links([H.first])
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.core.counters.handovers == 0)
    }

    @Test("A peer that moved at the same time is told at its new place")
    func bothMoved() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second])
        try node.answerUpdate()
        _ = try node.take(.maNotify)
        node.advance(.milliseconds(30))
        try node.answerQuery(node.peerRecord([H.peerSecond]))
        #expect(node.outbound == node.path(H.second, H.peerSecond))
        #expect(node.count(.maNotify, to: H.peerSecond) == 1)
    }

    // MARK: Stale

    @Test("A peer that shows our own newer record makes us sign beyond it")
    func staleAtPeer() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second])
        let notify = try node.take(.maNotify)
        let newer = node.own.record([H.first], sequence: node.wall + 5000, issued: node.wall)
        node.clear()
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .stale, cookie: node.cookie(notify), hoa: node.own.hoa, current: newer.mapping)))
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.sequence == node.wall + 5001)
    }

    @Test("A peer can't make us believe in a record that we never signed")
    func forgedStale() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([H.second])
        let notify = try node.take(.maNotify)
        let forged = TestIdentity(hoa: node.own.hoa, key: makeKey(77), certificate: node.own.certificate).record(
            [H.first], sequence: node.wall + 5000)
        node.clear()
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .stale, cookie: node.cookie(notify), hoa: node.own.hoa, current: forged.mapping)))
        #expect(node.count(.imsUpdate) == 0)
    }
}

extension NodeCore {
    var ownLocatorsInOrder: [IPAddress] { status(now: Now(monotonic: .zero, wallMilliseconds: 0)).locators.map(\.moa.address) }
}

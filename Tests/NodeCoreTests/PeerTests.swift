import IMTPlan
import MATSignal
import MATTesting
import NodeCore
import Testing

@Suite("Peers") struct PeerTests {
    typealias H = NodeHarness

    @Test("An active peer's IMS is asked every 30 s, and its locator checked")
    func polls() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(29))
        #expect(node.sent.isEmpty)
        node.advance(.milliseconds(1000))
        #expect(node.count(.maQuery, to: H.peerServer) == 1 && node.count(.maQuery, to: H.peerFirst) == 1)
        #expect(try node.take(.maQuery, to: H.peerServer).query?.certID == node.peer.certificate.id)
    }

    @Test("A poll finds a record that no push brought")
    func pollFinds() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(30))
        try node.answerQuery(node.peerRecord([H.peerSecond]))
        #expect(node.outbound == node.path(H.first, H.peerSecond))
        #expect(node.imt.inbound == [node.path(H.first, H.peerSecond): node.pair])
    }

    @Test("A peer stays while its IMS is silent or knows nothing of it")
    func stays() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(30))
        let query = try node.take(.maQuery, to: H.peerServer)
        node.answer(query, .maAnswer(MAAnswer(code: .notFound, cookie: node.cookie(query), hoa: node.peer.hoa, lifetime: 30)))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        node.advance(.seconds(300))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(!node.imt.isPlain(node.peer.hoa.address, now: node.now.monotonic))
    }

    @Test("With slow polls a peer is asked before its record expires")
    func beforeExpiry() throws {
        let node = try NodeHarness { $0.pollInterval = .seconds(3000) }
        try node.meet()
        node.advance(.seconds(599))
        #expect(node.count(.maQuery, to: H.peerServer) > 0)
    }

    @Test("A peer without packets for 10 minutes is forgotten, with all its entries; one with packets is not")
    func idle() throws {
        for isUsed in [true, false] {
            let node = try NodeHarness()
            try node.meet()
            for minute in 1...25 {
                if isUsed { node.event { core, now in core.traffic([node.peer.hoa: UInt64(minute)], now: now) } }
                node.advance(.seconds(60))
            }
            #expect(node.imt.outbound.isEmpty == !isUsed)
            #expect(node.imt.inbound.isEmpty == !isUsed)
        }
    }

    @Test("A withdrawn mapping stops the traffic to the peer")
    func withdrawn() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(30))
        try node.answerQuery(node.peerRecord([]))
        #expect(node.imt.outbound.isEmpty && node.imt.inbound.isEmpty)
    }

    @Test("After a restart the kernel's entries go on working while their peers are asked for")
    func adopts() throws {
        let node = try NodeHarness()
        let old = (outbound: [node.pair: node.path(H.first, H.peerFirst)], inbound: [node.arrival(H.peerFirst): node.pair.peer])
        node.event { core, now in core.adopted(outbound: old.outbound, inbound: old.inbound, now: now) }
        #expect(node.imt.outbound.isEmpty, "no change of the kernel")
        node.links([H.first])
        node.foundOwn()
        node.foundPeer()
        try node.answerUpdate()
        try node.answerQuery(node.peerRecord([H.peerSecond]))
        try node.acknowledgeHANotify()
        #expect(node.outbound == node.path(H.first, H.peerSecond))
        #expect(
            node.actions.contains {
                if case .changeIMT(let changes) = $0 {
                    changes.contains(.removeInbound(peer: MobileAddress(H.peerFirst), own: node.pair.own))
                } else {
                    false
                }
            })
        node.clear()
        node.advance(.seconds(61))
        #expect(!node.actions.contains { if case .changeIMT(let changes) = $0 { changes.contains(.removeOutbound(node.pair)) } else { false } })
    }

    @Test("Entries that no peer claims are removed after a minute")
    func removesUnclaimed() throws {
        let node = try NodeHarness()
        node.event { core, now in
            core.adopted(outbound: [node.pair: node.path(H.first, H.peerFirst)], inbound: [node.arrival(H.peerFirst): node.pair.peer], now: now)
        }
        // A DNS that says nothing leaves them as they are: see NamesTests.
        node.event { core, now in core.lookedUp(node.peer.hoa, .absent(lifetime: .seconds(60)), now: now) }
        node.clear()
        node.advance(.seconds(61))
        #expect(
            node.actions.contains(.changeIMT([.removeOutbound(node.pair), .removeInbound(peer: MobileAddress(H.peerFirst), own: node.pair.own)])))
    }
}

import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What a node's core says about paths, seen from the outside but for the monitor's own rate.
@Suite("Paths and preferences") struct PathTests {
    typealias H = NodeHarness

    private func twoUplinks(adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) throws -> NodeHarness {
        let node = try NodeHarness(adjust: adjust)
        try node.meet(at: [H.first, H.second])
        node.answersChecks = false
        return node
    }

    private func use(_ node: NodeHarness, _ count: UInt64) {
        node.event { core, now in core.traffic([node.peer.hoa: count], now: now) }
    }

    @Test("A path in use is asked by a locator check of 40 octets, from the address it leaves from")
    func probe() throws {
        let node = try twoUplinks()
        node.advance(.seconds(5))
        node.clear()
        use(node, 5)
        let query = try node.take(.maQuery, to: H.peerFirst)
        #expect(query.octetsCount == 40 && query.from == H.first && query.to.port == SignalPort.node && query.query?.hoa == node.peer.hoa)
        #expect(query.message.cookie.server == nil)
    }

    @Test("A silent path is repeated, then all others are asked at once: the peer's other pairs, and the servers over each uplink")
    func alternatives() throws {
        let node = try twoUplinks()
        node.advance(.seconds(5))
        node.clear()
        use(node, 5)
        node.advance(.milliseconds(240))
        #expect(node.count(.maQuery) == 1)
        node.advance(.milliseconds(20))
        #expect(Set(node.sent.filter { $0.to.address == H.peerFirst }.map(\.from)) == [H.first, H.second])
        #expect(Set(node.sent.filter { H.ownServers.contains($0.to.address) }.map(\.from)) == [H.first, H.second])
    }

    @Test("A peer that answers from another own address only is reached from there, and no uplink is blamed while the IMS answers over it")
    func detour() throws {
        let node = try twoUplinks()
        node.advance(.seconds(5))
        use(node, 5)
        for _ in 0..<20 {
            for query in node.sent where query.message.type == .maQuery && (H.ownServers.contains(query.to.address) || query.from == H.second) {
                node.answer(query, .maAnswer(MAAnswer(code: .ok, cookie: Cookie(client: query.message.cookie.client), hoa: query.query?.hoa)))
            }
            node.sent = []
            node.advance(.milliseconds(100))
        }
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(node.core.counters.uplinkFailures == 0 && node.core.counters.detours == 1)
        #expect(node.core.status(now: node.now).peers.first?.detouredFor != nil)
        // The usual address goes: so does the detour's reason.
        node.links([H.second])
        #expect(node.core.status(now: node.now).peers.first?.detouredFor == nil)
    }

    @Test("Nobody is asked when there is no other way anyhow")
    func noChoice() throws {
        let node = try NodeHarness()
        try node.meet()
        for count in 1...5 {
            use(node, UInt64(count))
            node.advance(.seconds(1))
        }
        #expect(node.core.counters.probesSent == 0)
    }

    @Test("A peer can have an order of interfaces of its own, by configuration and by hand, and keeps it through handovers")
    func preference() throws {
        let node = try twoUplinks { $0.peerPreferences = [PeerPreference(prefix("203.0.113.0/24"), interfaces: ["if1"])] }
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        node.event { core, now in core.prefer(interface: "if0", for: node.peer.hoa, now: now) }
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        node.event { core, now in core.prefer(interface: nil, for: node.peer.hoa, now: now) }
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        // Its interface goes and comes back.
        node.links([H.first])
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        // What the peer acks is to be of this.
        node.clear()
        node.links([H.first, H.second])
        node.answerProofs()
        try node.answerUpdate()
        let notify = try node.take(.maNotify)
        node.answer(notify, .maNotifyAck(MANotifyAck(code: .ok, cookie: node.cookie(notify), hoa: node.own.hoa)))
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(node.core.ownLocatorsInOrder == [H.first, H.second], "others go by the node's order")
    }

    @Test("A changed configuration orders interfaces anew, for single peers and for all, and what it says no more counts no more")
    func reconfigured() throws {
        let node = try twoUplinks()
        func take(_ preferred: [String], _ peers: [PeerPreference] = []) {
            let fresh = NodeReconfiguration(
                preferredInterfaces: preferred, peerPreferences: peers, namedPrefixes: [], relays: [], plain: PlainPolicy())
            node.event { core, now in core.reconfigure(fresh, now: now) }
        }
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        take([], [PeerPreference(prefix("203.0.113.0/24"), interfaces: ["if1"])])
        #expect(node.outbound == node.path(H.second, H.peerFirst) && node.core.ownLocatorsInOrder == [H.first, H.second])
        take([])
        #expect(node.outbound == node.path(H.first, H.peerFirst) && node.core.counters.handovers == 0)
        take(["if1"])
        #expect(node.core.ownLocatorsInOrder == [H.second, H.first] && node.core.counters.handovers == 1)
        // The same again is no news.
        take(["if1"])
        #expect(node.core.counters.handovers == 1)
    }

    @Test("A link that returns is used at once, twice; from the third time in a minute it must stay first")
    func flapping() throws {
        let node = try twoUplinks { $0.preferredInterfaces = ["if0"] }
        func links(_ list: [(IPAddress, String)]) {
            let locators = list.map { OwnLocator(MobileAddress($0.0), interface: $0.1) }
            node.event { core, now in core.linksChanged(locators, infrastructure: [], now: now) }
        }
        for round in 1...4 {
            links([(H.second, "if1")])
            node.advance(.seconds(2))
            links([(H.second, "if1"), (H.first, "if0")])
            #expect(node.core.ownLocatorsInOrder.first == (round <= 2 ? H.first : H.second), "round \(round)")
            node.advance(.seconds(2))
        }
        #expect(node.core.status(now: node.now).uplinks.map(\.state) == ["sound", "flapping"])
        // The fourth loss doubled the ten seconds.
        node.advance(.seconds(17))
        #expect(node.core.ownLocatorsInOrder.first == H.second)
        node.advance(.seconds(2))
        #expect(node.core.ownLocatorsInOrder.first == H.first)
        // If nothing else is there, it is used all the same.
        links([(H.second, "if1")])
        links([(H.first, "if0")])
        #expect(node.core.ownLocatorsInOrder == [H.first])
    }

    @Test("However many paths are watched and silent, probes keep to their rate")
    func rate() {
        var configuration = PathConfiguration()
        configuration.probesPerSecond = 20
        var monitor = PathMonitor(configuration)
        for index in 0..<500 {
            let moa = MobileAddress(ip("10.0.\(index / 250).\(index % 250 + 1)"))
            monitor.watch(PathMonitor.Path(MobileAddress(H.first), .peer(HomeAddress(moa.address), moa)), until: .distantFuture, now: .zero)
        }
        var probes = 0
        var number: UInt32 = 0
        var now = MonotonicTime.zero
        while now < .zero + .seconds(10) {
            for event in monitor.due(
                now: now,
                sequence: {
                    number += 1; return number
                })
            { if case .probe = event { probes += 1 } }
            now = now + .milliseconds(20)
        }
        #expect(probes <= 11 * configuration.probesPerSecond && probes >= 9 * configuration.probesPerSecond, "\(probes)")
    }
}

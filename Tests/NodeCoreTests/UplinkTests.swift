import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Which own addresses are used and listed, and what a refused registration says about one.
@Suite("Own addresses") struct UplinkTests {
    typealias H = NodeHarness

    // MARK: Order, and room in the record

    private func locator(_ address: String, _ interface: String, deprecated: Bool = false) -> OwnLocator {
        OwnLocator(MobileAddress(ip(address)), interface: interface, isDeprecated: deprecated)
    }

    private func node(prefer: [String] = [], _ locators: [OwnLocator]) throws -> NodeHarness {
        let node = try NodeHarness { $0.preferredInterfaces = prefer }
        node.event { core, now in core.linksChanged(locators, infrastructure: [], now: now) }
        return node
    }

    private func listed(_ node: NodeHarness) -> [String] { node.core.desiredLocators(of: node.own.hoa).map(\.address.description) }

    @Test("Nine deprecated addresses on the preferred link leave the other link its place, and come last")
    func nineDeprecated() throws {
        let nine = (1...9).map { locator("192.0.2.\($0)", "wlan0", deprecated: true) }
        let node = try node(prefer: ["wlan0", "wwan0"], nine + [locator("192.0.2.100", "wlan0"), locator("203.0.113.7", "wwan0")])
        #expect(listed(node) == ["192.0.2.100", "203.0.113.7", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"])
    }

    @Test("A link with deprecated addresses only gives way to another: its network is about to take them away")
    func deprecatedLink() throws {
        let node = try node(prefer: ["wlan0", "wwan0"], [locator("192.0.2.1", "wlan0", deprecated: true), locator("203.0.113.7", "wwan0")])
        #expect(listed(node) == ["203.0.113.7", "192.0.2.1"])
        // What a person chose is another matter.
        node.event { core, now in core.prefer(interface: "wlan0", now: now) }
        #expect(listed(node) == ["192.0.2.1", "203.0.113.7"])
    }

    @Test("Each of eight links has a place, whatever the first has; of nine the last has none, and status says so")
    func places() throws {
        let first = (1...10).map { locator("192.0.2.\($0)", "eth0") }
        let others = (1...8).map { locator("198.18.\($0).1", "eth\($0)") }
        let node = try node(first + others)
        #expect(listed(node) == ["192.0.2.1"] + (1...7).map { "198.18.\($0).1" })
        let status = node.core.status(now: node.now)
        #expect(zip(status.locators, status.uplinks).allSatisfy { ($1.reason != nil) == !listed(node).contains($0.moa.address.description) })
    }

    @Test("An address that becomes deprecated is no new one: what was held against its link stays, and nothing is lost")
    func becomesDeprecated() throws {
        let node = try NodeHarness()
        try node.meet(at: [H.first, H.second])
        node.event { core, now in
            core.linksChanged(
                [OwnLocator(MobileAddress(H.first), interface: "if0", isDeprecated: true), OwnLocator(MobileAddress(H.second), interface: "if1")],
                infrastructure: [], now: now)
        }
        #expect(node.core.ownLocatorsInOrder == [H.second, H.first])
        #expect(node.hasLogged("with overlap"))
        #expect(node.outbound == node.path(H.first, H.peerFirst), "until the peer acks")
        #expect(!node.hasLogged("comes and goes"))
    }

    // MARK: Refused

    /// Delivers a reply in which the IMS says what source it saw.
    private func answerUpdate(_ node: NodeHarness, _ code: ResponseCode, observed: IPAddress? = nil, port: UInt16 = 6289) throws -> [IPAddress] {
        let update = try node.take(.imsUpdate)
        node.answer(
            update, .imsUpdateReply(IMSUpdateReply(code: code, cookie: node.cookie(update), observed: Endpoint(observed ?? update.from, port: port))))
        return update.update?.record.mapping.record.locators.map(\.moa.address) ?? []
    }

    /// The first uplink is behind a translator, the second is not.
    private func behindTranslator() throws -> NodeHarness {
        let node = try NodeHarness()
        node.links([H.first, H.second])
        node.foundOwn()
        node.answerProofs()
        #expect(try answerUpdate(node, .refused, observed: ip("203.0.113.99")) == [H.first, H.second])
        return node
    }

    @Test("A preferred uplink behind a translator is left for a public one at once, is not listed, and status says why")
    func translated() throws {
        let node = try behindTranslator()
        #expect(node.core.ownLocatorsInOrder == [H.second, H.first])
        node.answerProofs()
        #expect(try answerUpdate(node, .ok) == [H.second])
        #expect(node.core.isRegistered)
        let status = node.core.status(now: node.now)
        #expect(status.uplinks.map(\.state) == ["sound", "refused"])
        #expect(status.uplinks[1].reason?.contains("203.0.113.99") == true && status.uplinks[1].trustedIn != nil)
        #expect(status.registrations.allSatisfy { $0.problem == nil })
    }

    @Test("It is tried again by the registered record, which changes nothing, ever more rarely, and preferred again when the IMS sees it as it is")
    func triedAgain() throws {
        let node = try behindTranslator()
        node.answerProofs()
        _ = try answerUpdate(node, .ok)
        let record = node.core.homes[node.own.hoa]?.mapping
        node.clear()
        var times: [Int64] = []
        while times.count < 3 {
            node.advance(.seconds(1))
            guard let index = node.sent.firstIndex(where: { $0.message.type == .imsUpdate && $0.from == H.first }) else { continue }
            let update = node.sent.remove(at: index)
            times.append(update.at)
            #expect(update.update?.record.mapping == record?.mapping)
            let observed = times.count < 3 ? Endpoint(ip("203.0.113.99"), port: 4711) : Endpoint(H.first, port: 6289)
            node.answer(update, .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: node.cookie(update), observed: observed)))
        }
        #expect((times[1] - times[0]) < (times[2] - times[1]), "\(times)")
        #expect(node.core.ownLocatorsInOrder == [H.first, H.second] && node.core.isRegistered == false)
        node.answerProofs()
        #expect(try answerUpdate(node, .ok) == [H.first, H.second])
    }

    @Test("No peer is told of an address that the IMS refused, and no traffic leaves from it")
    func peersKeepTheirPath() throws {
        let node = try NodeHarness()
        try node.meet(at: [H.second])
        let locators = [OwnLocator(MobileAddress(H.first), interface: "new"), OwnLocator(MobileAddress(H.second), interface: "if0")]
        node.event { core, now in core.linksChanged(locators, infrastructure: [], now: now) }
        node.answerProofs()
        _ = try answerUpdate(node, .refused, observed: ip("203.0.113.99"))
        node.answerProofs()
        _ = try answerUpdate(node, .ok)
        #expect(node.outbound == node.path(H.second, H.peerFirst))
        #expect(
            node.sent.filter { $0.message.type == .maNotify }.allSatisfy {
                $0.notify?.record.mapping.record.locators.map(\.moa.address) == [H.second]
            })
    }

    @Test("A further uplink behind a translator does not keep the first from being registered")
    func furtherRefused() throws {
        let node = try NodeHarness()
        node.links([H.first, H.second])
        node.foundOwn()
        node.answerProofs()
        #expect(try answerUpdate(node, .refused) == [H.first, H.second])
        // The proofs may have been too old: once more with fresh ones.
        while node.count(.maQuery) == 0 { node.advance(.milliseconds(50)) }
        node.answerProofs()
        #expect(try answerUpdate(node, .refused) == [H.first, H.second])
        #expect(try answerUpdate(node, .ok) == [H.first])
        #expect(node.core.isRegistered && node.core.status(now: node.now).uplinks.map(\.state) == ["sound", "refused"])
    }

    @Test("Where every uplink is refused each gets its turn, with pauses, and none is left for ever")
    func allRefused() throws {
        let node = try behindTranslator()
        node.answerProofs()
        var sources: [IPAddress] = []
        for _ in 0..<12 {
            while node.count(.imsUpdate) == 0 { node.advance(.milliseconds(100)); node.answerProofs() }
            let update = try node.take(.imsUpdate)
            sources.append(update.from)
            node.answer(
                update, .imsUpdateReply(IMSUpdateReply(code: .refused, cookie: node.cookie(update), observed: Endpoint(ip("203.0.113.98"), port: 7))))
        }
        #expect(sources.contains(H.first) && sources.contains(H.second))
        #expect(node.now.monotonic - .zero > .seconds(20), "not all at once")
        // Once one is taken, it is sound.
        while node.count(.imsUpdate) == 0 { node.advance(.milliseconds(100)); node.answerProofs() }
        _ = try answerUpdate(node, .ok)
        #expect(node.core.isRegistered && node.core.status(now: node.now).uplinks.first?.state == "sound")
    }

    @Test("A single uplink that is refused is tried again as ever, and status names the translator")
    func singleRefused() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        _ = try answerUpdate(node, .refused, observed: ip("203.0.113.99"))
        #expect(node.core.status(now: node.now).uplinks.first?.reason?.contains("203.0.113.99") == true)
        node.advance(.seconds(3))
        #expect(node.count(.imsUpdate) >= 1)
        // A second one comes: it is used at once.
        node.links([H.first, H.second])
        #expect(node.core.ownLocatorsInOrder == [H.second, H.first])
    }

    // MARK: Unanswered

    /// The IMS answers all but registrations from the first.
    private func run(_ node: NodeHarness, for duration: Duration, answering: (NodeHarness.Sent) -> Bool) throws {
        let end = node.now.monotonic + duration
        while node.now.monotonic < end {
            for sent in node.sent where H.ownServers.contains(sent.to.address) && answering(sent) {
                if sent.message.type == .maQuery {
                    node.answer(sent, .maAnswer(MAAnswer(code: .ok, cookie: node.cookie(sent), hoa: sent.query?.hoa)))
                } else if sent.message.type == .imsUpdate {
                    node.answer(
                        sent, .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: node.cookie(sent), observed: Endpoint(sent.from, port: 6289))))
                }
            }
            node.sent = []
            node.advance(.milliseconds(20))
        }
    }

    @Test("An uplink whose registrations are not answered, though small queries are, is left for one whose are")
    func unanswered() throws {
        let node = try NodeHarness()
        node.links([H.first, H.second])
        node.foundOwn()
        try run(node, for: .seconds(15)) { $0.message.type == .maQuery || $0.from == H.second }
        #expect(node.core.isRegistered && node.core.ownLocatorsInOrder == [H.second, H.first])
        #expect(node.core.status(now: node.now).uplinks.last?.reason?.contains("answers no registration") == true)
    }

    @Test("An IMS that is down altogether is no uplink's fault")
    func serverDown() throws {
        let node = try NodeHarness()
        try node.meet(at: [H.first, H.second])
        node.advance(.seconds(400))
        #expect(node.core.ownLocatorsInOrder == [H.first, H.second])
        #expect(node.core.status(now: node.now).uplinks.map(\.state) == ["sound", "sound"])
        #expect(node.core.counters.handovers == 0 && node.outbound == node.path(H.first, H.peerFirst))
    }

    @Test("An uplink that dies while it is not the first takes along the peers that still left from it")
    func laterUplinkDies() throws {
        let node = try NodeHarness()
        try node.meet(at: [H.first, H.second])
        node.answersChecks = false
        // The second becomes the first; the peer's agent is silent and its traffic stays.
        node.event { core, now in core.prefer(interface: "if1", now: now) }
        node.event { core, now in core.traffic([node.peer.hoa: 5], now: now) }
        try run(node, for: .seconds(5)) { _ in true }
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        // Nothing answers over the first any more.
        for count in UInt64(6)...20 {
            node.event { core, now in core.traffic([node.peer.hoa: count], now: now) }
            try run(node, for: .seconds(1)) { $0.from == H.second }
        }
        #expect(node.core.status(now: node.now).uplinks.last?.state == "dead")
        #expect(node.outbound == node.path(H.second, H.peerFirst))
    }
}

import MATCore
import MATSignal
import Testing

@testable import IMSCore

/// protocol.md section 6, from the attacker's side.
@Suite("Abuse of a server")
struct AbuseTests {
    let mn = node("198.51.100.7")
    let cn = node("198.51.100.9")

    private func registered(limits: IMSLimits = IMSLimits()) throws -> (TestServer, TestNode, CertifiedMapping) {
        let server = try TestServer(limits: limits)
        let node = try server.makeNode("192.0.2.1")
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: mn)?.code == .ok)
        server.clear()
        return (server, node, record)
    }

    /// One request of each type, with the given cookie and records that would be accepted under a good one.
    private func requests(_ server: TestServer, _ cookie: Cookie) throws -> [(name: String, octets: [UInt8])] {
        let time = server.now.wallMilliseconds
        let own = try server.makeNode("192.0.2.1").record(["198.51.100.7"], sequence: time + 1)
        let foreign = try TestNode("10.1.0.1", seed: 1, issuer: try key(150), notBefore: time - 1000).record(
            ["198.51.100.7"], sequence: time)
        func enclosed(_ certified: CertifiedMapping, byID: Bool = false) -> EnclosedRecord {
            EnclosedRecord(
                mapping: certified.mapping, certificate: byID ? .id(certified.certificate.id) : .whole(certified.certificate))
        }
        let bodies: [(String, SignalMessage.Body)] = [
            ("IMS Update", .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed(own)))),
            ("IMS Update by CERT-ID", .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed(own, byID: true)))),
            ("MA Query", .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.1"), subscribe: 300))),
            ("MA Query, padded", .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.1"), subscribe: 300, padding: 348))),
            ("MA Query, nearly padded", .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.1"), padding: 240))),
            ("MA Query, unknown HoA", .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.77")))),
            ("MA Query, foreign HoA", .maQuery(MAQuery(cookie: cookie, hoa: home("10.9.9.9")))),
            ("HA Notify", .haNotify(HANotify(cookie: cookie, hoa: home("10.1.0.1"), peerHoA: home("192.0.2.1")))),
            (
                "HA Notify with record",
                .haNotify(HANotify(cookie: cookie, hoa: home("10.1.0.1"), peerHoA: home("192.0.2.1"), record: enclosed(foreign)))
            ),
            ("HA Query", .haQuery(HAQuery(cookie: cookie, moa: MobileAddress(address("198.51.100.7"))))),
            ("MA Notify", .maNotify(MANotify(cookie: cookie, record: enclosed(foreign)))),
            ("MA Notify about an own node", .maNotify(MANotify(cookie: cookie, record: enclosed(own)))),
        ]
        return bodies.enumerated().map { ($1.0, SignalMessage(sequence: UInt32($0), $1.1).octets) }
    }

    /// What people do to messages: cut off, lengthened, each octet of header and option heads changed, options added and doubled.
    private func variants(_ octets: [UInt8]) -> [[UInt8]] {
        var result: [[UInt8]] = [octets]
        for count in stride(from: 0, to: octets.count, by: 4) { result.append(Array(octets.prefix(count))) }
        for place in 0..<min(octets.count, 48) {
            for value: UInt8 in [0, 2, 0x80, 0xFF] {
                var changed = octets
                changed[place] = value
                result.append(changed)
            }
        }
        func with(_ option: [UInt8]) -> [UInt8] {
            var longer = octets + option
            longer[3] = UInt8(clamping: longer.count / 4)
            return longer
        }
        for kind in UInt16(0)...16 { result.append(with([0, UInt8(kind), 0, 4, 0, 0, 0, 0])) }
        result.append(with([0x80, 1, 0, 0]))
        result.append(with([0xFF, 0xFF, 0, 0]))
        result.append(with([0x70, 1, 0, 4, 1, 2, 3, 4]))
        result.append(with([0, 1, 0, 200] + [UInt8](repeating: 0, count: 200)))
        result.append(with([0, 1, 0, 200] + [UInt8](repeating: 9, count: 200)))
        for count in 2...16 where octets.count * count <= SignalDatagram.octetsMax {
            result.append(Array(repeating: octets, count: count).flatMap { $0 })
        }
        result.append(octets + [UInt8](repeating: 0, count: 7))
        return result
    }

    private func state(_ server: TestServer) -> [Int] {
        let core = server.core
        return [
            core.mappingsCount, core.rememberedCount, core.subscriptionsCount, core.notifiesPendingCount, core.pushesPendingCount,
            Int(core.counters.verifications), core.servers.cookiesCount, core.confirmations.lookUpsCount, core.confirmations.hoasCount,
            core.writesCount,
            core.notifyAdmission.ratesCount, core.queries.ratesCount, core.verifications.ratesCount,
        ]
    }

    @Test("Whatever a source without a valid cookie sends, it gets no more octets than it sent and changes nothing")
    func strangers() throws {
        var limits = IMSLimits()
        // All of them, since time stands still here.
        limits.errorAnswersPerSecond = 1_000_000
        let (server, _, _) = try registered(limits: limits)
        let sources = [mn, Endpoint(cn.address, port: 4000), node("2001:db8:77::1")]
        let before = state(server)
        var datagrams = 0
        for cookie in [
            Cookie(client: 5), Cookie(client: 5, server: server.core.cookies.make(for: node("203.0.113.99"), clientCookie: 5, now: server.now)),
        ] {
            for (name, octets) in try requests(server, cookie) {
                for variant in variants(octets) {
                    for source in sources {
                        server.clear()
                        server.receive(variant, from: source)
                        datagrams += 1
                        let sent = server.raw.reduce(0) { $0 + $1.octets.count }
                        guard sent <= variant.count, server.raw.allSatisfy({ $0.to == source }), server.lookUps.isEmpty else {
                            Issue.record("\(name) of \(variant.count) octets: \(sent) octets out, look-ups \(server.lookUps)")
                            return
                        }
                    }
                }
            }
        }
        #expect(datagrams > 10_000)
        #expect(state(server) == before)
    }

    @Test("With a valid cookie each of these requests is worked on")
    func clients() throws {
        let (server, _, _) = try registered()
        var answered: [String: [ResponseCode]] = [:]
        for (name, octets) in try requests(server, server.cookie(mn, client: 5)) {
            server.clear()
            server.receive(octets, from: mn)
            answered[name] = server.sent.map(\.message.code)
        }
        #expect(answered["IMS Update"] == [.ok] && answered["MA Query"] == [.ok] && answered["MA Query, unknown HoA"] == [.notFound])
        #expect(answered["MA Query, foreign HoA"] == [.notAuthoritative] && answered["HA Query"] == [.ok])
        #expect(answered["HA Notify"] == [] && server.core.notifiesPendingCount == 2 && server.core.confirmations.lookUpsCount == 1)
        #expect(answered["MA Notify"] == [.notFound] && answered["MA Notify about an own node"] == [.refused])
    }

    // MARK: Cookies

    @Test("A cookie is good from 300 s ahead to 3600 s back, and as proof of location to 300 s back")
    func cookieTimes() throws {
        func at(_ seconds: Int64, _ server: TestServer) -> Now {
            Now(monotonic: server.now.monotonic, wallMilliseconds: UInt64(Int64(server.now.wallMilliseconds) + seconds * 1000))
        }
        for (age, isValid, isProof) in [
            (-301, false, false), (-300, true, true), (0, true, true), (300, true, true), (301, true, false), (3600, true, false),
            (3601, false, false), (1_700_000_000, false, false),
        ] as [(Int64, Bool, Bool)] {
            let (server, node, _) = try registered()
            let cookie = server.cookie(mn, at: at(-age, server))
            // A HA Notify is never answered from memory, so a bad cookie shows.
            let ack = server.notify("192.0.2.1", about: "192.0.2.1", nil, from: mn, cookie: cookie)
            #expect((ack?.code == .cookieRequired) == !isValid, "a cookie of \(age) s")
            let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1)
            let reply = try #require(server.update(record, from: mn, cookie: cookie))
            #expect((reply.code == .ok) == isProof, "a cookie of \(age) s as proof: \(reply.code)")
        }
    }

    @Test("A cookie with another version, with reserved octets set, or changed anywhere, is none")
    func cookieForms() throws {
        let (server, _, _) = try registered()
        let good = SignalMessage(
            sequence: 1, .haNotify(HANotify(cookie: server.cookie(cn), hoa: home("192.0.2.1"), peerHoA: home("192.0.2.1")))
        ).octets
        for place in 12..<36 {
            for bit in UInt8(0)..<8 {
                var bad = good
                bad[place] ^= 1 << bit
                server.clear()
                server.receive(bad, from: cn)
                #expect(server.sent.map(\.message.code) == [.cookieRequired])
            }
        }
    }

    // MARK: Proof of location

    @Test("Locators: the source, or proven by a cookie got there; from port 6289; networks only where configured")
    func locators() throws {
        let server = try TestServer()
        let node = try server.makeNode("192.0.2.1")
        let other = IMSTests.node("203.0.113.9")
        func proof(_ endpoint: Endpoint, _ locator: String? = nil, age: Int64 = 0, client: UInt64 = 9) throws -> LocatorProof {
            let time = Now(monotonic: server.now.monotonic, wallMilliseconds: UInt64(Int64(server.now.wallMilliseconds) - age * 1000))
            return LocatorProof(
                locator: MobileAddress(locator.map { address($0) } ?? endpoint.address), client: client,
                server: try #require(server.core.freshCookie(endpoint, client, time).server))
        }
        var sequence = server.now.wallMilliseconds
        func update(_ moas: [String], _ proofs: [LocatorProof], from source: Endpoint? = nil) throws -> ResponseCode? {
            sequence += 1
            server.advance(.seconds(1))
            return server.update(try node.record(moas, sequence: sequence), from: source ?? mn, proofs: proofs)?.code
        }
        let both = ["198.51.100.7", "203.0.113.9"]
        #expect(try update(both, [try proof(other)]) == .ok)
        #expect(try update(both, []) == .refused)
        #expect(try update(both, [try proof(other, age: 298)]) == .ok)
        #expect(try update(both, [try proof(other, age: 302)]) == .refused)
        #expect(try update(both, [try proof(Endpoint(other.address, port: 6288))]) == .refused, "proven from another port")
        #expect(try update(both, [try proof(IMSTests.node("203.0.113.10"), "203.0.113.9")]) == .refused, "a cookie got elsewhere")
        #expect(try update(both, [LocatorProof(locator: try proof(other).locator, client: 10, server: try proof(other).server)]) == .refused)
        let elsewhere = Endpoint(mn.address, port: 41000)
        #expect(try update(["203.0.113.9"], [try proof(other)], from: elsewhere) == .ok, "the update itself may come from any port")
        #expect(try update(["198.51.100.7"], [], from: elsewhere) == .refused, "but then its source proves nothing")
        #expect(try update(["198.51.100.7"], [try proof(elsewhere)], from: elsewhere) == .refused, "nor does a cookie made for that port")
        #expect(try update(["198.51.100.7"], [try proof(mn)], from: elsewhere) == .ok)
        #expect(try update([], [], from: Endpoint(mn.address, port: 6290)) == .ok, "a withdrawal has nothing to prove")
        // A mobile network's prefix is the operator's word, whoever sends it.
        let network = try server.makeNode("2001:db8:10:100::", prefixLength: 56, seed: 3)
        let time = server.now.wallMilliseconds
        #expect(server.update(try network.record(["2001:db8:aa:100::"], sequence: time), from: mn)?.code == .ok)
        #expect(server.update(try network.record(["2001:db8:bb:100::"], sequence: time + 1), from: mn)?.code == .refused)
    }

    // MARK: Limits

    @Test("HA Notify: 10 a second per source and per PEER-HOA, then code 7 with a time, and from others as before")
    func notifyRates() throws {
        let (server, _, _) = try registered()
        let peer = try server.makeNode("192.0.2.5", seed: 5)
        #expect(server.update(try peer.record(["198.51.100.9"], sequence: server.now.wallMilliseconds), from: cn)?.code == .ok)
        // About HoAs of its own prefixes, which are not looked up.
        let codes = (0..<12).map { _ in server.notify("192.0.2.77", about: "192.0.2.1", nil, from: mn)?.code }
        #expect(codes.prefix(10).allSatisfy { $0 == .upstreamFailed } && codes.suffix(2).allSatisfy { $0 == .tryLater })
        // Its source has used up its rate; the PEER-HOA's is used up as well.
        #expect(server.notify("192.0.2.77", about: "192.0.2.5", nil, from: mn)?.code == .tryLater)
        let refused = try #require(server.notify("192.0.2.77", about: "192.0.2.1", nil, from: cn))
        #expect(refused.code == .tryLater && refused.lifetime == 1)
        #expect(server.notify("192.0.2.77", about: "192.0.2.5", nil, from: cn)?.code == .upstreamFailed)
        server.advance(.seconds(1))
        #expect(server.notify("192.0.2.77", about: "192.0.2.5", nil, from: mn)?.code == .upstreamFailed)
    }

    @Test("Updates: 5 a second per HoA that verify, then code 7; those that don't verify use nothing up")
    func updateRates() throws {
        let (server, node, _) = try registered()
        let time = server.now.wallMilliseconds
        let thief = try TestNode("192.0.2.1", seed: 66, issuer: server.issuer, notBefore: TestServer.start - 1000)
        let forged = CertifiedMapping(
            mapping: try thief.record(["198.51.100.7"], sequence: time + 1).mapping, certificate: node.certificate)
        for _ in 0..<10 { #expect(server.update(forged, from: mn)?.code == .authenticationFailed) }
        server.advance(.seconds(1))
        let codes = try (1...7).map { server.update(try node.record(["198.51.100.7"], sequence: time + 1 + UInt64($0)), from: mn)?.code }
        #expect(codes.prefix(5).allSatisfy { $0 == .ok } && codes.suffix(2).allSatisfy { $0 == .tryLater })
    }

    @Test("A source has 20 signature checks a second, and what it can't have checked is answered with code 7")
    func verificationRates() throws {
        let (server, node, _) = try registered()
        server.advance(.seconds(1))
        let time = server.now.wallMilliseconds
        let thief = try TestNode("192.0.2.1", seed: 66, issuer: server.issuer, notBefore: TestServer.start - 1000)
        let before = server.core.counters.verifications
        let codes = try (0..<30).map { number in
            server.update(
                CertifiedMapping(
                    mapping: try thief.record(["198.51.100.7"], sequence: time + UInt64(number)).mapping, certificate: node.certificate),
                from: mn)?.code
        }
        #expect(codes.prefix(20).allSatisfy { $0 == .authenticationFailed } && codes.suffix(10).allSatisfy { $0 == .tryLater })
        #expect(server.core.counters.verifications - before == 20)
    }

    @Test("Checks for nodes of others never take more than their part, and own nodes go on registering")
    func strangerVerifications() throws {
        var limits = IMSLimits()
        limits.notifiesPerSecond = 1000
        limits.strangerVerificationsPerSecond = 5
        limits.verificationsPendingMax = 8
        let (server, node, _) = try registered(limits: limits)
        server.verifiesAtOnce = false
        let foreignKey = try key(150)
        func announce(_ number: Int) throws {
            let source = IMSTests.node("203.0.113.\(number)")
            let foreign = try TestNode("10.1.0.\(number)", seed: 1, issuer: foreignKey, notBefore: TestServer.start - 1000)
            let record = try foreign.record(["203.0.113.\(number)"], sequence: server.now.wallMilliseconds)
            #expect(server.notify("10.1.0.\(number)", about: "192.0.2.1", record, from: source) == nil)
            let set = IMSSet(
                servers: [IMSHost(priority: 0, weight: 0, addresses: [address("203.0.113.250")], port: 6288, target: .root)],
                keys: [foreignKey.publicKey.octets], expires: server.now.monotonic + .seconds(300))
            server.perform(server.core.resolved(prefix("10.1.0.\(number)/32"), .found(set), now: server.now))
        }
        for number in 1...10 { try announce(number) }
        // Half of the places, though the rate would allow for one more.
        #expect(server.checks.count == 4)
        #expect(server.sent.filter { $0.message.type == .haNotifyAck && $0.message.code == .tryLater }.count == 6)
        let own = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1)
        #expect(server.update(own, from: mn) == nil && server.checks.count == 5)
        server.finishChecks()
        server.finishCommits()
        #expect(server.core.mapping(of: home("192.0.2.1"))?.certified == own && server.core.rememberedCount == 4)
        // Then the rate: one is left of this second.
        for number in 11...14 { try announce(number) }
        #expect(server.checks.count == 1)
    }

    @Test("HoAs made up by strangers: few look-ups per source at a time, one per HoA, bounded over all, and code 7 beyond")
    func inquiries() throws {
        var limits = IMSLimits()
        limits.notifiesPendingMax = 50
        limits.notifiesPerSecond = 1000
        let (server, _, _) = try registered(limits: limits)
        let codes = (0..<20).map { server.notify("10.0.0.\($0 + 1)", about: "192.0.2.1", nil, from: cn)?.code }
        #expect(codes.prefix(8).allSatisfy { $0 == nil } && codes.suffix(12).allSatisfy { $0 == .tryLater })
        #expect(server.lookUps.count == 8)
        // The same HoA from others is the same look-up.
        for host in 20..<30 { #expect(server.notify("10.0.0.1", about: "192.0.2.1", nil, from: node("198.51.100.\(host)")) == nil) }
        #expect(server.lookUps.count == 8 && server.core.notifiesPendingCount == 18)
        // From many sources: no more than may be pending.
        for host in 30..<200 { _ = server.notify("10.0.1.\(host)", about: "192.0.2.1", nil, from: node("198.51.100.\(host)")) }
        #expect(server.core.notifiesPendingCount == 50 && server.lookUps.count == 40)
        // An end of a look-up makes room again.
        server.perform(server.core.resolved(prefix("10.0.0.1/32"), .failed("SERVFAIL"), now: server.now))
        #expect(server.core.notifiesPendingCount == 39)
        #expect(server.notify("10.0.0.99", about: "192.0.2.1", nil, from: cn) == nil)
        #expect(server.notify("10.0.0.98", about: "192.0.2.1", nil, from: cn)?.code == .tryLater)
    }

    @Test("All strangers together make the server find out about so many HoAs a second, and are told to come later beyond")
    func inquiryRate() throws {
        var limits = IMSLimits()
        limits.notifiesPerSecond = 1_000_000
        limits.inquiriesPerSecond = 20
        let (server, _, _) = try registered(limits: limits)
        func announce(_ count: UInt32, _ first: UInt32) -> Int {
            (0..<count).map { number -> ResponseCode? in
                let hoa = HomeAddress(IPAddress(ipv4: 0x0A00_0001 + first + number)).description
                let source = Endpoint(IPAddress(ipv4: 0xAC10_0001 + first + number), port: SignalPort.node)
                return server.notify(hoa, about: "192.0.2.1", nil, from: source)?.code
            }.filter { $0 == .tryLater }.count
        }
        #expect(announce(100, 0) == 80 && server.lookUps.count == 20)
        server.advance(.milliseconds(500))
        #expect(announce(100, 100) == 90)
        // What is being found out about already costs nothing more.
        #expect(server.notify("10.0.0.1", about: "192.0.2.1", nil, from: cn) == nil)
    }

    @Test("What look-ups found is kept in a bounded table, and the oldest that has ended goes")
    func lookUps() throws {
        var limits = IMSLimits()
        limits.notifiesPerSecond = 1_000_000
        limits.inquiriesPerSecond = 1_000_000
        limits.lookUpsMax = 1000
        let (server, _, _) = try registered(limits: limits)
        for number in 0..<UInt32(3000) {
            let hoa = HomeAddress(IPAddress(ipv4: 0x0A00_0001 + number))
            let source = Endpoint(IPAddress(ipv4: 0xAC10_0001 + number), port: SignalPort.node)
            let body = HANotify(cookie: server.cookie(source), hoa: hoa, peerHoA: home("192.0.2.1"))
            server.receive(SignalMessage(sequence: number, .haNotify(body)).octets, from: source)
            server.perform(
                server.core.resolved(IPPrefix(hoa.address), .absent(until: server.now.monotonic + .seconds(300)), now: server.now))
        }
        #expect(server.core.confirmations.lookUpsCount == 1000 && server.core.notifiesPendingCount == 0)
        #expect(!server.core.confirmations.hasInquiries && server.core.confirmations.isEmpty)
        server.advance(.seconds(330))
        #expect(server.core.confirmations.lookUpsCount == 0)
    }

    @Test("Pushes that nobody acknowledges are bounded, end, and take their subscription along")
    func pushes() throws {
        var limits = IMSLimits()
        limits.pushesMax = 20
        let (server, node, _) = try registered(limits: limits)
        for host in 20..<60 {
            let answer = server.query("192.0.2.1", from: IMSTests.node("198.51.100.\(host)"), subscribe: 300)
            #expect(answer?.subscribe == 300)
        }
        server.clear()
        #expect(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1), from: mn)?.code == .ok)
        #expect(server.core.pushesPendingCount == 20)
        server.advance(.seconds(20))
        #expect(server.core.pushesPendingCount == 0 && server.core.subscriptionsCount == 20)
        #expect(server.core.counters.pushesUnanswered == 20)
    }

    @Test("A popular HoA's subscribers are told in parts, so that others get their answers in between, and all in the end")
    func manySubscribers() throws {
        var limits = IMSLimits()
        limits.subscriptionsMax = 4096
        let (server, node, _) = try registered(limits: limits)
        for number in 0..<UInt32(1000) {
            let source = Endpoint(IPAddress(ipv4: 0xAC10_0001 + number), port: SignalPort.node)
            #expect(server.query("192.0.2.1", from: source, subscribe: 300)?.subscribe == 300)
        }
        server.clear()
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1)
        #expect(server.update(record, from: mn)?.code == .ok)
        #expect(server.core.pushesPendingCount == Pushes.perTurnMax)
        // A newer record takes over from where the first had come to.
        let newer = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 2)
        #expect(server.update(newer, from: mn)?.code == .ok)
        server.advance(.milliseconds(10))
        #expect(server.core.pushesPendingCount == 1000)
        let last = Dictionary(server.sent.map { ($0.to, $0.message) }, uniquingKeysWith: { $1 })
        for (peer, message) in last where peer != mn {
            guard case .maNotify(let notify) = message.body else { continue }
            #expect(notify.record.mapping == newer.mapping)
        }
    }

    @Test("Notifies that are put off are told when to come again if their source is there, and nothing else happens")
    func putOff() throws {
        let (server, _, _) = try registered()
        let before = state(server)
        let foreign = try TestNode("10.1.0.1", seed: 1, issuer: try key(150), notBefore: TestServer.start - 1000).record(
            ["198.51.100.9"], sequence: TestServer.start)
        let enclosed = EnclosedRecord(mapping: foreign.mapping, certificate: .whole(foreign.certificate))
        func octets(_ cookie: Cookie) -> [UInt8] {
            SignalMessage(sequence: 1, .haNotify(HANotify(cookie: cookie, hoa: home("10.1.0.1"), peerHoA: home("192.0.2.1")))).octets
                + SignalMessage(sequence: 2, .maNotify(MANotify(cookie: cookie, record: enclosed))).octets
        }
        server.perform(server.core.putOff(octets(server.cookie(cn)), from: cn, to: TestServer.local, now: server.now))
        #expect(server.sent.map(\.message.code) == [.tryLater, .tryLater] && server.sent.map(\.message.sequence) == [1, 2])
        server.clear()
        server.perform(server.core.putOff(octets(Cookie(client: 5)), from: cn, to: TestServer.local, now: server.now))
        server.perform(server.core.putOff([5, 0, 1, 9], from: cn, to: TestServer.local, now: server.now))
        #expect(server.raw.isEmpty && state(server) == before && server.core.counters.putOff == 3)
    }

    @Test("Draft queries that are answered at all are answered at a limited rate")
    func drafts() throws {
        var limits = IMSLimits()
        limits.draftAnswersPerSecond = 10
        let server = try TestServer(limits: limits, draftSources: [prefix("198.51.100.0/24")])
        let ask = DraftMessage(sequence: 4, body: .query(home("192.0.2.1"), timestamp: 0)).octets
        for _ in 0..<5 { server.receive(Array(repeating: ask, count: 16).flatMap { $0 }, from: cn) }
        #expect(server.raw.count == 10)
    }

    @Test("A flood of refusals is logged as a few lines, and none of them is more than a line")
    func logs() throws {
        let (server, _, _) = try registered()
        for number in 0..<2000 {
            _ = server.query("192.0.2.1", from: Endpoint(cn.address, port: UInt16(1000 + number)), subscribe: 300)
            server.receive(
                SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.1")))).octets + [9, 9, 9, 9], from: cn)
            _ = server.whose("198.51.100.7", from: node("203.0.113.44"))
        }
        #expect(server.logs.count <= server.core.configuration.limits.refusalLogsPerSecond + 1)
        server.perform([])
        var core = server.core
        core.log(.notice, "an answer says \"no\nroot: forged\u{1B}[0m\"")
        #expect(core.takeActions(server.now).contains(.log(.notice, "an answer says \"no\\u{a}root: forged\\u{1b}[0m\"")))
    }

    // MARK: Numbers and times

    @Test("Times and sequences at the ends of their range are refused and trap nowhere")
    func extremes() throws {
        let (server, node, record) = try registered()
        for (sequence, issued, lifetime) in [
            (UInt64.max, server.now.wallMilliseconds, UInt32(600)), (server.now.wallMilliseconds + 1, .max, 600), (.max, .max, 604_800),
            (0, 0, 0), (server.now.wallMilliseconds + 1, 0, 604_800), (server.now.wallMilliseconds + 300_001, server.now.wallMilliseconds, 1),
        ] {
            for moas in [["198.51.100.7"], ["192.0.2.1"], []] {
                let record = MappingRecord(
                    hoa: home("192.0.2.1"), sequence: sequence, lifetime: lifetime, issued: issued,
                    locators: moas.map { Locator(MobileAddress(address($0))) })
                let certified = CertifiedMapping(mapping: try #require(record.signed(with: node.key)), certificate: node.certificate)
                let reply = server.update(certified, from: mn)
                if sequence > server.now.wallMilliseconds + 300_000 || issued > server.now.wallMilliseconds + 300_000 {
                    #expect(reply == nil || reply?.code == .authenticationFailed || reply?.code == .malformed)
                }
                _ = server.notify("192.0.2.1", about: "192.0.2.1", certified, from: mn)
            }
        }
        for (notBefore, notAfter) in [(UInt64.max, UInt64.max), (0, .max), (.max, 0), (0, 0)] {
            let odd = try TestNode("192.0.2.1", seed: 1, issuer: server.issuer, notBefore: notBefore, notAfter: notAfter)
            let answer = server.update(try odd.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 5), from: mn)
            #expect(answer?.code != .ok)
        }
        #expect(server.query("192.0.2.1", from: cn)?.code != nil)
        _ = record
    }

    @Test("A clock that jumps neither traps nor takes back what is held", arguments: [-4_000_000_000, -86_400_000, 86_400_000, 4_000_000_000])
    func clockJumps(milliseconds: Int64) throws {
        let (server, node, record) = try registered()
        #expect(server.query("192.0.2.1", from: cn, subscribe: 300)?.code == .ok)
        let before = server.now
        server.now.wallMilliseconds = UInt64(max(0, Int64(before.wallMilliseconds) + milliseconds))
        server.advance(.seconds(40))
        _ = server.query("192.0.2.1", from: cn)
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        _ = server.notify("10.1.0.1", about: "192.0.2.1", nil, from: mn)
        server.now.wallMilliseconds = before.wallMilliseconds + 80_000
        #expect(!(record.version > (try #require(server.core.mapping(of: home("192.0.2.1"))).certified.version)))
    }
}

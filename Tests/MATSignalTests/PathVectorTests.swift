import MATSignal
import Testing

/// What the vectors of section 11 mean: who signed what for whom, and which cookies they are made of. That they decode and encode to the same
/// octets, `VectorTests` says of all.
///
/// ```
///  node, HoA own, observed at :41000 ──► relay :6290      signed: Bind
///                                    ──► IMS :6288        signed: HA Notify
///                                    ──► peer :52000      signed: the second Path Probe
///                                    ◄── peer             signed: Path Answer, over the node's challenge
/// ```
@Suite("Vectors of encapsulated and relayed paths")
struct PathVectorTests {
    struct World: Sendable, CustomTestStringConvertible {
        let name: String
        let own: String
        let peer: String
        let source: String
        let peerSource: String
        let relay: String
        let ims: String
        /// What the record lists beside the source.
        let endpoint: String

        var testDescription: String { name }
    }

    static let worlds = [
        World(
            name: "path4", own: "192.0.2.1", peer: "192.0.2.2", source: "198.51.100.7", peerSource: "203.0.113.9", relay: "203.0.113.53",
            ims: "198.51.100.53", endpoint: "2001:db8:aa::7"),
        World(
            name: "path6", own: "2001:db8:1::1", peer: "2001:db8:1::2", source: "2001:db8:aa::7", peerSource: "2001:db8:bb::9",
            relay: "2001:db8:53::53", ims: "2001:db8:53::1", endpoint: "198.51.100.7"),
    ]

    private let vectors = Vectors.shared
    private let now = Now(monotonic: .zero, wallMilliseconds: 1_790_000_000_000)
    private let node: SigningKey
    private let authority: CookieAuthority

    init() throws {
        node = try #require(vectors.keys["nodeSeed"].flatMap { SigningKey(seed: $0) })
        authority = try #require(vectors.keys["cookieSecret"].flatMap { CookieAuthority(secret: $0) })
    }

    private func body(_ world: World, _ name: String) throws -> SignalMessage.Body {
        let parts = SignalDatagram.decode(try vectors.named("\(world.name).\(name)"))
        guard case .message(let message, _)? = parts.first else { throw SignalError.malformed("\(world.name).\(name): \(parts)") }
        return message.body
    }

    private func endpoint(_ address: String, _ port: UInt16) throws -> Endpoint { Endpoint(try #require(IPAddress(address)), port: port) }
    private func home(_ text: String) throws -> HomeAddress { try #require(HomeAddress(text)) }

    /// - Returns: the message's cookie, which was made for this source.
    private func cookie(_ cookie: Cookie, _ world: World) throws -> Challenge {
        #expect(cookie.client == 0xA1A2_A3A4_A5A6_A7A8)
        #expect(try authority.isValid(cookie, from: endpoint(world.source, 41000), now: now))
        return try #require(Challenge(cookie))
    }

    @Test("The record lists a MoA, an endpoint of the other family and a relay, in this order", arguments: worlds)
    func record(_ world: World) throws {
        let octets = try vectors.named("\(world.name).mapping.value")
        let record = try MappingRecord(octets: octets)
        let moa = MobileAddress(try #require(IPAddress(world.source)))
        #expect(record.octets == octets && record.hasKinds)
        // "10 | kind 1" of port 41000: the source is listed as a MoA would be reached, and is no MoA.
        #expect(
            record.places == [
                .endpoint(try endpoint(world.source, 41000), preference: 10), .endpoint(try endpoint(world.endpoint, 6289), preference: 20),
                .relay(try endpoint(world.relay, 6290), preference: 250),
            ])
        #expect(record.locators.isEmpty && !record.lists(moa) && !record.isWithdrawal && !record.isAtHome)
        #expect(try record.endpoints.count == 2 && record.relays == [endpoint(world.relay, 6290)])
        #expect(try record.lists(endpoint(world.endpoint, 6289)) && !record.lists(endpoint(world.endpoint, 41000)))
    }

    @Test("IMS Update proves its second endpoint by a cookie made for it, and its record verifies", arguments: worlds)
    func imsUpdate(_ world: World) throws {
        guard case .imsUpdate(let update) = try body(world, "imsUpdate.endpoints"), case .whole(let certificate) = update.record.certificate else {
            return #expect(Bool(false), "no IMS Update with a certificate")
        }
        _ = try cookie(update.cookie, world)
        #expect(try update.record.mapping.record.octets == vectors.named("\(world.name).mapping.value"))
        #expect(update.record.mapping.record.signed(with: node) == update.record.mapping)
        let ims = try #require(vectors.keys["imsSeed"].flatMap { SigningKey(seed: $0) })
        try CertifiedMapping(mapping: update.record.mapping, certificate: certificate).verify(
            asked: try home(world.own), keys: [ims.publicKey], now: now)
        let proof = try #require(update.endpointProofs.first)
        #expect(update.proofs.isEmpty && update.endpointProofs.count == 1)
        #expect(try proof.endpoint == endpoint(world.endpoint, 6289))
        #expect(
            authority.isValid(
                proof.server, clientCookie: proof.client, from: proof.endpoint, now: now, ageMax: CookieAuthority.proofAgeMax))
    }

    @Test("Asking takes 64 octets and no HoA; the answer tells the source under the client cookie", arguments: worlds)
    func ask(_ world: World) throws {
        guard case .bind(let ask) = try body(world, "bind.ask"), case .bindAck(let ack) = try body(world, "bindAck.observed") else {
            return #expect(Bool(false))
        }
        #expect(ask.wish == .ask && ask.hoa == nil && ask == .padded(cookie: ask.cookie, .ask))
        #expect(ask.cookie.server == nil)
        #expect(try ack.code == .ok && ack.granted == nil && ack.observed == endpoint(world.source, 41000))
        _ = try cookie(ack.cookie, world)
        guard case .bindAck(let refused) = try body(world, "bindAck.cookieRequired"), case .bindAck(let unknown) = try body(world, "bindAck.notBound")
        else { return #expect(Bool(false)) }
        #expect(refused.code == .cookieRequired && refused.observed == ack.observed)
        #expect(unknown.code == .notFound && unknown.observed == ack.observed && unknown.granted == nil)
        let refusal = SignalMessage.refusal(
            of: .bind, sequence: 0x7172_7375, code: .cookieRequired, cookie: ack.cookie, observed: try endpoint(world.source, 41000))
        #expect(try refusal.octets == vectors.named("\(world.name).bindAck.cookieRequired"))
        #expect(refusal.octets.count == 60)
    }

    @Test("A Bind is signed for the relay that it goes to, with the cookie that the relay gave", arguments: worlds)
    func bind(_ world: World) throws {
        for (name, lifetime, isWhole) in [("bind", 120, true), ("bind.end", 0, false)] as [(String, UInt32, Bool)] {
            guard case .bind(let bind) = try body(world, name), case .bind(let hoa, let proof, lifetime) = bind.wish else {
                return #expect(Bool(false), "\(name)")
            }
            #expect(try hoa == home(world.own) && bind.hoa == hoa)
            if case .whole = proof.certificate { #expect(isWhole) } else { #expect(!isWhole) }
            let relay = try endpoint(world.relay, SignalPort.relay)
            let statement = PathStatement(.bind, by: hoa, to: relay.address, at: relay, cookie: try cookie(bind.cookie, world))
            #expect(try statement.octets == vectors.named("\(world.name).pathSignature.octets.bind.value"))
            #expect(statement.signed(with: node) == proof.signature)
            #expect(statement.isSigned(proof.signature, by: node.publicKey))
            // Whatever it says is in what is signed.
            var others = Array(repeating: statement, count: 6)
            others[0].type = .pathAnswer
            others[1].signer = try home(world.peer)
            others[2].other = try #require(IPAddress(world.ims))
            others[3].destination.port = SignalPort.ims
            others[4].destination.address = try #require(IPAddress(world.ims))
            others[5].cookie.client ^= 1
            for other in others { #expect(!other.isSigned(proof.signature, by: node.publicKey), "\(other)") }
        }
        guard case .bindAck(let ack) = try body(world, "bindAck.granted"), case .bind(let refresh) = try body(world, "bind.refresh") else {
            return #expect(Bool(false))
        }
        #expect(try ack.granted == BindAck.Grant(home(world.own), lifetime: 120, role: [.relay, .gateway]) && ack.lifetime == nil)
        #expect(try refresh == .padded(cookie: refresh.cookie, .refresh(home(world.own))))
    }

    @Test("A HA Notify from a source that no record lists is signed for the IMS", arguments: worlds)
    func haNotify(_ world: World) throws {
        guard case .haNotify(let notify) = try body(world, "haNotify.signed") else { return #expect(Bool(false)) }
        let ims = try endpoint(world.ims, SignalPort.ims)
        let statement = PathStatement(.haNotify, by: try home(world.own), to: ims.address, at: ims, cookie: try cookie(notify.cookie, world))
        #expect(statement.signed(with: node) == notify.signature)
        #expect(notify.record?.mapping.record.endpoints.count == 2)
    }

    @Test("A first probe challenges, the answer signs the challenge, the second probe signs the cookie that came with it", arguments: worlds)
    func probe(_ world: World) throws {
        guard case .pathProbe(let first) = try body(world, "pathProbe.first"), case .pathAnswer(let answer) = try body(world, "pathAnswer"),
            case .pathProbe(let second) = try body(world, "pathProbe.second"),
            case .pathAnswer(let refused) = try body(world, "pathAnswer.cookieRequired")
        else { return #expect(Bool(false)) }
        let (own, peer) = (try home(world.own), try home(world.peer))
        let there = try endpoint(world.peerSource, 52000)
        let challenge = try #require(first.challenge)
        #expect(first.hoa == peer && first.peerHoA == own && first.cookie.server == nil && first.proof == nil)
        #expect(first == .padded(cookie: first.cookie, hoa: peer, peerHoA: own, challenge: challenge))
        #expect(challenge == authority.challenge(for: there, client: 0xB1B2_B3B4_B5B6_B7B8, now: now))
        #expect(try authority.isValid(challenge, for: there, now: now) && !authority.isValid(challenge, for: endpoint(world.source, 41000), now: now))

        let here = try endpoint(world.source, 41000)
        let heard = PathStatement(.pathAnswer, by: peer, to: own.address, at: here, cookie: challenge)
        #expect(answer.code == .ok && answer.hoa == peer && answer.observed == here)
        #expect(try heard.octets == vectors.named("\(world.name).pathSignature.octets.answer.value"))
        #expect(heard.signed(with: node) == answer.signature)

        let known = try #require(second.proof)
        let shown = PathStatement(.pathProbe, by: own, to: peer.address, at: there, cookie: try cookie(second.cookie, world))
        #expect(second.challenge == challenge && shown.signed(with: node) == known.signature)
        #expect(refused.code == .cookieRequired && refused.observed == here && refused.hoa == nil && refused.signature == nil)
    }

    @Test("In-path there is neither challenge nor proof; zeros behind fill the packet, and only there", arguments: worlds)
    func inPath(_ world: World) throws {
        guard case .pathProbe(let probe) = try body(world, "pathProbe.inPath"), case .pathAnswer(let answer) = try body(world, "pathAnswer.inPath")
        else { return #expect(Bool(false)) }
        #expect(probe.challenge == nil && probe.proof == nil)
        #expect(try probe.candidates == [Candidate(endpoint("192.168.7.5", 6289), preference: 10)])
        #expect(try answer.code == .ok && answer.observed == nil && answer.signature == nil && answer.hoa == home(world.peer))

        let message = SignalMessage(sequence: 0x6162_6366, .pathProbe(probe))
        let whole = message.octets
        for octets in [whole.count, whole.count + 1, 1372, 1472] {
            let filled = SignalDatagram.fill(octets, with: message)
            #expect(filled.count == octets)
            #expect(SignalDatagram.decode(filled, isInPath: true) == [.message(message, octetsCount: whole.count)])
            guard octets > whole.count else { continue }
            guard case .rejected? = SignalDatagram.decode(filled).last else { return #expect(Bool(false), "\(octets) outside") }
            var dirty = filled
            dirty[octets - 1] = 1
            guard case .rejected? = SignalDatagram.decode(dirty, isInPath: true).last else { return #expect(Bool(false), "\(octets) not zero") }
        }
        #expect(SignalDatagram.fill(3, with: message) == whole)
    }
}

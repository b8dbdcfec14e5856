import MATSignal
import Testing

/// What makes a message or record of section 11 malformed, rule by rule.
@Suite("Grammar of encapsulated and relayed paths")
struct PathGrammarTests {
    private static let cookie: [UInt8] = [0, 2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]
    private static let own = IPAddress(ipv4: 0xC000_0201)
    private static let hoa = option(3, own.octets)
    private static let peerHoA = option(5, IPAddress(ipv4: 0xC000_0202).octets)
    private static let signature = option(0x12, [UInt8](repeating: 7, count: 64))
    private static let certID = option(0x0D, [1, 2, 3, 4, 5, 6, 7, 8])
    private static let lifetime = option(9, [0, 0, 0, 120])
    private static let role = option(0x14, [0, 0, 0, 1])
    private static let challenge = option(0x11, [UInt8](repeating: 9, count: 24))
    private static let observed = masked(Endpoint(IPAddress(ipv4: 0xC633_6407), port: 41000))

    private static func option(_ kind: UInt16, _ value: [UInt8]) -> [UInt8] {
        let padding = [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
        return [UInt8(kind >> 8), UInt8(kind & 0xFF), UInt8(value.count >> 8), UInt8(value.count & 0xFF)] + value + padding
    }

    /// XOBSERVED under the client cookie of `cookie`.
    private static func masked(_ endpoint: Endpoint, rest: [UInt8] = [0, 0]) -> [UInt8] {
        let key: [UInt8] = Array(cookie.suffix(8))
        let port = [UInt8(endpoint.port >> 8), UInt8(endpoint.port & 0xFF)]
        let octets = (endpoint.address.octets + port).enumerated().map { $1 ^ key[$0 % 8] }
        return option(0x10, octets + rest)
    }

    private static func message(_ type: MessageType, code: UInt8 = 0, _ options: [[UInt8]]) -> [UInt8] {
        let body = options.flatMap { $0 }
        return [type.rawValue, code, 1, UInt8((body.count + 8) / 4), 0, 0, 0, 9] + body
    }

    private func fault(_ octets: [UInt8]) -> String? {
        guard case .rejected(let rejection)? = SignalDatagram.decode(octets).last else { return nil }
        return rejection.error.reason
    }

    private func body(_ octets: [UInt8]) throws -> SignalMessage.Body {
        guard case .message(let message, _)? = SignalDatagram.decode(octets).first else {
            throw SignalError.malformed(fault(octets) ?? "nothing")
        }
        return message.body
    }

    // MARK: Which options a message must have

    @Test("Which options a message must have, and beside which others")
    func mandatory() {
        typealias Own = Self
        for (type, code, options, expected) in [
            (.bind, 0, [Own.cookie], nil),
            (.bind, 0, [Own.hoa], "Bind without COOKIE"),
            (.bind, 0, [Own.cookie, Own.hoa], nil),
            (.bind, 0, [Own.cookie, Own.hoa, Own.certID, Own.signature, Own.lifetime], nil),
            (.bind, 0, [Own.cookie, Own.hoa, Own.certID, Own.signature], "Bind without LIFETIME"),
            (.bind, 0, [Own.cookie, Own.certID, Own.signature, Own.lifetime], "Bind without HOA"),
            (.bind, 0, [Own.cookie, Own.hoa, Own.signature, Own.lifetime], "Bind without CERTIFICATE"),
            (.bindAck, 0, [Own.cookie], "Bind Ack without XOBSERVED"),
            (.bindAck, 0, [Own.cookie, Own.observed], nil),
            (.bindAck, 0, [Own.cookie, Own.observed, Own.hoa, Own.lifetime, Own.role], nil),
            (.bindAck, 0, [Own.cookie, Own.observed, Own.hoa, Own.role], "Bind Ack without LIFETIME"),
            (.bindAck, 0, [Own.cookie, Own.observed, Own.hoa, Own.lifetime], "Bind Ack without ROLE"),
            (.bindAck, 2, [Own.cookie], "Bind Ack without XOBSERVED"),
            (.bindAck, 4, [Own.cookie, Own.observed, Own.hoa], nil),
            (.bindAck, 3, [Own.cookie], nil), (.bindAck, 9, [Own.cookie], nil), (.bindAck, 10, [Own.cookie], nil),
            (.pathProbe, 0, [Own.cookie, Own.hoa], "Path Probe without PEER-HOA"),
            (.pathProbe, 0, [Own.cookie, Own.peerHoA], "Path Probe without HOA"),
            (.pathProbe, 0, [Own.cookie, Own.hoa, Own.peerHoA], nil),
            (.pathProbe, 0, [Own.cookie, Own.hoa, Own.peerHoA, Own.challenge], nil),
            (.pathProbe, 0, [Own.cookie, Own.hoa, Own.peerHoA, Own.challenge, Own.signature, Own.certID], nil),
            (.pathProbe, 0, [Own.cookie, Own.hoa, Own.peerHoA, Own.challenge, Own.signature], "Path Probe without CERTIFICATE"),
            (.pathProbe, 0, [Own.cookie, Own.hoa, Own.peerHoA, Own.signature, Own.certID], "Path Probe without CHALLENGE"),
            (.pathAnswer, 0, [Own.cookie], "Path Answer without HOA"),
            (.pathAnswer, 0, [Own.cookie, Own.hoa], nil),
            (.pathAnswer, 0, [Own.cookie, Own.hoa, Own.observed, Own.signature], nil),
            (.pathAnswer, 0, [Own.cookie, Own.hoa, Own.signature], "Path Answer without XOBSERVED"),
            (.pathAnswer, 9, [Own.cookie], nil),
            (.pathAnswer, 4, [Own.cookie], "Path Answer without HOA"),
        ] as [(MessageType, UInt8, [[UInt8]], String?)] {
            let octets = Self.message(type, code: code, options)
            #expect(fault(octets) == expected)
            // The order is free.
            let reversed = Self.message(type, code: code, options.reversed())
            #expect(fault(reversed) == expected, "reversed")
        }
    }

    @Test("A request of these types that is malformed is answered with code 3, a response never")
    func answered() {
        for type in MessageType.allCases where type.rawValue > 10 {
            let octets = Self.message(type, [Self.cookie, Self.option(9, [1])])
            guard case .rejected(let rejection)? = SignalDatagram.decode(octets).last else { return #expect(Bool(false), "\(type)") }
            #expect(rejection.answerCode == (type.isRequest ? .malformed : nil))
        }
    }

    // MARK: Values

    @Test("What is wrong with an option of section 11")
    func options() throws {
        typealias Own = Self
        let bad = try ["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.0.1", "255.255.255.255", "::", "::1", "fe80::1", "ff02::1"].map {
            try #require(IPAddress($0))
        }
        for address in bad {
            let octets = address.octets
            #expect(fault(Own.message(.bindAck, [Own.cookie, Own.masked(Endpoint(address, port: 1))]))?.hasPrefix("XOBSERVED is \(address)") == true)
            #expect(fault(Own.message(.bindAck, [Own.masked(Endpoint(address, port: 1)), Own.cookie]))?.hasPrefix("XOBSERVED is \(address)") == true)
            let candidates = Own.option(0x13, Own.own.octets + [0, 1, 0, 0] + octets + [0, 1, 0, 0])
            #expect(fault(Own.message(.pathProbe, [Own.cookie, Own.hoa, Own.peerHoA, candidates]))?.hasPrefix("CANDIDATES is \(address)") == true)
            let proof = Own.option(0x15, octets + [UInt8](repeating: 0, count: 28))
            #expect(fault(Own.message(.bind, [Own.cookie, proof]))?.hasPrefix("ENDPOINT-PROOF is \(address)") == true)
        }
        let candidate = Own.own.octets + [0x18, 0x91, 10, 0]
        for (option, expected) in [
            (Own.masked(Endpoint(Own.own, port: 1), rest: [0, 1]), "XOBSERVED has reserved octets that are not zero"),
            (Own.option(0x10, [UInt8](repeating: 1, count: 16)), "XOBSERVED of 16 octets, not 20"),
            (Own.option(0x11, [UInt8](repeating: 1, count: 8)), "CHALLENGE of 8 octets, not 24"),
            (Own.option(0x12, [UInt8](repeating: 1, count: 60)), "PATH-SIGNATURE of 60 octets, not 64"),
            (Own.option(0x13, []), "CANDIDATES of 0 octets, not 20 and up to 7 times 20"),
            (Own.option(0x13, Array(candidate.dropLast(4))), "CANDIDATES of 16 octets, not 20 and up to 7 times 20"),
            (Own.option(0x13, (0..<9).flatMap { _ in candidate }), "CANDIDATES of 180 octets, not 20 and up to 7 times 20"),
            (Own.option(0x13, candidate + candidate.dropLast() + [1]), "CANDIDATES has reserved octets that are not zero"),
            (Own.option(0x13, (0..<8).flatMap { _ in candidate }), nil),
            (Own.option(0x14, [0, 0]), "ROLE of 2 octets, not 4"),
            (Own.option(0x14, [0x80, 0, 0, 0]), nil),
            (
                Own.option(0x15, Own.own.octets + [0, 1, 0, 1] + [UInt8](repeating: 0, count: 24)),
                "ENDPOINT-PROOF has reserved octets that are not zero"
            ),
            (Own.option(0x15, Own.own.octets + [UInt8](repeating: 0, count: 24)), "ENDPOINT-PROOF of 40 octets, not 44"),
            (Own.challenge + Own.challenge, "CHALLENGE stands twice"),
        ] as [([UInt8], String?)] {
            #expect(fault(Own.message(.pathProbe, [Own.cookie, Own.hoa, Own.peerHoA, option])) == expected)
        }
        let proof = Own.option(0x15, Own.own.octets + [0, 1, 0, 0] + [UInt8](repeating: 0, count: 24))
        #expect(fault(Own.message(.bind, [Own.cookie, proof, proof])) == nil, "one for each endpoint")
    }

    @Test("Bits of ROLE that have no name are ignored")
    func role() throws {
        let octets = Self.message(.bindAck, [Self.cookie, Self.observed, Self.hoa, Self.lifetime, Self.option(0x14, [0xFF, 0, 0, 0x05])])
        guard case .bindAck(let ack) = try body(octets) else { return #expect(Bool(false)) }
        let role = try #require(ack.granted?.role)
        #expect(role.contains(.relay) && role.contains(.translatingGateway) && !role.contains(.gateway))
    }

    @Test("What is no message is no signalling: types from 0x40 on are those of packets")
    func types() {
        #expect(MessageType.allCases.allSatisfy { $0.rawValue < 0x40 })
        for first in UInt8(0x40)...0xFF {
            guard
                case .rejected(let rejection)? = SignalDatagram.decode([first] + Self.message(.bind, [Self.cookie]).dropFirst(), isInPath: true).first
            else { return #expect(Bool(false), "\(first)") }
            #expect(rejection.answerCode == nil && rejection.type == nil)
        }
    }

    // MARK: Round trips

    @Test("Whatever is put into the new messages comes out of their octets")
    func roundTrips() throws {
        var random = SplitMix(state: 11)
        func endpoint() -> Endpoint {
            let address =
                Bool.random(using: &random)
                ? IPAddress(ipv4: UInt32.random(in: 0x0B00_0000...0x0BFF_FFFF, using: &random))
                : IPAddress(high: 0x2001_0DB8_0000_0000 | UInt64.random(in: 0...0xFFFF, using: &random), low: random.next())
            return Endpoint(address, port: .random(in: 1...UInt16.max, using: &random))
        }
        func home() -> HomeAddress { HomeAddress(endpoint().address) }
        func cookie() -> Cookie {
            Cookie(client: random.next(), server: Bool.random(using: &random) ? ServerCookie(head: random.next(), hash: random.next()) : nil)
        }
        func challenge() -> Challenge { Challenge(client: random.next(), server: ServerCookie(head: random.next(), hash: random.next())) }
        func signature() throws -> Signature { try #require(Signature((0..<64).map { _ in UInt8.random(in: 0...255, using: &random) })) }
        func proof() throws -> PathProof { PathProof(certificate: .id(CertificateID(rawValue: random.next())), signature: try signature()) }
        func some<Value>(_ value: Value) -> Value? { Bool.random(using: &random) ? value : nil }
        let codes: [ResponseCode] = [.ok, .notFound, .notAuthoritative, .tryLater, .cookieRequired]
        for number in 0..<2000 {
            let code = try #require(codes.randomElement(using: &random))
            let body: SignalMessage.Body
            switch number % 4 {
            case 0:
                let wishes: [Bind.Wish] = [.ask, .refresh(home()), .bind(home(), try proof(), lifetime: .random(in: 0...600, using: &random))]
                body = .bind(
                    Bind(
                        cookie: cookie(), try #require(wishes.randomElement(using: &random)),
                        padding: some(4 * Int.random(in: 0...50, using: &random))))
            case 1:
                let grant = BindAck.Grant(
                    home(), lifetime: .random(in: 0...600, using: &random), role: ServerRole(rawValue: UInt32.random(in: 0...7, using: &random)))
                body = .bindAck(
                    BindAck(
                        code: code, cookie: cookie(), observed: endpoint(), granted: code == .ok ? some(grant) : nil,
                        lifetime: code == .tryLater ? 3 : nil, text: some("why not")))
            case 2:
                let isInPath = Bool.random(using: &random)
                let candidates = (0..<Int.random(in: 0...Candidate.countMax, using: &random)).map { Candidate(endpoint(), preference: UInt8($0)) }
                body = .pathProbe(
                    PathProbe(
                        cookie: cookie(), hoa: home(), peerHoA: home(), challenge: isInPath ? nil : challenge(),
                        proof: isInPath ? nil : some(try proof()), candidates: isInPath ? candidates : []))
            default:
                let isInPath = Bool.random(using: &random)
                body = .pathAnswer(
                    PathAnswer(
                        code: code, cookie: cookie(), hoa: home(), observed: isInPath ? nil : endpoint(), signature: isInPath ? nil : try signature(),
                        text: some("no")))
            }
            let message = SignalMessage(sequence: UInt32(number), body)
            let octets = message.octets
            #expect(SignalDatagram.decode(octets) == [.message(message, octetsCount: octets.count)])
        }
    }

    @Test("The mask of XOBSERVED hides the address, whatever the client cookie, and taking it off twice is putting it on")
    func mask() throws {
        var random = SplitMix(state: 5)
        for _ in 0..<500 {
            let (client, endpoint) = (
                random.next(), Endpoint(IPAddress(high: random.next(), low: random.next()), port: UInt16(truncatingIfNeeded: random.next()))
            )
            #expect(XObserved(endpoint, under: client).endpoint(under: client) == endpoint)
            #expect(XObserved(endpoint, under: client).endpoint(under: client ^ 1) != endpoint)
        }
    }
}

/// Random numbers that a seed repeats (Steele, Lea and Flood's SplitMix64).
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

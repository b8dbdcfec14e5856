import MATSignal
import Testing

/// What the vectors of section 12 mean: what is signed, who could have, and what a token's text holds.
@Suite("Vectors of joining")
struct JoinVectorTests {
    private let vectors = Vectors.shared
    private let node: SigningKey
    private let ims: SigningKey

    init() throws {
        node = try #require(vectors.keys["nodeSeed"].flatMap { SigningKey(seed: $0) })
        ims = try #require(vectors.keys["imsSeed"].flatMap { SigningKey(seed: $0) })
    }

    private func body(_ name: String) throws -> SignalMessage.Body {
        let parts = SignalDatagram.decode(try vectors.named(name))
        guard case .message(let message, _)? = parts.first else { throw SignalError.malformed("\(name): \(parts)") }
        return message.body
    }

    private func token() throws -> JoinToken { try JoinToken.parse(String(decoding: try vectors.named("join.token.text"), as: UTF8.self)) }

    private func home(_ world: String) throws -> HomeAddress { try #require(HomeAddress(world == "path4" ? "192.0.2.1" : "2001:db8:1::1")) }

    @Test("A Join by token is signed with its own key and proven with the token, over the octets of the vector", arguments: ["path4", "path6"])
    func byToken(world: String) throws {
        guard case .join(let join) = try body("\(world).join"), case .token(let proof) = join.title else {
            Issue.record("not a Join by token")
            return
        }
        let token = try token()
        let statement = try #require(join.statement(to: token.server))
        #expect(try statement.octets == vectors.named("\(world).join.octets.value"))
        #expect(join.key == node.publicKey && token.server == ims.publicKey)
        let wanted = IPPrefix(try home(world).address)
        #expect(join.wanted == wanted && join.lifetime == 31_536_000)
        #expect(statement.isSigned(join.signature))
        #expect(proof.token == token.id && proof.isValid(token.secret, over: statement))
        // Made again, both are the same.
        #expect(statement.signed(with: node) == join.signature && TokenProof(of: token, over: statement) == proof)
        // For another server, with another wish, with another secret, they are worth nothing.
        let elsewhere = try #require(join.statement(to: node.publicKey))
        #expect(!elsewhere.isSigned(join.signature) && !proof.isValid(token.secret, over: elsewhere))
        var other = statement
        other.wanted = nil
        #expect(!other.isSigned(join.signature) && !proof.isValid(token.secret, over: other))
        #expect(!proof.isValid(try #require(TokenSecret(node.publicKey.octets)), over: statement))
    }

    @Test("A visitor's Join names its home and the certificate there, whose key is the one that signs", arguments: ["path4", "path6"])
    func byVisitor(world: String) throws {
        guard case .join(let join) = try body("\(world).join.visitor"), case .visitor(let hoa, let certificate) = join.title else {
            Issue.record("not a visitor's Join")
            return
        }
        #expect(try hoa == home(world) && certificate.hoa == hoa && certificate.nodeKey == join.key)
        #expect(join.wanted == nil && join.lifetime == 86_400)
        #expect(try #require(join.statement(to: ims.publicKey)).isSigned(join.signature))
    }

    @Test("A Join Reply gives an HoA, its certificate and how long it is good", arguments: ["path4", "path6"])
    func reply(world: String) throws {
        guard case .joinReply(let reply) = try body("\(world).joinReply"), let granted = reply.granted else {
            Issue.record("not a Join Reply that grants")
            return
        }
        #expect(try granted.hoa == home(world) && granted.certificate.hoa == granted.hoa && granted.certificate.nodeKey == node.publicKey)
        #expect(granted.lifetime > 0)
    }

    @Test("A Join must have a token's proof or a home with its certificate, and a Join Reply ok all that it gives")
    func grammar() throws {
        guard case .join(let join) = try body("path4.join"), case .joinReply(let reply) = try body("path4.joinReply") else { return }
        func refuse(_ octets: [UInt8], _ text: String) {
            guard case .rejected(let rejection)? = SignalDatagram.decode(octets).first else {
                Issue.record("taken, though \(text)")
                return
            }
            #expect("\(rejection.error)".contains(text), "\(rejection.error)")
        }
        let octets = SignalMessage(sequence: 1, .join(join)).octets
        // TOKEN-PROOF under a kind that nobody knows.
        var withoutTitle = octets
        let proof = try #require(octets.indices.first { octets[$0...].starts(with: [0x00, 0x17, 0x00, 0x28]) })
        withoutTitle[proof] = 0x7F
        refuse(withoutTitle, "Join without HOA")
        var withoutCertificate = SignalMessage(sequence: 1, .joinReply(reply)).octets
        let certificate = try #require(withoutCertificate.indices.first { withoutCertificate[$0...].starts(with: [0x00, 0x08, 0x00, 0x8C]) })
        withoutCertificate[certificate] = 0x7F
        refuse(withoutCertificate, "Join Reply without CERTIFICATE")
        var wanted = octets
        let place = try #require(octets.indices.first { octets[$0...].starts(with: [0x00, 0x18, 0x00, 0x14]) })
        wanted[place + 4 + 16] = 127
        refuse(wanted, "WANTED: address 192.0.2.1 does not fit prefix length 127")
        // Where a record could stand, a signature alone is still none.
        guard case .imsUpdate(let update) = try body("v4.imsUpdate") else { return }
        var alone = SignalMessage(sequence: 1, .imsUpdate(update)).octets
        let mapping = try #require(alone.indices.first { alone[$0...].starts(with: [0x00, 0x06]) })
        alone[mapping] = 0x7F
        refuse(alone, "does not follow a MAPPING")
    }

    @Test("A token's text is read to the octet, written as it was, and what is wrong in one is said")
    func text() throws {
        let text = String(decoding: try vectors.named("join.token.text"), as: UTF8.self)
        let token = try token()
        #expect(token.text == text && token.host == "ims1.example.net" && token.port == 6288)
        #expect(token.id.description == "746f6b656e2d6964" && TokenID(token.id.description) == token.id)
        let literal = JoinToken(host: "2001:db8:53::1", port: 7000, id: token.id, secret: token.secret, server: token.server)
        #expect(literal.text.hasPrefix("mat-join:[2001:db8:53::1]:7000:"))
        #expect(try JoinToken.parse(literal.text) == literal)
        let last = text.split(separator: ":").last.map(String.init) ?? ""
        for (wrong, reason) in [
            ("join:x:\(last)", "begins with"), ("mat-join:", "no \":\" behind the host"), ("mat-join::\(last)", "names no host"),
            ("mat-join:a:0:\(last)", "not a port"), ("mat-join:a:65536:\(last)", "not a port"),
            ("mat-join:2001:db8::1:\(last)", "in brackets"), ("mat-join:[192.0.2.1]:\(last)", "not an IPv6 address"),
            ("mat-join:[2001:db8::1:\(last)", "no \"]\""), ("mat-join:[2001:db8::1]x:\(last)", "behind the brackets"),
            ("mat-join:a:\(last.dropLast())", "base64url"), ("mat-join:a:\(last)=", "base64url"), ("mat-join:a:\(last.dropLast(3))+/=", "base64url"),
        ] {
            let error = #expect(throws: JoinToken.Malformed.self) { try JoinToken.parse(wrong) }
            #expect(error?.description.contains(reason) == true, "\(wrong): \(error?.description ?? "")")
        }
    }
}

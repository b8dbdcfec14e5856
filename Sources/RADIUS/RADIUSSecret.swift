import Crypto

/// What client and server share, and what is made with it.
///
/// - A request for access carries a Message-Authenticator (RFC 3579 section 3.2): HMAC-MD5 over the packet. It stands first, and an answer
///   without one is not believed: MD5 alone, of the Response Authenticator, is forged within minutes by who can put text of his own into the
///   request and stands between (the BlastRADIUS attack, CVE-2024-3596).
/// - A request to account has the MD5 of the packet and the secret as its authenticator (RFC 2866 section 3). Nothing in its answer is of use
///   to who forges it but that it came.
package struct RADIUSSecret: Hashable, Sendable {
    /// What servers take at least without complaint, and at most.
    package static let octetsRange = 1...128

    private let octets: [UInt8]

    /// - Returns: `nil` if it is empty or too long.
    package init?(_ octets: [UInt8]) {
        guard Self.octetsRange.contains(octets.count) else { return nil }
        self.octets = octets
    }

    // MARK: Requests

    /// - Parameter authenticator: 16 octets that nobody can guess.
    package func accessRequest(identifier: UInt8, authenticator: [UInt8], _ attributes: [RADIUSAttribute]) -> [UInt8] {
        let zeros = RADIUSAttribute(RADIUSAttribute.Kind.messageAuthenticator, [UInt8](repeating: 0, count: 16))
        let hidden = attributes.map { attribute in
            attribute.kind == RADIUSAttribute.Kind.userPassword ? RADIUSAttribute(attribute.kind, hide(attribute.value, authenticator)) : attribute
        }
        var packet = RADIUSPacket(.accessRequest, identifier: identifier, authenticator: authenticator, [zeros] + hidden)
        packet.attributes[0].value = mac(packet.octets)
        return packet.octets
    }

    package func accountingRequest(identifier: UInt8, _ attributes: [RADIUSAttribute]) -> (octets: [UInt8], authenticator: [UInt8]) {
        var packet = RADIUSPacket(
            .accountingRequest, identifier: identifier, authenticator: [UInt8](repeating: 0, count: RADIUSPacket.authenticatorOctets), attributes)
        packet.authenticator = md5(packet.octets + octets)
        return (packet.octets, packet.authenticator)
    }

    /// User-Password (RFC 2865 section 5.2): of up to 128 octets, in steps of 16.
    private func hide(_ password: [UInt8], _ authenticator: [UInt8]) -> [UInt8] {
        var before = authenticator
        var hidden: [UInt8] = []
        var rest = password.prefix(128)
        repeat {
            let block = Array(rest.prefix(16)) + [UInt8](repeating: 0, count: max(0, 16 - rest.count))
            before = zip(md5(octets + before), block).map { $0 ^ $1 }
            hidden += before
            rest = rest.dropFirst(16)
        } while !rest.isEmpty
        return hidden
    }

    // MARK: Answers

    /// Why an answer is not its server's.
    package enum Doubt: Hashable, Sendable {
        case authenticator
        case messageAuthenticator
        case noMessageAuthenticator
    }

    /// Whether an answer is by who knows the secret, to this request.
    ///
    /// - Parameters:
    ///   - octets: as it came.
    ///   - authenticator: the request's.
    package func doubt(_ answer: RADIUSPacket, _ octets: [UInt8], to authenticator: [UInt8]) -> Doubt? {
        // As it was sent, but for padding.
        var asked = answer
        asked.authenticator = authenticator
        guard Self.isSame(md5(asked.octets + self.octets), answer.authenticator) else { return .authenticator }
        guard answer.code != .accountingResponse else { return nil }
        let places = answer.attributes.indices.filter { answer.attributes[$0].kind == RADIUSAttribute.Kind.messageAuthenticator }
        guard let place = places.first else { return .noMessageAuthenticator }
        let given = answer.attributes[place].value
        guard places.count == 1, given.count == 16 else { return .messageAuthenticator }
        asked.attributes[place].value = [UInt8](repeating: 0, count: 16)
        return Self.isSame(mac(asked.octets), given) ? nil : .messageAuthenticator
    }

    // MARK: For servers, that is for tests

    package func answer(_ code: RADIUSPacket.Code, to request: RADIUSPacket, _ attributes: [RADIUSAttribute], isSigned: Bool = true) -> [UInt8] {
        var packet = RADIUSPacket(code, identifier: request.identifier, authenticator: request.authenticator, attributes)
        if isSigned, code != .accountingResponse {
            packet.attributes.insert(RADIUSAttribute(RADIUSAttribute.Kind.messageAuthenticator, [UInt8](repeating: 0, count: 16)), at: 0)
            packet.attributes[0].value = mac(packet.octets)
        }
        packet.authenticator = md5(packet.octets + octets)
        return packet.octets
    }

    // MARK: Hashes

    private func md5(_ octets: [UInt8]) -> [UInt8] { Array(Insecure.MD5.hash(data: octets)) }

    private func mac(_ octets: [UInt8]) -> [UInt8] {
        Array(HMAC<Insecure.MD5>.authenticationCode(for: octets, using: SymmetricKey(data: self.octets)))
    }

    /// In a time that does not depend on where they differ.
    private static func isSame(_ a: [UInt8], _ b: [UInt8]) -> Bool { a.count == b.count && zip(a, b).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0 }
}

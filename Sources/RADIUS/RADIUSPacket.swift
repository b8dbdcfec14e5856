/// A RADIUS packet (RFC 2865 section 3, RFC 2866 section 3).
///
/// ```
/// code 1 | identifier 1 | length 2 | authenticator 16 | attributes
/// ```
package struct RADIUSPacket: Hashable, Sendable {
    package enum Code: UInt8, Hashable, Sendable {
        case accessRequest = 1
        case accessAccept = 2
        case accessReject = 3
        case accountingRequest = 4
        case accountingResponse = 5
        case accessChallenge = 11
    }

    package static let headOctets = 20
    package static let authenticatorOctets = 16
    package static let octetsMax = 4096

    package var code: Code
    package var identifier: UInt8
    package var authenticator: [UInt8]
    package var attributes: [RADIUSAttribute]

    package init(_ code: Code, identifier: UInt8, authenticator: [UInt8], _ attributes: [RADIUSAttribute]) {
        self.code = code
        self.identifier = identifier
        self.authenticator = authenticator
        self.attributes = attributes
    }

    package var octets: [UInt8] {
        let rest = RADIUSAttribute.encode(attributes)
        let length = Self.headOctets + rest.count
        return [code.rawValue, identifier, UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length)] + authenticator + rest
    }

    /// What stands behind the length that it states is padding and left away; a packet that is shorter than that is none.
    ///
    /// - Returns: `nil` if it is none, or of a code that nothing here is about.
    package init?(decoding octets: [UInt8]) {
        guard octets.count >= Self.headOctets, let code = Code(rawValue: octets[0]) else { return nil }
        let length = Int(octets[2]) << 8 | Int(octets[3])
        guard length >= Self.headOctets, length <= Self.octetsMax, length <= octets.count,
            let attributes = RADIUSAttribute.decode(octets[Self.headOctets..<length])
        else { return nil }
        self.init(code, identifier: octets[1], authenticator: Array(octets[4..<Self.headOctets]), attributes)
    }
}

import MATSignal

/// An IMS's key, and certificates made with it.
public struct TestAuthority: Sendable {
    public let key: SigningKey

    /// - Parameter seed: another seed makes another key, the same the same.
    public init(seed: UInt8) { key = makeKey(seed) }

    public func certify(_ hoa: HomeAddress, _ node: PublicKey, notBefore: UInt64 = VirtualClock.wallAtStart - 1000, notAfter: UInt64? = nil)
        -> Certificate
    {
        let end = notAfter ?? notBefore + 365 * 86_400_000
        guard let certificate = Certificate(issuing: hoa, nodeKey: node, notBefore: notBefore, notAfter: end, with: key) else {
            preconditionFailure("the crypto library does not sign")
        }
        return certificate
    }

    /// The record that an IMS makes in the place of one that it revokes.
    public func revoke(_ hoa: HomeAddress, at time: UInt64) -> CertifiedMapping {
        let key = makeKey(250)
        let certificate = certify(hoa, key.publicKey, notBefore: time, notAfter: time + UInt64(MappingRecord.homeLifetimeMax) * 1000)
        return TestIdentity(hoa: hoa, key: key, certificate: certificate).record([], sequence: time, lifetime: MappingRecord.homeLifetimeMax)
    }

    /// A node of this IMS, with its key and certificate.
    public func enrol(_ hoa: HomeAddress, seed: UInt8) -> TestIdentity {
        let key = makeKey(seed)
        return TestIdentity(hoa: hoa, key: key, certificate: certify(hoa, key.publicKey))
    }
}

/// A node as others see it: it signs records.
public struct TestIdentity: Sendable {
    public let hoa: HomeAddress
    public var key: SigningKey
    public var certificate: Certificate

    public init(hoa: HomeAddress, key: SigningKey, certificate: Certificate) {
        self.hoa = hoa
        self.key = key
        self.certificate = certificate
    }

    /// - Parameter issued: Unix time in ms; the sequence unless that is given.
    public func record(_ moas: [IPAddress], sequence: UInt64, lifetime: UInt32 = 600, issued: UInt64? = nil) -> CertifiedMapping {
        let locators = moas.enumerated().map { Locator(MobileAddress($1), preference: UInt8(clamping: $0)) }
        let record = MappingRecord(hoa: hoa, sequence: sequence, lifetime: lifetime, issued: issued ?? sequence, locators: locators)
        guard let mapping = record.signed(with: key) else { preconditionFailure("the crypto library does not sign") }
        return CertifiedMapping(mapping: mapping, certificate: certificate)
    }
}

/// The same key for the same seed.
public func makeKey(_ seed: UInt8) -> SigningKey {
    guard let key = SigningKey(seed: [UInt8](repeating: seed, count: 32)) else { preconditionFailure("32 octets are a seed") }
    return key
}

/// An address written in a test; a mistyped one stops the test.
public func ip(_ text: String) -> IPAddress {
    guard let address = IPAddress(text) else { preconditionFailure("\(text) is no address") }
    return address
}

public func home(_ text: String) -> HomeAddress { HomeAddress(ip(text)) }

public func moa(_ text: String) -> MobileAddress { MobileAddress(ip(text)) }

public func prefix(_ text: String) -> IPPrefix {
    guard let prefix = IPPrefix(text) else { preconditionFailure("\(text) is no prefix") }
    return prefix
}

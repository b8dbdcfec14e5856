import Crypto

/// An Ed25519 signature (RFC 8032), 64 octets.
public struct Signature: Hashable, Sendable {
    public static let octetsCount = 64
    private let value: Octets64

    /// - Returns: `nil` unless there are 64 octets.
    public init?(_ octets: [UInt8]) {
        guard let value = Octets64(octets) else { return nil }
        self.value = value
    }

    /// The same of octets in place, without an array.
    ///
    /// - Returns: `nil` unless there are 64 octets.
    public init?(_ octets: UnsafeRawBufferPointer) {
        guard let value = Octets64(octets) else { return nil }
        self.value = value
    }

    public var octets: [UInt8] { value.octets }

    func encode(into writer: inout SignalWriter) { value.withUnsafeOctets { writer.bytes($0) } }
}

/// An Ed25519 public key, 32 octets.
public struct PublicKey: Hashable, Sendable {
    public static let octetsCount = 32
    private let value: Octets32

    /// - Returns: `nil` unless there are 32 octets.
    public init?(_ octets: [UInt8]) {
        guard let value = Octets32(octets) else { return nil }
        self.value = value
    }

    /// The same of octets in place, without an array: a store of a million mappings has as many.
    ///
    /// - Returns: `nil` unless there are 32 octets.
    public init?(_ octets: UnsafeRawBufferPointer) {
        guard let value = Octets32(octets) else { return nil }
        self.value = value
    }

    public var octets: [UInt8] { value.octets }

    func encode(into writer: inout SignalWriter) { value.withUnsafeOctets { writer.bytes($0) } }

    /// The first 8 octets of the key's SHA-256: IMS key id in certificates.
    public var id: UInt64 { sha256Prefix(octets) }

    public func isValid(_ signature: Signature, over message: [UInt8]) -> Bool {
        guard let key = try? Curve25519.Signing.PublicKey(rawRepresentation: octets) else { return false }
        return key.isValidSignature(signature.octets, for: message)
    }
}

/// An Ed25519 private key, from its 32-octet seed (RFC 8032).
public struct SigningKey: Sendable {
    private let key: Curve25519.Signing.PrivateKey
    public let publicKey: PublicKey

    /// - Returns: `nil` unless there are 32 octets.
    public init?(seed: [UInt8]) {
        guard let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: seed),
            let publicKey = PublicKey(Array(key.publicKey.rawRepresentation))
        else { return nil }
        self.key = key
        self.publicKey = publicKey
    }

    public var seed: [UInt8] { Array(key.rawRepresentation) }

    /// - Returns: `nil` only if the crypto library fails, which for Ed25519 it has no cause to.
    public func sign(_ message: [UInt8]) -> Signature? {
        guard let octets = try? key.signature(for: message) else { return nil }
        return Signature(Array(octets))
    }
}

/// The first 8 octets of SHA-256 as a big-endian number: how certificates and keys are named.
func sha256Prefix(_ octets: [UInt8]) -> UInt64 {
    octets.withUnsafeBytes { sha256Prefix($0) }
}

func sha256Prefix(_ octets: UnsafeRawBufferPointer) -> UInt64 {
    var hasher = SHA256()
    hasher.update(bufferPointer: octets)
    return hasher.finalize().withUnsafeBytes { UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)) }
}

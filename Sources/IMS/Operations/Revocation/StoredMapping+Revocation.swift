import IMSCore
import MATSignal
import MappingMemory

extension StoredMapping {
    /// A revocation made where the signing key is, for a server that does not have it.
    ///
    /// - Returns: `nil` if the crypto library fails.
    public static func revocation(of prefix: IPPrefix, signedBy issuer: SigningKey, now: Now) -> StoredMapping? {
        var generator = SystemRandomNumberGenerator()
        let seed = (0..<4).flatMap { _ in withUnsafeBytes(of: generator.next()) { Array($0) } }
        return Tombstone.make(of: prefix, notBefore: now.wallMilliseconds, seed: seed, signedBy: issuer).map { .revocation($0) }
    }
}

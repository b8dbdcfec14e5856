import MATSignal
import MappingMemory
import Testing

func address(_ text: String) -> IPAddress { IPAddress(text) ?? .unspecifiedIPv6 }

/// A node with a key, its certificate, and records signed with the key.
struct TestNode: Sendable {
    let hoa: HomeAddress
    let key: SigningKey
    let certificate: Certificate

    init(_ hoa: String, seed: UInt8 = 1, notBefore: UInt64 = 1_790_000_000_000) throws {
        self.hoa = HomeAddress(address(hoa))
        key = try #require(SigningKey(seed: [UInt8](repeating: seed, count: 32)))
        let issuer = try #require(SigningKey(seed: [UInt8](repeating: 200, count: 32)))
        certificate = try #require(
            Certificate(
                issuing: self.hoa, prefixLength: 128, nodeKey: key.publicKey, notBefore: notBefore,
                notAfter: notBefore + 86_400_000,
                with: issuer))
    }

    func certified(_ sequence: UInt64, at moa: String = "198.51.100.1") throws -> CertifiedMapping {
        let record = MappingRecord(
            hoa: hoa, prefixLength: 128, sequence: sequence, lifetime: 600, issued: sequence,
            locators: [Locator(MobileAddress(address(moa)), prefixLength: 128)])
        return CertifiedMapping(mapping: try #require(record.signed(with: key)), certificate: certificate)
    }

    func stored(_ sequence: UInt64, at moa: String = "198.51.100.1") throws -> StoredMapping {
        StoredMapping(
            certified: try certified(sequence, at: moa), source: Endpoint(address(moa), port: SignalPort.node),
            local: address("203.0.113.1"),
            provenAt: sequence)
    }
}

import MATSignal
import Testing

@testable import MappingMemory

func address(_ text: String) -> IPAddress { IPAddress(text) ?? .unspecifiedIPv6 }

/// Mappings whose signatures nobody checks: the table does not, and signing 200,000 takes seconds.
enum Population {
    static let server = IPAddress(ipv4: 0xCB00_7101)
    static let signature = Signature([UInt8](repeating: 0x5A, count: 64))

    static func hoa(_ number: Int) -> IPAddress { IPAddress(high: 0x2001_0db8_0010_0000, low: UInt64(number) + 1) }
    static func moa(_ number: Int) -> IPAddress { IPAddress(high: 0x2001_0db8_00aa_0000, low: UInt64(number) + 1) }

    /// Of which each mapping has a copy with its own home address.
    static func certificate() throws -> Certificate {
        let issuer = try #require(SigningKey(seed: [UInt8](repeating: 200, count: 32)))
        let node = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        return try #require(
            Certificate(
                issuing: HomeAddress(hoa(0)), prefixLength: 128, nodeKey: node.publicKey, notBefore: 1_790_000_000_000,
                notAfter: 1_790_086_400_000, with: issuer))
    }

    static func mapping(
        _ hoa: IPAddress, length: UInt8 = 128, at moas: [IPAddress], sequence: UInt64 = 1, provenAt: UInt64 = 1,
        certificate template: Certificate
    ) throws -> StoredMapping {
        var octets = template.octets
        octets.replaceSubrange(0..<16, with: hoa.octets)
        octets[16] = length
        let record = MappingRecord(
            hoa: HomeAddress(hoa), prefixLength: length, sequence: sequence, lifetime: 600, issued: sequence,
            locators: moas.map { Locator(MobileAddress($0), prefixLength: length) })
        let certified = CertifiedMapping(
            mapping: SignedMapping(record: record, signature: try #require(signature)), certificate: try Certificate(octets: octets))
        return StoredMapping(
            certified: certified, source: Endpoint(moas.first ?? hoa, port: 6289), local: Population.server, provenAt: provenAt)
    }
}

/// One mapping's octets, of which parts are replaced for each of very many.
struct Stamp {
    private var record: [UInt8]
    private var certificate: [UInt8]
    private let signature = [UInt8](repeating: 0x5A, count: 64)

    init(_ mapping: StoredMapping) {
        record = mapping.record.octets
        certificate = mapping.certified.certificate.octets
    }

    /// Puts the mapping of this number, with one locator, into the table as the store's octets.
    ///
    /// - Returns: whether it is well-formed and the table had memory for it.
    @discardableResult
    mutating func put(_ number: Int, into table: MappingTable) -> Bool {
        func store(_ address: IPAddress, _ octets: inout [UInt8], _ offset: Int) {
            octets.withUnsafeMutableBytes {
                $0.storeBytes(of: address.high.bigEndian, toByteOffset: offset, as: UInt64.self)
                $0.storeBytes(of: address.low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
            }
        }
        store(Population.hoa(number), &record, 0)
        store(Population.moa(number), &record, 40)
        store(Population.hoa(number), &certificate, 0)
        return record.withUnsafeBytes { record in
            signature.withUnsafeBytes { signature in
                certificate.withUnsafeBytes { certificate in
                    guard
                        let packed = PackedMapping(
                            record: record, signature: signature, certificate: certificate,
                            source: Endpoint(Population.moa(number), port: 6289), local: Population.server, provenAt: 1),
                        let facts = packed.wellFormed
                    else { return false }
                    do throws(MemoryRefusal) {
                        try table.set(packed, expires: facts.expires)
                        return true
                    } catch {
                        return false
                    }
                }
            }
        }
    }
}

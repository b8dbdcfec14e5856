import MATSignal

/// Many mappings back to back in one block of octets, as a store hands them to the table: reading a million of them makes no
/// object for each, and the record, signature and certificate stand as they go on the wire.
///
/// ```
/// record length 2 | source port 2 | zero 4 | proven at 8 | source 16 | local 16 | record | signature 64 | certificate 140
/// ```
/// Numbers in the machine's own order: this never leaves the process.
public struct PackedMappings: Sendable {
    package static let headOctetsCount = 48
    /// The octets of a record without locators, and with as many as there can be.
    package static let recordOctets = 40...40 + 20 * MappingRecord.locatorsMax
    package static let certifiedOctetsCount = Signature.octetsCount + Certificate.octetsCount

    private var octets: [UInt8] = []
    public private(set) var count = 0

    public init() {}

    public var isEmpty: Bool { count == 0 }
    public var octetsCount: Int { octets.count }

    public mutating func reserve(octets count: Int) { octets.reserveCapacity(count) }

    /// - Returns: whether the parts have the lengths that such parts can have; otherwise nothing is added.
    @discardableResult
    public mutating func append(
        record: UnsafeRawBufferPointer, signature: UnsafeRawBufferPointer, certificate: UnsafeRawBufferPointer, source: Endpoint,
        local: IPAddress, provenAt: UInt64
    ) -> Bool {
        guard Self.recordOctets.contains(record.count), signature.count == Signature.octetsCount,
            certificate.count == Certificate.octetsCount
        else { return false }
        withUnsafeTemporaryAllocation(byteCount: Self.headOctetsCount, alignment: 8) { head in
            head.storeBytes(of: UInt16(truncatingIfNeeded: record.count), as: UInt16.self)
            head.storeBytes(of: source.port, toByteOffset: 2, as: UInt16.self)
            head.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
            head.storeBytes(of: provenAt, toByteOffset: 8, as: UInt64.self)
            head.storeBytes(of: source.address.high, toByteOffset: 16, as: UInt64.self)
            head.storeBytes(of: source.address.low, toByteOffset: 24, as: UInt64.self)
            head.storeBytes(of: local.high, toByteOffset: 32, as: UInt64.self)
            head.storeBytes(of: local.low, toByteOffset: 40, as: UInt64.self)
            octets.append(contentsOf: head)
        }
        octets.append(contentsOf: record)
        octets.append(contentsOf: signature)
        octets.append(contentsOf: certificate)
        count += 1
        return true
    }

    public mutating func append(_ mapping: StoredMapping) {
        let certified = mapping.certified
        certified.record.octets.withUnsafeBytes { record in
            certified.mapping.signature.octets.withUnsafeBytes { signature in
                certified.certificate.octets.withUnsafeBytes { certificate in
                    _ = append(
                        record: record, signature: signature, certificate: certificate, source: mapping.source, local: mapping.local,
                        provenAt: mapping.provenAt)
                }
            }
        }
    }

    /// Calls `body` with each mapping; its pointers hold during the call.
    public func forEach(_ body: (PackedMapping) -> Void) {
        octets.withUnsafeBytes { octets in
            var start = 0
            while start + Self.headOctetsCount <= octets.count {
                let head = UnsafeRawBufferPointer(rebasing: octets[start..<start + Self.headOctetsCount])
                let recordCount = Int(head.loadUnaligned(as: UInt16.self))
                let body0 = start + Self.headOctetsCount
                let end = body0 + recordCount + Self.certifiedOctetsCount
                // Only `append` fills this, so all parts are there.
                guard end <= octets.count else { return }
                let signatureStart = body0 + recordCount
                let certificateStart = signatureStart + Signature.octetsCount
                body(
                    PackedMapping(
                        record: UnsafeRawBufferPointer(rebasing: octets[body0..<signatureStart]),
                        signature: UnsafeRawBufferPointer(rebasing: octets[signatureStart..<certificateStart]),
                        certificate: UnsafeRawBufferPointer(rebasing: octets[certificateStart..<end]),
                        source: Endpoint(
                            IPAddress(
                                high: head.loadUnaligned(fromByteOffset: 16, as: UInt64.self),
                                low: head.loadUnaligned(fromByteOffset: 24, as: UInt64.self)),
                            port: head.loadUnaligned(fromByteOffset: 2, as: UInt16.self)),
                        local: IPAddress(
                            high: head.loadUnaligned(fromByteOffset: 32, as: UInt64.self),
                            low: head.loadUnaligned(fromByteOffset: 40, as: UInt64.self)),
                        provenAt: head.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
                start = end
            }
        }
    }

    /// All of them as values; `nil` stands for one whose octets can't be decoded.
    public var stored: [StoredMapping?] {
        var result: [StoredMapping?] = []
        forEach { result.append($0.stored) }
        return result
    }
}

/// One mapping of `PackedMappings`, in place.
public struct PackedMapping {
    /// The value of MAPPING, SIGNATURE and CERTIFICATE.
    public let record: UnsafeRawBufferPointer
    public let signature: UnsafeRawBufferPointer
    public let certificate: UnsafeRawBufferPointer
    public let source: Endpoint
    public let local: IPAddress
    /// Unix time in ms.
    public let provenAt: UInt64

    /// The mapping as a value; `nil` if its octets can't be decoded.
    public var stored: StoredMapping? {
        guard let record = try? MappingRecord(octets: Array(record)), let signature = Signature(Array(signature)),
            let certificate = try? Certificate(octets: Array(certificate))
        else { return nil }
        return StoredMapping(
            certified: CertifiedMapping(mapping: SignedMapping(record: record, signature: signature), certificate: certificate),
            source: source, local: local, provenAt: provenAt)
    }
}

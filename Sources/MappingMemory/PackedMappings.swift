import MATSignal

// What lies where: see the drawing below. All in one array, which nobody shares.
//
// Invariants: only `append` fills it, with whole mappings; what `forEach` hands out holds during the call.
//
// Why `unsafe` is right here: octets are cut into parts by lengths that are checked against what is there before each cut, and the parts
// hold while the array is borrowed.

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
    package static let recordOctets = MappingRecordView.headOctets...MappingRecordView.octetsMax
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
        unsafe withUnsafeTemporaryAllocation(byteCount: Self.headOctetsCount, alignment: 8) { head in
            unsafe head.storeBytes(of: UInt16(truncatingIfNeeded: record.count), as: UInt16.self)
            unsafe head.storeBytes(of: source.port, toByteOffset: 2, as: UInt16.self)
            unsafe head.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
            unsafe head.storeBytes(of: provenAt, toByteOffset: 8, as: UInt64.self)
            unsafe head.storeBytes(of: source.address.high, toByteOffset: 16, as: UInt64.self)
            unsafe head.storeBytes(of: source.address.low, toByteOffset: 24, as: UInt64.self)
            unsafe head.storeBytes(of: local.high, toByteOffset: 32, as: UInt64.self)
            unsafe head.storeBytes(of: local.low, toByteOffset: 40, as: UInt64.self)
            unsafe octets.append(contentsOf: head)
        }
        unsafe octets.append(contentsOf: record)
        unsafe octets.append(contentsOf: signature)
        unsafe octets.append(contentsOf: certificate)
        count += 1
        return true
    }

    public mutating func append(_ mapping: StoredMapping) {
        mapping.withPacked { packed in
            _ = unsafe append(
                record: packed.record, signature: packed.signature, certificate: packed.certificate, source: packed.source,
                local: packed.local, provenAt: packed.provenAt)
        }
    }

    /// Calls `body` with each mapping; its pointers hold during the call.
    public func forEach(_ body: (PackedMapping) -> Void) {
        unsafe octets.withUnsafeBytes { octets in
            var start = 0
            while start + Self.headOctetsCount <= octets.count {
                let head = unsafe UnsafeRawBufferPointer(rebasing: octets[start..<start + Self.headOctetsCount])
                let recordStart = start + Self.headOctetsCount
                let signatureStart = recordStart + Int(unsafe head.loadUnaligned(as: UInt16.self))
                let certificateStart = signatureStart + Signature.octetsCount
                let end = certificateStart + Certificate.octetsCount
                func word(_ offset: Int) -> UInt64 { unsafe head.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
                // Only `append` fills this, so all parts are there.
                guard end <= octets.count,
                    let packed = unsafe PackedMapping(
                        record: UnsafeRawBufferPointer(rebasing: octets[recordStart..<signatureStart]),
                        signature: UnsafeRawBufferPointer(rebasing: octets[signatureStart..<certificateStart]),
                        certificate: UnsafeRawBufferPointer(rebasing: octets[certificateStart..<end]),
                        source: Endpoint(IPAddress(high: word(16), low: word(24)), port: head.loadUnaligned(fromByteOffset: 2, as: UInt16.self)),
                        local: IPAddress(high: word(32), low: word(40)), provenAt: word(8))
                else { return }
                body(packed)
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

/// One mapping of `PackedMappings`, in place. Its parts have the lengths that such parts can have.
@safe
public struct PackedMapping {
    /// The value of MAPPING, SIGNATURE and CERTIFICATE.
    public let record: UnsafeRawBufferPointer
    public let signature: UnsafeRawBufferPointer
    public let certificate: UnsafeRawBufferPointer
    public let source: Endpoint
    public let local: IPAddress
    /// Unix time in ms.
    public let provenAt: UInt64

    /// - Returns: `nil` if a part has a length that it can't have.
    package init?(
        record: UnsafeRawBufferPointer, signature: UnsafeRawBufferPointer, certificate: UnsafeRawBufferPointer, source: Endpoint,
        local: IPAddress, provenAt: UInt64
    ) {
        guard PackedMappings.recordOctets.contains(record.count), signature.count == Signature.octetsCount,
            certificate.count == Certificate.octetsCount
        else { return nil }
        unsafe self.record = record
        unsafe self.signature = signature
        unsafe self.certificate = certificate
        self.source = source
        self.local = local
        self.provenAt = provenAt
    }

    var recordCount: Int { unsafe record.count }
    /// Whether it is a record with endpoints or relays (section 11.1).
    package var hasKinds: Bool { unsafe MappingRecordView(record).hasKinds }

    /// The mapping as a value; `nil` if its octets can't be decoded.
    public var stored: StoredMapping? {
        guard let record = try? unsafe MappingRecord(octets: record), let signature = unsafe Signature(signature),
            let certificate = try? unsafe Certificate(octets: certificate)
        else { return nil }
        return StoredMapping(
            certified: CertifiedMapping(mapping: SignedMapping(record: record, signature: signature), certificate: certificate),
            source: source, local: local, provenAt: provenAt)
    }
}

extension StoredMapping {
    /// Calls `body` with the mapping's octets in place.
    func withPacked<Outcome>(_ body: (PackedMapping) -> Outcome) -> Outcome {
        unsafe record.octets.withUnsafeBytes { record in
            unsafe certified.mapping.signature.octets.withUnsafeBytes { signature in
                unsafe certified.certificate.octets.withUnsafeBytes { certificate in
                    guard
                        let packed = unsafe PackedMapping(
                            record: record, signature: signature, certificate: certificate, source: source, local: local, provenAt: provenAt)
                    else { preconditionFailure("a value's octets have their lengths") }
                    return body(packed)
                }
            }
        }
    }
}

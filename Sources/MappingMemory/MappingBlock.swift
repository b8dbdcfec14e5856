import MATSignal

// What lies where: see the drawing below; a block is a piece of the arena of `units(recordOctets:)`.
//
// Invariants:
// - `write` fills all of it before its name is anywhere; from then on nobody changes it until the arena has it back.
// - Who has a `MappingBlock` is the table's writer, or a reader between `begin` and `end` (`ReaderEpochs`).
// - Its two counts are of one record, that of a `PackedMapping`, whose lengths were checked.
//
// Why `unsafe` is right here: a block is a piece of the arena of `units(recordOctets:)`, filled by `write` before anybody else sees it. All
// offsets are those that `write` wrote at, or follow from counts that it wrote; so all of them lie within the piece.

/// One mapping in the table's memory, never changed once it is in sight: a head, then the options as they go on the wire.
///
/// ```
///  0  HoA 16 | expires 8 (ms) | proven at 8 (ms) | source 16 | local 16
/// 64  CERT-ID 8 | source port 2 | octets of MAPPING and SIGNATURE 2 | HoA prefix length 1 | locators: count 1, octets of each 1 | zero 1
/// 80  MAPPING 4 + 40 + 20 or 24 x n | SIGNATURE 4 + 64 | CERTIFICATE 4 + 140
/// ```
/// With one or two locators these are 356 or 376 octets, so 384 in whole cache lines; with eight, 496 in 512, or 528 in 576. The head's
/// numbers are in the machine's order, the options in the network's.
@safe
package struct MappingBlock {
    // Computed, since another module reads a stored constant by a call.
    @inlinable package static var headOctets: Int { 80 }
    @inlinable package static var optionOctets: Int { 4 }
    @inlinable package static var recordOctetsMin: Int { 40 }
    @inlinable package static var certificateOptionOctets: Int { optionOctets + Certificate.octetsCount }
    static let signatureOptionOctets = optionOctets + Signature.octetsCount

    @usableFromInline let base: UnsafeRawPointer

    @inlinable @inline(__always)
    package init(_ base: UnsafeRawPointer) { unsafe self.base = base }

    @inlinable @inline(__always) func word(_ offset: Int) -> UInt64 { unsafe base.load(fromByteOffset: offset, as: UInt64.self) }

    @inlinable package var hoa: IPAddress { @inline(__always) get { IPAddress(high: word(0), low: word(8)) } }
    /// Unix time in ms.
    @inlinable package var expires: UInt64 { @inline(__always) get { word(16) } }
    /// Unix time in ms.
    package var provenAt: UInt64 { word(24) }
    package var source: Endpoint {
        Endpoint(IPAddress(high: word(32), low: word(40)), port: unsafe base.load(fromByteOffset: 72, as: UInt16.self))
    }
    package var local: IPAddress { IPAddress(high: word(48), low: word(56)) }
    @inlinable package var certificateID: UInt64 { @inline(__always) get { word(64) } }
    /// Octets of the options MAPPING and SIGNATURE; CERTIFICATE follows.
    @inlinable package var recordOptionsOctets: Int { @inline(__always) get { Int(unsafe base.load(fromByteOffset: 74, as: UInt16.self)) } }
    @inlinable package var prefixLength: UInt8 { @inline(__always) get { unsafe base.load(fromByteOffset: 76, as: UInt8.self) } }
    /// Locators of any kind.
    @inlinable package var locatorsCount: Int { @inline(__always) get { Int(unsafe base.load(fromByteOffset: 77, as: UInt8.self)) } }
    /// Octets of each of them.
    @inlinable var locatorOctets: Int { @inline(__always) get { Int(unsafe base.load(fromByteOffset: 78, as: UInt8.self)) } }
    package var prefix: IPPrefix { IPPrefix(covering: hoa, length: prefixLength) }

    /// The options as they go on the wire.
    @inlinable package var options: UnsafeRawPointer { @inline(__always) get { unsafe base + Self.headOctets } }
    var certificateOctets: UnsafeRawPointer { unsafe options + recordOptionsOctets + Self.optionOctets }

    @inlinable @inline(__always)
    package func isOf(_ address: IPAddress, _ length: UInt8) -> Bool {
        word(8) == address.low && word(0) == address.high && prefixLength == length
    }

    // MARK: Fields within the options, in the network's order

    @inlinable @inline(__always)
    func bigEndian(_ place: UnsafeRawPointer) -> UInt64 { UInt64(bigEndian: unsafe place.loadUnaligned(as: UInt64.self)) }

    @inlinable var record: UnsafeRawPointer { unsafe options + Self.optionOctets }

    /// `nil` only if there are not 32 octets of a key, and there always are.
    package var version: RecordVersion? {
        let place = Certificate.nodeKeyPlace
        guard let nodeKey = unsafe PublicKey(UnsafeRawBufferPointer(start: certificateOctets + place.lowerBound, count: place.count)) else {
            return nil
        }
        return RecordVersion(nodeKey: nodeKey, notBefore: notBefore, sequence: unsafe bigEndian(record + 20))
    }
    /// Of the certificate, Unix time in ms.
    package var notBefore: UInt64 { unsafe bigEndian(certificateOctets + 20) }

    /// Likewise.
    package var notAfter: UInt64 { unsafe bigEndian(certificateOctets + 28) }
    /// The id of the IMS key that signed the certificate.
    package var issuerID: UInt64 { unsafe bigEndian(certificateOctets + 68) }

    /// As `StoredMapping.isRevocation`.
    package var isRevocation: Bool { locatorsCount == 0 && source == StoredMapping.tombstoneSource }

    /// Whether a MoA or MoPre is exactly this prefix.
    @inlinable @inline(__always)
    package func lists(_ address: IPAddress, _ length: UInt8) -> Bool {
        for index in 0..<locatorsCount {
            let locator = unsafe record + Self.recordOctetsMin + index * locatorOctets
            if unsafe bigEndian(locator + 8) == address.low, unsafe bigEndian(locator) == address.high,
                unsafe locator.load(fromByteOffset: 16, as: UInt8.self) == length, unsafe isMoA(locator)
            {
                return true
            }
        }
        return false
    }

    /// Endpoints and relays say of what kind they are where other locators have a zero; only MoAs lead back to their HoA (section 11.1).
    @inlinable @inline(__always)
    func isMoA(_ locator: UnsafeRawPointer) -> Bool { unsafe locator.load(fromByteOffset: 18, as: UInt8.self) == 0 }

    /// The MoA or MoPre at this place of the record's list; `nil` if another kind of locator stands there.
    func locator(_ index: Int) -> IPPrefix? {
        let locator = unsafe record + Self.recordOctetsMin + index * locatorOctets
        guard unsafe isMoA(locator) else { return nil }
        return IPPrefix(
            covering: unsafe IPAddress(high: bigEndian(locator), low: bigEndian(locator + 8)),
            length: unsafe locator.load(fromByteOffset: 16, as: UInt8.self))
    }

    // MARK: As a value

    /// The mapping as a value. Only what can be decoded is ever put into the table.
    package var stored: StoredMapping? {
        let recordOctets = recordOptionsOctets - Self.optionOctets - Self.signatureOptionOctets
        let signature = unsafe record + recordOctets + Self.optionOctets
        return unsafe PackedMapping(
            record: UnsafeRawBufferPointer(start: record, count: recordOctets),
            signature: UnsafeRawBufferPointer(start: signature, count: Signature.octetsCount),
            certificate: UnsafeRawBufferPointer(start: certificateOctets, count: Certificate.octetsCount), source: source, local: local,
            provenAt: provenAt
        )?.stored
    }

    package var certificate: Certificate? {
        try? unsafe Certificate(octets: UnsafeRawBufferPointer(start: certificateOctets, count: Certificate.octetsCount))
    }

    // MARK: Making

    /// The units of the arena that a block with a record of so many octets takes.
    static func units(recordOctets: Int) -> Int {
        let octets = headOctets + optionOctets + recordOctets + signatureOptionOctets + certificateOptionOctets
        return (octets + SlabArena.unitOctets - 1) / SlabArena.unitOctets
    }

    var units: Int { Self.units(recordOctets: recordOptionsOctets - Self.optionOctets - Self.signatureOptionOctets) }

    /// Fills a piece of the arena.
    static func write(_ mapping: PackedMapping, expires: UInt64, to base: UnsafeMutableRawPointer) {
        func put(_ word: UInt64, _ offset: Int) { unsafe base.storeBytes(of: word, toByteOffset: offset, as: UInt64.self) }
        put(UInt64(bigEndian: unsafe mapping.record.loadUnaligned(as: UInt64.self)), 0)
        put(UInt64(bigEndian: unsafe mapping.record.loadUnaligned(fromByteOffset: 8, as: UInt64.self)), 8)
        put(expires, 16)
        put(mapping.provenAt, 24)
        put(mapping.source.address.high, 32)
        put(mapping.source.address.low, 40)
        put(mapping.local.high, 48)
        put(mapping.local.low, 56)
        put(unsafe CertificateID(certificate: mapping.certificate).rawValue, 64)
        unsafe base.storeBytes(of: mapping.source.port, toByteOffset: 72, as: UInt16.self)
        let recordOptions = optionOctets + mapping.recordCount + signatureOptionOctets
        unsafe base.storeBytes(of: UInt16(truncatingIfNeeded: recordOptions), toByteOffset: 74, as: UInt16.self)
        unsafe base.storeBytes(of: mapping.record[16], toByteOffset: 76, as: UInt8.self)
        // As many as the record has octets for, so that none lies outside whatever it says.
        let locatorOctets = unsafe MappingRecordView(mapping.record).locatorOctets
        unsafe base.storeBytes(
            of: UInt8(truncatingIfNeeded: (mapping.recordCount - recordOctetsMin) / locatorOctets), toByteOffset: 77, as: UInt8.self)
        unsafe base.storeBytes(of: UInt8(truncatingIfNeeded: locatorOctets), toByteOffset: 78, as: UInt8.self)
        unsafe base.storeBytes(of: 0, toByteOffset: 79, as: UInt8.self)
        var place = unsafe base + headOctets
        // All three values are whole words, so that no option has padding.
        func option(_ kind: OptionKind, _ value: UnsafeRawBufferPointer) {
            unsafe place.storeBytes(of: kind.rawValue.bigEndian, as: UInt16.self)
            unsafe place.storeBytes(of: UInt16(truncatingIfNeeded: value.count).bigEndian, toByteOffset: 2, as: UInt16.self)
            unsafe UnsafeMutableRawBufferPointer(start: place + optionOctets, count: value.count).copyMemory(from: value)
            unsafe place += optionOctets + value.count
        }
        unsafe option(.mapping, mapping.record)
        unsafe option(.signature, mapping.signature)
        unsafe option(.certificate, mapping.certificate)
    }
}

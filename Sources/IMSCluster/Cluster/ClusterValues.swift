import IMSCore
import MATSignal
import MappingMemory

// What the cluster's values look like. All begin with an octet that says which form the rest has; numbers are big-endian.

/// ```
///   mapping       form 1 | not before 8 | sequence 8 | proven at 8 | source 16 | source port 2 | local 16 |
///                 certificate 140 | signature 64 | record: the rest
///   remembered    form 1 | not before 8 | sequence 8 | confirmed 1 | certificate 140 | signature 64 | record: the rest
///   certificate   form 1 | not before 8 | certificate 140
///   token, lease  form 1 | version 8 | value: the rest (HeldToken.row, Lease.row); likewise a visitors' gate (VisitorGates)
///   cookies       form 1 | { made at 8 | secret 16 } the current one first, at most two
///   instance      form 1 | count of signs of life 8 | pushed up to revision 8
///   subscription  form 1 | ends 8 | local 16 | granted at 8
///   binding       form 1 | ends 8 | bound at 8
///   hand-over     as remembered
/// ```
/// Mapping and certificate begin with their version (protocol.md section 4). Among values of one "not before" octets compare as
/// versions do, and certificates always: a transaction's comparison "the value is less than form | not before | sequence" is true of
/// exactly the older ones. Records under certificates of different beginnings are compared by who writes (`ClusterInstance.putIfNewer`),
/// and put over exactly what they were compared with; so no version goes back, whoever writes. Times are Unix milliseconds. "Record", "certificate" and "signature" are as on the wire.
enum ClusterValue {
    static let form: UInt8 = 1
    static let certificateOctets = 140
    static let signatureOctets = 64
    static let secretOctets = 16
    static let secretsMax = 2
    /// No grant is told to last longer (protocol.md section 7: 300 s; half as much again is told).
    static let subscriptionMillisecondsMax: UInt64 = 450_000
    /// No binding is kept up for longer without another signature (protocol.md section 11.3).
    static let bindingMillisecondsMax: UInt64 = 600_000
    /// The count of an instance that stops.
    static let lastSignOfLife = UInt64.max

    // MARK: Mapping

    static func encode(_ mapping: StoredMapping) -> [UInt8] {
        var octets = version(mapping.certified.version)
        append(mapping.provenAt, to: &octets)
        octets += mapping.source.address.octets
        octets += [UInt8(truncatingIfNeeded: mapping.source.port >> 8), UInt8(truncatingIfNeeded: mapping.source.port)]
        octets += mapping.local.octets
        append(mapping.certified, to: &octets)
        return octets
    }

    static func mapping(_ octets: [UInt8]) -> StoredMapping? {
        read(octets) { reader throws(SignalError) in
            _ = try reader.bytes(16, "version")
            let provenAt = try reader.uint64("proven at")
            guard let source = IPAddress(octets: try reader.bytes(16, "source")) else { return nil }
            let port = try reader.uint16("source port")
            guard let local = IPAddress(octets: try reader.bytes(16, "local")), let certified = try certified(&reader) else {
                return nil
            }
            return StoredMapping(certified: certified, source: Endpoint(source, port: port), local: local, provenAt: provenAt)
        }
    }

    /// Adds a mapping without decoding it: at a start there may be millions.
    ///
    /// - Returns: whether it has the form and lengths of one.
    static func append(_ value: [UInt8], to mappings: inout PackedMappings) -> Bool {
        value.withUnsafeBytes { value in
            let headOctets = 1 + 16 + 8 + 16 + 2 + 16
            let certificateEnd = headOctets + certificateOctets
            let signatureEnd = certificateEnd + signatureOctets
            guard value.count > signatureEnd, value[0] == form, let source = IPAddress(octets: value[25..<41]),
                let local = IPAddress(octets: value[43..<59])
            else { return false }
            return mappings.append(
                record: UnsafeRawBufferPointer(rebasing: value[signatureEnd...]),
                signature: UnsafeRawBufferPointer(rebasing: value[certificateEnd..<signatureEnd]),
                certificate: UnsafeRawBufferPointer(rebasing: value[headOctets..<certificateEnd]),
                source: Endpoint(source, port: UInt16(value[41]) << 8 | UInt16(value[42])), local: local,
                provenAt: value[17..<25].reduce(0) { $0 << 8 | UInt64($1) })
        }
    }

    /// What the values of all versions that are not older sort behind.
    static func version(_ version: RecordVersion) -> [UInt8] {
        var octets = [form]
        append(version.notBefore, to: &octets)
        append(version.sequence, to: &octets)
        return octets
    }

    /// What the values of this version sort before, and those of later ones behind: after its version a mapping has a time.
    static func end(of version: RecordVersion) -> [UInt8] { Self.version(version) + [UInt8](repeating: .max, count: 8) }

    /// What the values of all versions under certificates of this beginning start with.
    static func beginning(_ version: RecordVersion) -> [UInt8] { beginning(version.notBefore) }

    static func beginning(_ notBefore: UInt64) -> [UInt8] {
        var octets = [form]
        append(notBefore, to: &octets)
        return octets
    }

    // MARK: Remembered

    static func encode(_ certified: CertifiedMapping, isConfirmed: Bool) -> [UInt8] {
        var octets = version(certified.version)
        octets.append(isConfirmed ? 1 : 0)
        append(certified, to: &octets)
        return octets
    }

    static func remembered(_ octets: [UInt8]) -> (certified: CertifiedMapping, isConfirmed: Bool)? {
        read(octets) { reader throws(SignalError) in
            _ = try reader.bytes(16, "version")
            let isConfirmed = try reader.uint8("confirmed") == 1
            return try certified(&reader).map { ($0, isConfirmed) }
        }
    }

    // MARK: Certificate

    static func encode(_ certificate: Certificate) -> [UInt8] { version(certificate) + certificate.octets }

    static func certificate(_ octets: [UInt8]) -> Certificate? {
        read(octets) { reader throws(SignalError) in
            _ = try reader.uint64("not before")
            return try Certificate(octets: try reader.bytes(reader.remaining, "certificate"))
        }
    }

    static func version(_ certificate: Certificate) -> [UInt8] {
        var octets = [form]
        append(certificate.notBefore, to: &octets)
        return octets
    }

    // MARK: Rows

    static func encode(_ row: StoredRow) -> [UInt8] { rowBeginning(row.version) + row.value }

    /// What the values of all rows of this version start with, and those of later ones sort behind.
    static func rowBeginning(_ version: UInt64) -> [UInt8] {
        var octets = [form]
        append(version, to: &octets)
        return octets
    }

    static func row(_ kind: StoredRow.Kind, key: [UInt8], _ octets: [UInt8]) -> StoredRow? {
        read(octets) { reader throws(SignalError) in
            let version = try reader.uint64("version")
            return StoredRow(kind, key: key, value: try reader.bytes(reader.remaining, "value"), version: version)
        }
    }

    // MARK: Cookies

    static func encode(_ secrets: [CookieSecret]) -> [UInt8] {
        var octets = [form]
        for secret in secrets.prefix(secretsMax) where secret.octets.count == secretOctets {
            append(secret.madeAt, to: &octets)
            octets += secret.octets
        }
        return octets
    }

    static func secrets(_ octets: [UInt8]) -> [CookieSecret]? {
        read(octets) { reader throws(SignalError) in
            var secrets: [CookieSecret] = []
            while !reader.isAtEnd, secrets.count < secretsMax {
                let madeAt = try reader.uint64("made at")
                secrets.append(CookieSecret(octets: try reader.bytes(secretOctets, "secret"), madeAt: madeAt))
            }
            return secrets
        }
    }

    // MARK: Instance

    /// - Parameter pushedUpTo: the revision up to which the instance has handed all changes to its core; 0 while it still reads.
    static func encode(signOfLife count: UInt64, pushedUpTo: Int64) -> [UInt8] {
        var octets = [form]
        append(count, to: &octets)
        append(UInt64(bitPattern: pushedUpTo), to: &octets)
        return octets
    }

    /// What imsd 0.1.0 writes has no revision; such an instance takes subscriptions over in its own way.
    static func signOfLife(_ octets: [UInt8]) -> (count: UInt64, pushedUpTo: Int64)? {
        read(octets) { reader throws(SignalError) in
            let count = try reader.uint64("count")
            return (count, reader.isAtEnd ? 0 : Int64(bitPattern: try reader.uint64("pushed up to")))
        }
    }

    // MARK: Subscription

    /// Both times by the clock of the instance that writes; others take the time between them.
    static func encode(subscriptionEnding ends: UInt64, grantedAt: UInt64, local: IPAddress) -> [UInt8] {
        var octets = [form]
        append(ends, to: &octets)
        octets += local.octets
        append(grantedAt, to: &octets)
        return octets
    }

    /// - Parameter now: Unix time in ms, for what imsd 0.1.0 writes: only when it ends.
    static func subscription(_ octets: [UInt8], now: UInt64) -> (lasts: Duration, local: IPAddress)? {
        read(octets) { reader throws(SignalError) in
            let ends = try reader.uint64("ends")
            let local = IPAddress(octets: try reader.bytes(16, "local"))
            let grantedAt = reader.isAtEnd ? now : try reader.uint64("granted at")
            let lasts = min(ends > grantedAt ? ends - grantedAt : 0, subscriptionMillisecondsMax)
            return local.map { (.milliseconds(Int64(clamping: lasts)), $0) }
        }
    }

    // MARK: Binding

    /// Both times by the clock of the instance that writes; others take the time between them.
    static func encode(bindingEnding ends: UInt64, boundAt: UInt64) -> [UInt8] {
        var octets = [form]
        append(ends, to: &octets)
        append(boundAt, to: &octets)
        return octets
    }

    /// - Returns: for how long it may be kept up.
    static func binding(_ octets: [UInt8]) -> Duration? {
        read(octets) { reader throws(SignalError) in
            let ends = try reader.uint64("ends")
            let boundAt = try reader.uint64("bound at")
            return .milliseconds(Int64(clamping: min(ends > boundAt ? ends - boundAt : 0, bindingMillisecondsMax)))
        }
    }

    // MARK: Parts

    private static func append(_ certified: CertifiedMapping, to octets: inout [UInt8]) {
        octets += certified.certificate.octets
        octets += certified.mapping.signature.octets
        octets += certified.record.octets
    }

    private static func certified(_ reader: inout SignalReader) throws(SignalError) -> CertifiedMapping? {
        let certificate = try Certificate(octets: try reader.bytes(certificateOctets, "certificate"))
        guard let signature = Signature(try reader.bytes(signatureOctets, "signature")) else { return nil }
        let record = try MappingRecord(octets: try reader.bytes(reader.remaining, "record"))
        return CertifiedMapping(mapping: SignedMapping(record: record, signature: signature), certificate: certificate)
    }

    private static func append(_ number: UInt64, to octets: inout [UInt8]) {
        for shift in stride(from: UInt64(56), through: 0, by: -8) { octets.append(UInt8(truncatingIfNeeded: number >> shift)) }
    }

    /// - Returns: `nil` if it is of another form, or damaged.
    private static func read<Value>(_ octets: [UInt8], _ body: (inout SignalReader) throws(SignalError) -> Value?) -> Value? {
        guard octets.first == form else { return nil }
        var reader = SignalReader(octets, 1..<octets.count)
        do throws(SignalError) {
            return try body(&reader)
        } catch {
            return nil
        }
    }
}

import Crypto
import IMSCore
import MATRuntime
import MATSignal
import MappingMemory

/// What is wrong with an exported file, in words that say where.
public struct TransferError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// One line of an export: a JSON object of one member, whose name says what it is.
///
/// ```
/// {"header":{"format":"mat-ims-export","version":1,"exportedAt":1790000000000,"program":"imsd 0.1.0","prefixes":["192.0.2.0/24"]}}
/// {"secret":{"octets":BASE64,"madeAt":1790000000000}}                                                     only if asked for
/// {"mapping":{"hoa":"192.0.2.1/32","record":BASE64,"signature":BASE64,"certificate":BASE64,
///             "source":"198.51.100.7","sourcePort":6289,"local":"203.0.113.1","provenAt":1790000000000}}
/// {"certificate":{"hoa":"192.0.2.2/32","certificate":BASE64}}                                             of HoAs whose newest one no mapping has
/// {"lease":{"hoa":"192.0.2.2/32","version":1,"value":BASE64}}                                             to which key an HoA was given, by what
/// {"token":{"id":HEX,"version":1,"value":BASE64}}                                                         only if asked for: it has the secret
/// {"trailer":{"lines":4,"mappings":1,"certificates":1,"secrets":1,"leases":1,"tokens":0,"sha256":HEX}}    over all lines before, with their ends
/// ```
/// Times are Unix milliseconds; record, signature and certificate are the octets of the wire. `hoa` is there for people who search.
public enum TransferLine: Sendable, Hashable {
    case header(TransferHeader)
    case mapping(StoredMapping)
    case certificate(Certificate)
    case secret(CookieSecret)
    case lease(Lease)
    case token(HeldToken)
    case trailer(TransferTrailer)

    /// The longest line read.
    public static let octetsMax = 16_384

    public init(json: JSONValue) throws(TransferError) {
        guard let (kind, value) = json.object?.first, json.object?.count == 1 else {
            throw TransferError("it is not an object of one member")
        }
        switch kind {
        case "header": self = .header(try TransferHeader(value))
        case "trailer": self = .trailer(try TransferTrailer(value))
        case "secret": self = .secret(try Self.secret(value))
        case "certificate": self = .certificate(try Self.certificate(value))
        case "mapping": self = .mapping(try Self.mapping(value))
        case "lease": self = .lease(try Self.lease(value))
        case "token": self = .token(try Self.token(value))
        default: throw TransferError("\"\(kind)\" is none of header, mapping, certificate, secret, lease, token and trailer")
        }
    }

    public init(parsing line: some Collection<UInt8>) throws(TransferError) {
        let value: JSONValue
        do throws(ControlError) {
            value = try JSONValue.parse(line)
        } catch {
            throw TransferError("it is \(error)")
        }
        try self.init(json: value)
    }

    public var json: JSONValue {
        switch self {
        case .header(let header): ["header": header.json]
        case .trailer(let trailer): ["trailer": trailer.json]
        case .secret(let secret): ["secret": ["octets": .string(Base64.write(secret.octets)), "madeAt": .number(secret.madeAt)]]
        case .certificate(let certificate):
            ["certificate": ["hoa": .text(certificate.prefix), "certificate": .string(Base64.write(certificate.octets))]]
        case .lease(let lease):
            ["lease": ["hoa": .text(lease.prefix), "version": .number(lease.version), "value": .string(Base64.write(lease.row.value))]]
        case .token(let token):
            ["token": ["id": .string("\(token.id)"), "version": .number(token.version), "value": .string(Base64.write(token.row.value))]]
        case .mapping(let mapping):
            [
                "mapping": [
                    "hoa": .text(mapping.record.prefix), "record": .string(Base64.write(mapping.record.octets)),
                    "signature": .string(Base64.write(mapping.certified.mapping.signature.octets)),
                    "certificate": .string(Base64.write(mapping.certified.certificate.octets)),
                    "source": .text(mapping.source.address), "sourcePort": .number(mapping.source.port), "local": .text(mapping.local),
                    "provenAt": .number(mapping.provenAt),
                ]
            ]
        }
    }

    // MARK: Parts

    private static func octets(_ value: JSONValue, _ key: String) throws(TransferError) -> [UInt8] {
        let text = try Self.text(value, key)
        guard let octets = Base64.parse(text.utf8) else { throw TransferError("\"\(key)\" is no base64") }
        return octets
    }

    private static func text(_ value: JSONValue, _ key: String) throws(TransferError) -> String {
        guard let text = value[key]?.string else { throw TransferError("\"\(key)\" is missing, or no string") }
        return text
    }

    private static func number<Number: FixedWidthInteger>(_ value: JSONValue, _ key: String) throws(TransferError) -> Number {
        guard let number = value[key]?.int.flatMap({ Number(exactly: $0) }) else {
            throw TransferError("\"\(key)\" is missing, or no whole number from \(max(0, Number.min)) to \(Number.max)")
        }
        return number
    }

    private static func address(_ value: JSONValue, _ key: String) throws(TransferError) -> IPAddress {
        let text = try Self.text(value, key)
        guard let address = IPAddress(text) else { throw TransferError("\"\(key)\" is \(text), which is no address") }
        return address
    }

    /// What the octets under a key stand for, or what is wrong with them.
    private static func decode<Value>(
        _ value: JSONValue, _ key: String, _ decode: ([UInt8]) throws(SignalError) -> Value
    ) throws(TransferError) -> Value {
        let octets = try octets(value, key)
        do throws(SignalError) {
            return try decode(octets)
        } catch {
            throw TransferError("\"\(key)\" can't be read: \(error)")
        }
    }

    private static func certificate(_ value: JSONValue) throws(TransferError) -> Certificate {
        try decode(value, "certificate") { octets throws(SignalError) in try Certificate(octets: octets) }
    }

    private static func secret(_ value: JSONValue) throws(TransferError) -> CookieSecret {
        let octets = try octets(value, "octets")
        guard octets.count == CookieSecret.octetsCount else {
            throw TransferError("\"octets\" are \(octets.count), and a cookie secret has \(CookieSecret.octetsCount)")
        }
        return CookieSecret(octets: octets, madeAt: try number(value, "madeAt"))
    }

    private static func lease(_ value: JSONValue) throws(TransferError) -> Lease {
        let name = try text(value, "hoa")
        guard let prefix = IPPrefix(name) else { throw TransferError("\"hoa\" is \(name), which is no prefix") }
        guard let lease = Lease(prefix, value: try octets(value, "value"), version: try number(value, "version")) else {
            throw TransferError("the lease of \(prefix): its \"value\" can't be read")
        }
        return lease
    }

    private static func token(_ value: JSONValue) throws(TransferError) -> HeldToken {
        let name = try text(value, "id")
        guard let id = TokenID(name) else { throw TransferError("\"id\" is \(name), which is no token's id") }
        guard let token = HeldToken(id, value: try octets(value, "value"), version: try number(value, "version")) else {
            throw TransferError("the token \(id): its \"value\" can't be read")
        }
        return token
    }

    private static func mapping(_ value: JSONValue) throws(TransferError) -> StoredMapping {
        let record = try decode(value, "record") { octets throws(SignalError) in try MappingRecord(octets: octets) }
        do throws(TransferError) {
            let octets = try octets(value, "signature")
            guard let signature = Signature(octets) else {
                throw TransferError("\"signature\" has \(octets.count) octets, and not \(Signature.octetsCount)")
            }
            return StoredMapping(
                certified: CertifiedMapping(mapping: SignedMapping(record: record, signature: signature), certificate: try certificate(value)),
                source: Endpoint(try address(value, "source"), port: try number(value, "sourcePort")), local: try address(value, "local"),
                provenAt: try number(value, "provenAt"))
        } catch {
            throw TransferError("the mapping of \(record.prefix): \(error)")
        }
    }
}

/// The first line of an export.
public struct TransferHeader: Sendable, Hashable {
    public static let format = "mat-ims-export"
    public static let version: Int64 = 1

    /// Unix time in ms.
    public var exportedAt: UInt64
    public var program: String
    /// What the exporting server serves; for people.
    public var prefixes: [String]

    public init(exportedAt: UInt64, program: String, prefixes: [String]) {
        self.exportedAt = exportedAt
        self.program = program
        self.prefixes = prefixes
    }

    init(_ value: JSONValue) throws(TransferError) {
        guard value["format"]?.string == Self.format else { throw TransferError("it is no export of imsd") }
        guard let version = value["version"]?.int, version == Self.version else {
            throw TransferError("it is of version \(value["version"]?.int ?? 0), which this program does not know; use one as new as the exporter")
        }
        exportedAt = value["exportedAt"]?.int.flatMap { UInt64(exactly: $0) } ?? 0
        program = value["program"]?.string ?? ""
        prefixes = value["prefixes"]?.array?.compactMap(\.string) ?? []
    }

    var json: JSONValue {
        [
            "format": .string(Self.format), "version": .int(Self.version), "exportedAt": .number(exportedAt), "program": .string(program),
            "prefixes": .array(prefixes.map { .string($0) }),
        ]
    }
}

/// The last line of an export: without it the file was cut off.
public struct TransferTrailer: Sendable, Hashable {
    /// All lines before this one.
    public var lines = 0
    public var mappings = 0
    public var certificates = 0
    public var secrets = 0
    public var leases = 0
    public var tokens = 0
    public var sha256 = ""

    public init() {}

    init(_ value: JSONValue) throws(TransferError) {
        func count(_ key: String) throws(TransferError) -> Int {
            guard let number = value[key]?.int.flatMap({ Int(exactly: $0) }), number >= 0 else {
                throw TransferError("the trailer's \"\(key)\" is missing, or no count")
            }
            return number
        }
        lines = try count("lines")
        mappings = try count("mappings")
        certificates = try count("certificates")
        secrets = try count("secrets")
        // Exports of imsd 0.1 have none.
        leases = value["leases"] == nil ? 0 : try count("leases")
        tokens = value["tokens"] == nil ? 0 : try count("tokens")
        guard let sum = value["sha256"]?.string else { throw TransferError("the trailer's \"sha256\" is missing") }
        sha256 = sum
    }

    var json: JSONValue {
        [
            "lines": .number(lines), "mappings": .number(mappings), "certificates": .number(certificates), "secrets": .number(secrets),
            "leases": .number(leases), "tokens": .number(tokens), "sha256": .string(sha256),
        ]
    }
}

/// Counts and sums up lines, the same at both ends.
public struct TransferSum: Sendable {
    private var hash = SHA256()
    private var trailer = TransferTrailer()

    public init() {}

    /// - Parameter octets: of the line, without its end.
    public mutating func add(_ line: TransferLine, _ octets: some Collection<UInt8>) {
        hash.update(data: Array(octets) + [10])
        trailer.lines += 1
        switch line {
        case .mapping: trailer.mappings += 1
        case .certificate: trailer.certificates += 1
        case .secret: trailer.secrets += 1
        case .lease: trailer.leases += 1
        case .token: trailer.tokens += 1
        case .header, .trailer: break
        }
    }

    /// What the trailer behind these lines says.
    public var result: TransferTrailer {
        var result = trailer
        result.sha256 = Hexadecimal.write(hash.finalize())
        return result
    }
}

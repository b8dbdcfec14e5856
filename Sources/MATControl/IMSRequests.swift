/// What can be asked of imsd. Fields that are `nil` are left out.
public enum IMSCommandName: String, CaseIterable, Sendable {
    /// -> `IMSStatusReport`
    case status
    /// `ListRequest` -> `MappingListReport`
    case list
    /// `ShowRequest` -> `MappingReport`
    case show
    /// `ZoneRequest` -> `ZoneReport`
    case zone
    /// `EnrolRequest` -> `EnrolmentReport`
    case enrol
    /// `RevokeRequest` -> `RevocationReport`
    case revoke
    /// `ExportRequest` -> `ExportReport`
    case export
    /// `ImportRequest` -> `ImportReport`
    case `import`
    /// -> `MetricsReport`
    case metrics
    /// `TokenRequest` -> `TokenReport`
    case tokenCreate
    /// -> `TokensReport`
    case tokenList
    /// `TokenRevokeRequest` -> `TokensReport` of the one
    case tokenRevoke
    /// `EnrolledRequest` -> `EnrolledReport`
    case enrolled
}

/// A token by which nodes join.
public struct TokenRequest: Codable, Hashable, Sendable {
    /// Prefixes of which each node gets an address, or single addresses.
    public var gives: [String]?
    /// Where nodes reach the server: a name or an address.
    public var host: String?
    /// Nodes that may join with it.
    public var uses: Int64?
    public var expiresInSeconds: Int64?
    /// Of the certificates.
    public var certificateSeconds: Int64?
    /// Whether certificates are renewed.
    public var isRenewed: Bool?

    private enum CodingKeys: String, CodingKey {
        case gives, host, uses, expiresInSeconds, certificateSeconds
        case isRenewed = "renewal"
    }

    public init(gives: [String], host: String?, uses: Int64?, expiresInSeconds: Int64?, certificateSeconds: Int64?, isRenewed: Bool?) {
        self.gives = gives
        self.host = host
        self.uses = uses
        self.expiresInSeconds = expiresInSeconds
        self.certificateSeconds = certificateSeconds
        self.isRenewed = isRenewed
    }
}

public struct TokenRevokeRequest: Codable, Hashable, Sendable {
    /// 16 hexadecimal digits.
    public var id: String?

    public init(id: String) { self.id = id }
}

/// A page of home addresses that were given to somebody.
public struct EnrolledRequest: Codable, Hashable, Sendable {
    /// A prefix or address; those behind it are listed.
    public var after: String?
    public var count: Int?

    public init(after: String? = nil, count: Int? = nil) {
        self.after = after
        self.count = count
    }
}

/// A page of mappings, in the order of home addresses.
public struct ListRequest: Codable, Hashable, Sendable {
    /// A prefix or address; those behind it are listed.
    public var after: String?
    public var count: Int?
    /// Only those within.
    public var prefix: String?
    /// all, registered, expired, withdrawn, revoked or unseen.
    public var state: String?

    public init(after: String? = nil, count: Int? = nil, prefix: String? = nil, state: String? = nil) {
        self.after = after
        self.count = count
        self.prefix = prefix
        self.state = state
    }
}

public struct ShowRequest: Codable, Hashable, Sendable {
    public var hoa: String?

    public init(hoa: String) { self.hoa = hoa }
}

public struct EnrolRequest: Codable, Hashable, Sendable {
    public var hoa: String?
    /// As people write it: 24 for an IPv4 /24.
    public var prefixLength: Int64?
    /// Base64.
    public var publicKey: String?
    public var lifetimeSeconds: Int64?
    public var force: Bool?
    /// Whether the certificate is renewed when it ends.
    public var renewal: Bool?

    private enum CodingKeys: String, CodingKey {
        case hoa, prefixLength, publicKey, force, renewal
        case lifetimeSeconds = "lifetime"
    }

    public init(hoa: String, prefixLength: Int64?, publicKey: String, lifetimeSeconds: Int64?, force: Bool?, renewal: Bool? = nil) {
        self.renewal = renewal
        self.hoa = hoa
        self.prefixLength = prefixLength
        self.publicKey = publicKey
        self.lifetimeSeconds = lifetimeSeconds
        self.force = force
    }
}

/// Home addresses to take from their nodes: one of `prefix`, `certificate` and `beforeMilliseconds` says which.
public struct RevokeRequest<Line: Codable>: Codable {
    public var prefix: String?
    /// The id of a newest certificate, 16 hexadecimal digits.
    public var certificate: String?
    /// All whose certificates were issued before then, a part with each request.
    public var beforeMilliseconds: UInt64?
    /// Those that `beforeMilliseconds` would revoke are only listed. Not a mark beside that, which an imsd that does not know it would pass over.
    public var wouldBeforeMilliseconds: UInt64?
    /// With either: only those within.
    public var within: String?
    /// With either: what the part before gave as `next`.
    public var after: String?
    /// Whether it may be one of which the server knows nothing.
    public var unknown: Bool?
    /// A mapping line as in an export: what takes the mapping's place, if the server can't sign it.
    public var tombstone: Line?

    private enum CodingKeys: String, CodingKey {
        case prefix, certificate, within, after, unknown, tombstone
        case beforeMilliseconds = "before"
        case wouldBeforeMilliseconds = "wouldBefore"
    }

    public init() {}
}

/// What the reverse zones of the server's prefixes need.
public struct ZoneRequest: Codable, Hashable, Sendable {
    /// The server's own name.
    public var target: String?
    public var addresses: [String]?
    /// Home addresses at whose names the zone holds other records.
    public var existing: [String]?
    public var form: String?
    public var ttlSeconds: Int64?

    private enum CodingKeys: String, CodingKey {
        case target, addresses, existing, form
        case ttlSeconds = "ttl"
    }
}

public struct ZoneReport: Codable, Hashable, Sendable {
    public var lines: [String]

    public init(lines: [String]) { self.lines = lines }
}

/// Where a part of an export begins.
public struct ExportPlace: Codable, Hashable, Sendable {
    /// mappings, then certificates.
    public var part: String?
    /// Among mappings.
    public var from: Int64?
    /// Among certificates.
    public var after: String?

    public init(part: String? = nil, from: Int64? = nil, after: String? = nil) {
        self.part = part
        self.from = from
        self.after = after
    }
}

/// A part of an export; `part`, `from` and `after` are what the part before gave as `next`.
public struct ExportRequest: Codable, Hashable, Sendable {
    public var part: String?
    public var from: Int64?
    public var after: String?
    public var count: Int?
    /// Whether the secrets that cookies are made with are told too.
    public var secrets: Bool?

    public init(_ place: ExportPlace = ExportPlace(), count: Int? = nil, secrets: Bool? = nil) {
        (part, from, after) = (place.part, place.from, place.after)
        self.count = count
        self.secrets = secrets
    }
}

/// - Note: lines are those of the export's file (imsd(8)).
public struct ExportReport<Line: Codable>: Codable {
    public var lines: [Line]
    public var next: ExportPlace?

    public init(lines: [Line], next: ExportPlace?) {
        self.lines = lines
        self.next = next
    }
}

/// Everything is checked as if it came from the network. The answer comes when what was taken is durable.
public struct ImportRequest<Line: Codable>: Codable {
    public var lines: [Line]?
    /// Take nothing; say what would be skipped.
    public var check: Bool?

    public init(lines: [Line], check: Bool) {
        self.lines = lines
        self.check = check
    }
}

import MATSignal

/// A token as its IMS holds it: what it gives to whom shows that he has its secret (protocol.md section 12).
public struct HeldToken: Hashable, Sendable {
    /// Prefixes that one may give: a pool and an address of each family, and some to spare.
    public static let givesMax = 8

    public let id: TokenID
    public let secret: TokenSecret
    /// Pools, or single HoAs (of full length). A node gets one HoA of each that it asks for.
    public var gives: [IPPrefix]
    /// Nodes that may join; `nil`: any number.
    public var usesMax: UInt32?
    public var uses: UInt32 = 0
    /// Unix time in ms.
    public var createdAt: UInt64
    public var expiresAt: UInt64?
    /// Of the certificates, in seconds; `nil`: the server's usual one.
    public var certificateSeconds: UInt64?
    /// Whether a node's certificate is renewed when it ends. Otherwise its HoA is given until then.
    public var isRenewed = true
    public var revokedAt: UInt64?
    public var version: UInt64 = 0

    public init(id: TokenID, secret: TokenSecret, gives: [IPPrefix], createdAt: UInt64) {
        self.id = id
        self.secret = secret
        self.gives = Array(gives.prefix(Self.givesMax))
        self.createdAt = createdAt
    }

    /// Why nothing more is given by it; `nil` if something is.
    ///
    /// - Parameter isNew: to a node that has nothing by it yet.
    func refusal(isNew: Bool, _ now: Now) -> String? {
        if revokedAt != nil { return "the token is revoked" }
        if let expiresAt, expiresAt <= now.wallMilliseconds { return "the token has expired" }
        if isNew, let usesMax, uses >= usesMax { return "the token is spent: \(usesMax) \(usesMax == 1 ? "node has" : "nodes have") joined with it" }
        return nil
    }

    func places(wanted: IPPrefix?, _ server: ServerView) throws(Allotment.Refusal) -> [IPPrefix] {
        try Allotment.places(gives, wanted: wanted, of: "the token is for", server)
    }

    // MARK: As a row

    private enum Flag {
        static let isRenewed: UInt8 = 1, hasUsesMax: UInt8 = 2, hasExpiry: UInt8 = 4, hasCertificateLifetime: UInt8 = 8, isRevoked: UInt8 = 16
    }

    /// ```
    /// form 1 | flags | count | uses 4 | uses at most 4 | created 8 | expires 8 | certificate lifetime 8 | revoked 8 | secret 32 | { address 16, length 1 }
    /// ```
    public var row: StoredRow {
        var flags: UInt8 = isRenewed ? Flag.isRenewed : 0
        if usesMax != nil { flags |= Flag.hasUsesMax }
        if expiresAt != nil { flags |= Flag.hasExpiry }
        if certificateSeconds != nil { flags |= Flag.hasCertificateLifetime }
        if revokedAt != nil { flags |= Flag.isRevoked }
        var writer = SignalWriter(reserving: 128)
        for octet in [1, flags, UInt8(truncatingIfNeeded: gives.count)] { writer.uint8(octet) }
        writer.uint32(uses)
        writer.uint32(usesMax ?? 0)
        for time in [createdAt, expiresAt ?? 0, certificateSeconds ?? 0, revokedAt ?? 0] { writer.uint64(time) }
        writer.bytes(secret.octets)
        for prefix in gives { writer.prefix(prefix) }
        return StoredRow(.token, key: RowKey.of(id), value: writer.octets, version: version)
    }

    /// - Parameter value: of its row.
    public init?(_ id: TokenID, value: [UInt8], version: UInt64) {
        self.init(StoredRow(.token, key: RowKey.of(id), value: value, version: version))
    }

    /// - Returns: `nil` if it is of another kind or form, or damaged.
    public init?(_ row: StoredRow) {
        guard row.kind == .token, let id = RowKey.token(row.key), row.value.first == 1 else { return nil }
        var reader = SignalReader(row.value, 1..<row.value.count)
        do throws(SignalError) {
            let flags = try reader.uint8("flags")
            let count = try reader.uint8("count")
            let uses = try reader.uint32("uses")
            let usesMax = try reader.uint32("uses at most")
            let created = try reader.uint64("created")
            let expires = try reader.uint64("expires")
            let certificate = try reader.uint64("certificate lifetime")
            let revoked = try reader.uint64("revoked")
            guard let secret = TokenSecret(try reader.bytes(TokenSecret.octetsCount, "secret")) else { return nil }
            var gives: [IPPrefix] = []
            for _ in 0..<min(Int(count), Self.givesMax) { if let prefix = try reader.prefix() { gives.append(prefix) } }
            self.init(id: id, secret: secret, gives: gives, createdAt: created)
            self.uses = uses
            self.usesMax = flags & Flag.hasUsesMax != 0 ? usesMax : nil
            expiresAt = flags & Flag.hasExpiry != 0 ? expires : nil
            certificateSeconds = flags & Flag.hasCertificateLifetime != 0 ? certificate : nil
            revokedAt = flags & Flag.isRevoked != 0 ? revoked : nil
            isRenewed = flags & Flag.isRenewed != 0
            version = row.version
        } catch {
            return nil
        }
    }
}

/// What rows are found by.
enum RowKey {
    static func of(_ id: TokenID) -> [UInt8] {
        var writer = SignalWriter(reserving: 8)
        writer.uint64(id.rawValue)
        return writer.octets
    }

    static func of(_ prefix: IPPrefix) -> [UInt8] {
        var writer = SignalWriter(reserving: 17)
        writer.prefix(prefix)
        return writer.octets
    }

    static func of(gate: UInt16) -> [UInt8] { [UInt8(gate >> 8), UInt8(gate & 255)] }

    /// - Returns: `nil` for a gate that there is not.
    static func gate(_ key: [UInt8]) -> UInt16? {
        guard key.count == 2 else { return nil }
        let gate = UInt16(key[0]) << 8 | UInt16(key[1])
        return gate < VisitorGates.count ? gate : nil
    }

    static func token(_ key: [UInt8]) -> TokenID? {
        guard key.count == 8 else { return nil }
        return TokenID(rawValue: key.reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    static func prefix(_ key: [UInt8]) -> IPPrefix? {
        guard key.count == 17, let address = IPAddress(octets: Array(key[..<16])) else { return nil }
        return IPPrefix(address, length: key[16])
    }
}

extension SignalWriter {
    mutating func prefix(_ prefix: IPPrefix) {
        address(prefix.address)
        uint8(prefix.length)
    }
}

extension SignalReader {
    mutating func prefix() throws(SignalError) -> IPPrefix? {
        let address = IPAddress(octets: try bytes(16, "prefix"))
        let length = try uint8("prefix length")
        return address.flatMap { IPPrefix($0, length: length) }
    }
}

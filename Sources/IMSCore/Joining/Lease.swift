import MATSignal

/// An HoA that was given: to which key, by whose word, and until when (protocol.md section 12, "Leases").
public struct Lease: Hashable, Sendable {
    /// By what its holder came to it.
    public enum Origin: Hashable, Sendable {
        case token(TokenID)
        /// A node of another network, by its home there and the key that certified that.
        case visitor(HomeAddress, issuer: UInt64)
        /// An operator's `mat enrol`.
        case hand
    }

    /// Of one HoA, or of a mobile network.
    public let prefix: IPPrefix
    public var key: PublicKey
    public var origin: Origin
    /// Unix time in ms.
    public var givenAt: UInt64
    /// No certificate of it ends later.
    public var endsAt: UInt64?
    public var isRenewed = true
    /// The sequence of the withdrawal that was in force when its holder last asked for it: by that one it is not given back.
    public var withdrawnAt: UInt64?
    /// Given back by its holder: whoever asks next may have it.
    public var isReturned = false
    /// Whoever is told of leases knows that it has ended.
    public var isClosed = false
    public var version: UInt64 = 0

    public init(_ prefix: IPPrefix, key: PublicKey, _ origin: Origin, givenAt: UInt64) {
        self.prefix = prefix
        self.key = key
        self.origin = origin
        self.givenAt = givenAt
    }

    public var isVisitors: Bool { if case .visitor = origin { true } else { false } }

    // MARK: As a row

    private enum Flag { static let isRenewed: UInt8 = 1, isReturned: UInt8 = 2, ends: UInt8 = 4, isClosed: UInt8 = 8, isWithdrawn: UInt8 = 16 }

    /// ```
    /// form 1 | flags | origin: 1 token, 2 visitor, 3 hand | given 8 | ends 8 | key 32 | token 8, or home 16 and issuer 8 | withdrawn 8, if flagged
    /// ```
    public var row: StoredRow {
        var writer = SignalWriter(reserving: 96)
        writer.uint8(1)
        writer.uint8(
            (isRenewed ? Flag.isRenewed : 0) | (isReturned ? Flag.isReturned : 0) | (endsAt == nil ? 0 : Flag.ends) | (isClosed ? Flag.isClosed : 0)
                | (withdrawnAt == nil ? 0 : Flag.isWithdrawn))
        switch origin {
        case .token: writer.uint8(1)
        case .visitor: writer.uint8(2)
        case .hand: writer.uint8(3)
        }
        writer.uint64(givenAt)
        writer.uint64(endsAt ?? 0)
        writer.bytes(key.octets)
        switch origin {
        case .token(let id): writer.uint64(id.rawValue)
        case .visitor(let home, let issuer):
            writer.address(home.address)
            writer.uint64(issuer)
        case .hand: break
        }
        if let withdrawnAt { writer.uint64(withdrawnAt) }
        return StoredRow(.lease, key: RowKey.of(prefix), value: writer.octets, version: version)
    }

    /// - Parameter value: of its row.
    public init?(_ prefix: IPPrefix, value: [UInt8], version: UInt64) {
        self.init(StoredRow(.lease, key: RowKey.of(prefix), value: value, version: version))
    }

    /// - Returns: `nil` if it is of another kind or form, or damaged.
    public init?(_ row: StoredRow) {
        guard row.kind == .lease, let prefix = RowKey.prefix(row.key), row.value.first == 1 else { return nil }
        var reader = SignalReader(row.value, 1..<row.value.count)
        do throws(SignalError) {
            let flags = try reader.uint8("flags")
            let kind = try reader.uint8("origin")
            let given = try reader.uint64("given")
            let ends = try reader.uint64("ends")
            guard let key = PublicKey(try reader.bytes(PublicKey.octetsCount, "key")) else { return nil }
            let origin: Origin
            switch kind {
            case 1: origin = .token(TokenID(rawValue: try reader.uint64("token")))
            case 2:
                guard let home = IPAddress(octets: try reader.bytes(16, "home")) else { return nil }
                origin = .visitor(HomeAddress(home), issuer: try reader.uint64("issuer"))
            case 3: origin = .hand
            default: return nil
            }
            self.init(prefix, key: key, origin, givenAt: given)
            if flags & Flag.isWithdrawn != 0 { withdrawnAt = try reader.uint64("withdrawn") }
            endsAt = flags & Flag.ends != 0 ? ends : nil
            isRenewed = flags & Flag.isRenewed != 0
            isReturned = flags & Flag.isReturned != 0
            isClosed = flags & Flag.isClosed != 0
            version = row.version
        } catch {
            return nil
        }
    }
}

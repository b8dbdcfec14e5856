import MATSignal
import MappingMemory

/// What a store tells.
public enum StoreEvent: Sendable {
    /// A part of what the store holds. No two parts speak of one HoA, so their order does not matter.
    case loaded(StoreContents)
    /// The whole has been told: what is not known now is not registered.
    case loadEnded
    /// What other instances of this IMS wrote, in the order of their writes.
    case changed([StoreChange])
    /// What cookies are made with from now on, the current one first, at most two; empty if there is none yet.
    case secrets([CookieSecret])
    /// What came of changes; of those of one HoA, in the order in which they were given.
    case committed([StoreOutcome])
    /// No change can be made durable, for this reason, until `available`. It may come again with another reason. The reason is for a person who
    /// runs the server: it may hold paths, addresses and a library's words, and never goes to a node.
    case unavailable(String)
    case available
    /// What other instances learned, and which subscriptions are this one's to serve.
    case shared([SharedNews])
    /// All that came before this has caught up with the store: `Freshness.release`.
    case caughtUp(UInt64)
    /// The other instances know that this one stops; all that it had to push was told before.
    case left
    /// Something that a person should read, after which all goes on.
    case failed(String)
}

/// What came of one change.
public struct StoreOutcome: Hashable, Sendable {
    public enum Result: Hashable, Sendable {
        case durable
        /// Nothing was changed, for this reason; for a person who runs the server, like that of `unavailable`.
        case failed(String)
        /// Nothing was changed, because the store holds this newer (or the same) record: another instance took it.
        case outrun(by: StoredMapping)
        /// Nothing was changed, because the store holds these rows in other versions than the change was to replace (a row without a value: there is
        /// none), or another record of an HoA that the change relied on.
        case conflict([StoredRow])
    }

    public var ticket: StoreTicket
    public var result: Result

    public init(_ ticket: StoreTicket, _ result: Result) {
        self.ticket = ticket
        self.result = result
    }
}

/// A part of what the store holds, as it is read at a start.
public struct StoreContents: Sendable {
    public var mappings = PackedMappings()
    /// The newest certificate issued of each HoA.
    public var issued: [Certificate] = []
    public var rows: [StoredRow] = []
    /// Rows that could not be read. They stay in the file; the rest is served.
    public var unreadable: [String] = []
    /// Whatever should be let go when this part has been taken in.
    package var lease: (any Sendable)?

    public init() {}
    public init(mappings: [StoredMapping], issued: [Certificate] = []) {
        for mapping in mappings { self.mappings.append(mapping) }
        self.issued = issued
    }

    public var isEmpty: Bool { mappings.isEmpty && issued.isEmpty && rows.isEmpty && unreadable.isEmpty }
}

/// A secret that server cookies are made with.
public struct CookieSecret: Hashable, Sendable {
    public static let octetsCount = 16
    public var octets: [UInt8]
    /// Unix time in ms.
    public var madeAt: UInt64

    public init(octets: [UInt8], madeAt: UInt64) {
        self.octets = octets
        self.madeAt = madeAt
    }
}

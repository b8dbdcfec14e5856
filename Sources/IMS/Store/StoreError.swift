import MATSignal

/// Why the store can't be used or did not take a change, in words that say what to do.
public struct StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// All that the store holds, as it is read at a start.
public struct StoreContents: Sendable {
    public var mappings: [StoredMapping] = []
    public var issued: [Certificate] = []
    /// 16 octets each, the current one first, at most two.
    public var cookieSecrets: [CookieSecret] = []
    /// Rows that could not be read. They stay in the file; the rest is served.
    public var unreadable: [String] = []
}

/// A secret that server cookies are made with.
public struct CookieSecret: Hashable, Sendable {
    public var octets: [UInt8]
    /// Unix time in ms.
    public var madeAt: UInt64

    public init(octets: [UInt8], madeAt: UInt64) {
        self.octets = octets
        self.madeAt = madeAt
    }
}

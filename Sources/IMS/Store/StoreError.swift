import MATSignal

/// Why the store can't be used or did not take a change, in words that say what to do.
public struct StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// A part of what the store holds, as it is read at a start.
public struct StoreContents: Sendable {
    public var mappings = PackedMappings()
    /// The newest certificate issued of each HoA.
    public var issued: [Certificate] = []
    /// Rows that could not be read. They stay in the file; the rest is served.
    public var unreadable: [String] = []

    public init() {}
    public init(mappings: [StoredMapping], issued: [Certificate] = []) {
        for mapping in mappings { self.mappings.append(mapping) }
        self.issued = issued
    }

    public var isEmpty: Bool { mappings.isEmpty && issued.isEmpty && unreadable.isEmpty }
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

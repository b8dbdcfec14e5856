/// Something small that is durable beside mappings and certificates: what joining keeps (protocol.md section 12).
///
/// Several servers may write one at a time. So each write names what it replaces: the store takes version n only over version n - 1, 0 being
/// none, and tells who came too late what there is.
public struct StoredRow: Hashable, Sendable {
    public enum Kind: UInt8, Hashable, Sendable, CaseIterable {
        case token = 1
        case lease = 2
        /// Of servers that share a store only.
        case visitorGate = 3
    }

    public var kind: Kind
    public var key: [UInt8]
    public var value: [UInt8]
    /// Grows by one with each write.
    public var version: UInt64

    public init(_ kind: Kind, key: [UInt8], value: [UInt8], version: UInt64) {
        self.kind = kind
        self.key = key
        self.value = value
        self.version = version
    }
}

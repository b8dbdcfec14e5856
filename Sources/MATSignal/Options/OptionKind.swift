/// What an option holds (sections 3, 11 and 12).
public struct OptionKind: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

    @inlinable public static var pad: OptionKind { OptionKind(rawValue: 0x0001) }
    @inlinable public static var cookie: OptionKind { OptionKind(rawValue: 0x0002) }
    @inlinable public static var hoa: OptionKind { OptionKind(rawValue: 0x0003) }
    @inlinable public static var moa: OptionKind { OptionKind(rawValue: 0x0004) }
    @inlinable public static var peerHoA: OptionKind { OptionKind(rawValue: 0x0005) }
    @inlinable public static var mapping: OptionKind { OptionKind(rawValue: 0x0006) }
    @inlinable public static var signature: OptionKind { OptionKind(rawValue: 0x0007) }
    @inlinable public static var certificate: OptionKind { OptionKind(rawValue: 0x0008) }
    @inlinable public static var lifetime: OptionKind { OptionKind(rawValue: 0x0009) }
    @inlinable public static var subscribe: OptionKind { OptionKind(rawValue: 0x000A) }
    @inlinable public static var locatorProof: OptionKind { OptionKind(rawValue: 0x000B) }
    @inlinable public static var observed: OptionKind { OptionKind(rawValue: 0x000C) }
    @inlinable public static var certID: OptionKind { OptionKind(rawValue: 0x000D) }
    @inlinable public static var text: OptionKind { OptionKind(rawValue: 0x000F) }
    @inlinable public static var xObserved: OptionKind { OptionKind(rawValue: 0x0010) }
    @inlinable public static var challenge: OptionKind { OptionKind(rawValue: 0x0011) }
    @inlinable public static var pathSignature: OptionKind { OptionKind(rawValue: 0x0012) }
    @inlinable public static var candidates: OptionKind { OptionKind(rawValue: 0x0013) }
    @inlinable public static var role: OptionKind { OptionKind(rawValue: 0x0014) }
    @inlinable public static var endpointProof: OptionKind { OptionKind(rawValue: 0x0015) }
    @inlinable public static var publicKey: OptionKind { OptionKind(rawValue: 0x0016) }
    @inlinable public static var tokenProof: OptionKind { OptionKind(rawValue: 0x0017) }
    @inlinable public static var wanted: OptionKind { OptionKind(rawValue: 0x0018) }

    /// A receiver that does not know a critical option must not act on the message.
    public var isCritical: Bool { rawValue >= 0x8000 }

    public var description: String { OptionTable.standard.name(self) }
}

// MARK: Places in a table

extension OptionKind {
    /// Whether a table has a place for it: the first 32 kinds, and the first 32 critical ones.
    @inlinable @inline(__always) public var hasSlot: Bool { rawValue & 0x7FE0 == 0 }

    /// Its place in a table, 0..<64.
    @inlinable @inline(__always) public var slot: Int { Int(rawValue & 0x1F | rawValue >> 10 & 0x20) }

    /// Of what is kept as a set of options.
    @inlinable @inline(__always) public var bit: UInt64 { 1 << UInt64(rawValue & 0x1F | rawValue >> 10 & 0x20) }

    public init(slot: Int) { self.init(rawValue: UInt16(slot & 0x1F | (slot & 0x20) << 10)) }
}

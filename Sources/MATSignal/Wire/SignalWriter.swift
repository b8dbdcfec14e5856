/// Writes big-endian fields; the mirror of `SignalReader`.
public struct SignalWriter {
    public private(set) var octets: [UInt8] = []

    public init(reserving count: Int = 512) { octets.reserveCapacity(count) }

    public var count: Int { octets.count }

    public mutating func bytes(_ bytes: some Sequence<UInt8>) { octets.append(contentsOf: bytes) }
    public mutating func uint8(_ value: UInt8) { octets.append(value) }
    public mutating func uint16(_ value: UInt16) { number(value) }
    public mutating func uint32(_ value: UInt32) { number(value) }
    public mutating func uint64(_ value: UInt64) { number(value) }
    public mutating func zeros(_ count: Int) { octets.append(contentsOf: repeatElement(0, count: max(0, count))) }

    public mutating func address(_ address: IPAddress) {
        uint64(address.high)
        uint64(address.low)
    }

    /// Fills in a field whose value is known only after what follows it, such as a length.
    public mutating func patch(uint8 value: UInt8, at index: Int) {
        if octets.indices.contains(index) { octets[index] = value }
    }

    public mutating func patch(uint16 value: UInt16, at index: Int) {
        patch(uint8: UInt8(value >> 8), at: index)
        patch(uint8: UInt8(truncatingIfNeeded: value), at: index + 1)
    }

    private mutating func number(_ value: some FixedWidthInteger & BitwiseCopyable) {
        withUnsafeBytes(of: value.bigEndian) { octets.append(contentsOf: $0) }
    }
}

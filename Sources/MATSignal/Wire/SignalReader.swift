/// Reads big-endian fields off octets that came from the network. Every read is bounded; nothing traps.
public struct SignalReader {
    private let octets: [UInt8]
    private var position: Int
    private let end: Int

    public init(_ octets: [UInt8]) {
        self.init(octets, 0..<octets.count)
    }

    /// - Parameter range: must lie within `octets`; what sticks out is cut off.
    public init(_ octets: [UInt8], _ range: Range<Int>) {
        self.octets = octets
        let range = range.clamped(to: 0..<octets.count)
        position = range.lowerBound
        end = range.upperBound
    }

    public var remaining: Int { end - position }
    public var isAtEnd: Bool { position == end }

    /// The next `count` octets, named `field` in the error.
    public mutating func bytes(_ count: Int, _ field: @autoclosure () -> String) throws(SignalError) -> [UInt8] {
        guard count >= 0, count <= remaining else { throw short(field(), count) }
        defer { position += count }
        return Array(octets[position..<position + count])
    }

    public mutating func uint8(_ field: @autoclosure () -> String) throws(SignalError) -> UInt8 {
        guard remaining >= 1 else { throw short(field(), 1) }
        defer { position += 1 }
        return octets[position]
    }

    public mutating func uint16(_ field: @autoclosure () -> String) throws(SignalError) -> UInt16 {
        UInt16(truncatingIfNeeded: try number(2, field()))
    }

    public mutating func uint32(_ field: @autoclosure () -> String) throws(SignalError) -> UInt32 {
        UInt32(truncatingIfNeeded: try number(4, field()))
    }

    public mutating func uint64(_ field: @autoclosure () -> String) throws(SignalError) -> UInt64 {
        try number(8, field())
    }

    /// An address field of a message. Section 2: an address that names no single host makes the message malformed.
    public mutating func address(_ field: @autoclosure () -> String) throws(SignalError) -> IPAddress {
        let address = IPAddress(high: try number(8, field()), low: try number(8, field()))
        guard address.isUsableUnicast else {
            throw .malformed("\(field()) is \(address), which no host can have here (unspecified, multicast, broadcast, loopback or link-local)")
        }
        return address
    }

    /// Refuses octets behind the last field: what we can't read we must not pass on.
    public func finish(_ what: @autoclosure () -> String) throws(SignalError) {
        guard isAtEnd else { throw .malformed("\(what()) has \(remaining) octets too many") }
    }

    private mutating func number(_ count: Int, _ field: @autoclosure () -> String) throws(SignalError) -> UInt64 {
        guard count <= remaining else { throw short(field(), count) }
        var value: UInt64 = 0
        for index in position..<position + count { value = value << 8 | UInt64(octets[index]) }
        position += count
        return value
    }

    private func short(_ field: String, _ count: Int) -> SignalError {
        .malformed("\(field) needs \(count) octets, \(remaining) are left")
    }
}

/// Octets that came from the network, looked at where they lie: nothing is copied or allocated. Whoever makes a view keeps the octets
/// in place and unchanged for as long as the view is used.
///
/// Every read is total: what lies outside reads as zero, so that a length that was believed too early can neither end the process nor
/// show what lies behind the datagram.
public struct OctetView {
    @usableFromInline let base: UnsafeRawPointer?
    public let count: Int

    @inlinable @inline(__always)
    public init(_ octets: UnsafeRawBufferPointer) {
        base = octets.baseAddress
        count = octets.baseAddress == nil ? 0 : octets.count
    }

    @inlinable @inline(__always)
    func number<Number: FixedWidthInteger & BitwiseCopyable>(at place: Int, as type: Number.Type) -> Number {
        // Where there is no base there are no octets.
        guard place >= 0, place <= count &- MemoryLayout<Number>.size else { return 0 }
        return Number(bigEndian: base.unsafelyUnwrapped.loadUnaligned(fromByteOffset: place, as: Number.self))
    }

    /// The same where the caller has shown that the number lies inside.
    @inline(__always)
    func known<Number: FixedWidthInteger & BitwiseCopyable>(at place: Int, as type: Number.Type) -> Number {
        assert(place >= 0 && place <= count - MemoryLayout<Number>.size)
        return Number(bigEndian: base.unsafelyUnwrapped.loadUnaligned(fromByteOffset: place, as: Number.self))
    }

    @inlinable @inline(__always)
    public func uint8(at place: Int) -> UInt8 { number(at: place, as: UInt8.self) }

    @inlinable @inline(__always)
    public func uint16(at place: Int) -> UInt16 { number(at: place, as: UInt16.self) }

    @inlinable @inline(__always)
    public func uint32(at place: Int) -> UInt32 { number(at: place, as: UInt32.self) }

    @inlinable @inline(__always)
    public func uint64(at place: Int) -> UInt64 { number(at: place, as: UInt64.self) }

    @inlinable @inline(__always)
    public func address(at place: Int) -> IPAddress { IPAddress(high: uint64(at: place), low: uint64(at: place &+ 8)) }

    /// Whether there are only zeros in the range, which may be long: padding is hundreds of octets.
    @inlinable @inline(__always)
    public func isZero(_ range: Range<Int>) -> Bool {
        var place = range.lowerBound
        while place &+ 8 <= range.upperBound {
            guard uint64(at: place) == 0 else { return false }
            place &+= 8
        }
        while place < range.upperBound {
            guard uint8(at: place) == 0 else { return false }
            place &+= 1
        }
        return true
    }

    /// The octets of the range alone, cut to what is there.
    @inlinable @inline(__always)
    public func part(_ range: Range<Int>) -> OctetView { OctetView(octets(range)) }

    @inlinable @inline(__always)
    public func octets(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        let range = range.clamped(to: 0..<count)
        return UnsafeRawBufferPointer(start: base.map { $0 + range.lowerBound }, count: range.count)
    }

    public func array(_ range: Range<Int>) -> [UInt8] { Array(octets(range)) }
}

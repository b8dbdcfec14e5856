/// Internet checksums (RFC 1071) that are changed by what changes in the packet (RFC 1624): one that was wrong stays wrong, as behind any NAT.
struct Checksum {
    /// In ones' complement, not folded. 65,535 words of 16 bits fit before it could overflow.
    private var sum: UInt64

    /// The sum that a checksum field stands for.
    init(field: UInt16) { sum = UInt64(~field) }
    init() { sum = 0 }

    mutating func add(_ octets: ArraySlice<UInt8>) {
        var index = octets.startIndex
        while index + 1 < octets.endIndex {
            sum += UInt64(octets[index]) << 8 | UInt64(octets[index + 1])
            index += 2
        }
        if index < octets.endIndex { sum += UInt64(octets[index]) << 8 }
    }

    mutating func add(_ octets: [UInt8]) { add(octets[...]) }
    mutating func add(_ word: UInt16) { sum += UInt64(word) }

    mutating func remove(_ octets: ArraySlice<UInt8>) {
        var removed = Checksum()
        removed.add(octets)
        sum += UInt64(~removed.folded)
    }

    mutating func remove(_ octets: [UInt8]) { remove(octets[...]) }
    mutating func remove(_ word: UInt16) { sum += UInt64(~word) }

    private var folded: UInt16 {
        var sum = sum
        while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
        return UInt16(sum)
    }

    var field: UInt16 { ~folded }
}

import MATSignal

/// What tells an IP packet's two forms, inside and outside, to be one: everything but addresses and the sums that cover them.
struct PacketView {
    /// Of the packet behind the addresses: protocol, length, and as many octets as tell one packet from the next. Sums are left out, since
    /// addresses are in them.
    struct Print: Hashable {
        var number: UInt8
        var length: Int
        var octets: [UInt8]

        static let octetsMax = 64
    }

    var source: IPAddress
    var destination: IPAddress
    /// TCP 6, UDP 17, ICMP 1, ICMPv6 58.
    var number: UInt8
    /// Of UDP.
    var ports: (source: UInt16, destination: UInt16)?
    /// Where the upper protocol begins, and where UDP's payload.
    var upper: Int
    var print: Print

    /// - Parameters:
    ///   - octets: its beginning, or all of it.
    ///   - length: of the whole packet.
    /// - Returns: `nil` for what is no IP packet.
    init?(_ octets: ArraySlice<UInt8>, length: Int) {
        let octets = Array(octets)
        func word(_ index: Int) -> UInt16 { UInt16(octets[index]) << 8 | UInt16(octets[index + 1]) }
        switch octets.first.map({ $0 >> 4 }) {
        case 4?:
            let header = Int(octets[0] & 0xF) * 4
            guard header >= 20, octets.count >= header, let source = IPAddress(octets: octets[12..<16]),
                let destination = IPAddress(octets: octets[16..<20])
            else { return nil }
            (self.source, self.destination, number, upper) = (source, destination, octets[9], header)
        case 6?:
            guard octets.count >= 40, let source = IPAddress(octets: octets[8..<24]), let destination = IPAddress(octets: octets[24..<40])
            else { return nil }
            (self.source, self.destination, number, upper) = (source, destination, octets[6], 40)
        default: return nil
        }
        var rest = Array(octets[upper...].prefix(Print.octetsMax))
        // Where each has its sum.
        let sum: Int? = number == 6 ? 16 : number == 17 ? 6 : number == 1 || number == 58 ? 2 : nil
        if let sum, rest.count >= sum + 2 { (rest[sum], rest[sum + 1]) = (0, 0) }
        print = Print(number: number, length: length - upper, octets: rest)
        if number == 17, octets.count >= upper + 8 { ports = (word(upper), word(upper + 2)) }
    }
}

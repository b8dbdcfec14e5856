import MATSignal

/// The prefix by which a network's NAT64 is reached: an IPv4 address stands in the IPv6 address (RFC 6052).
package struct NAT64Prefix: Hashable, Sendable, CustomStringConvertible {
    /// As long as RFC 6052 knows them.
    package static let lengths: [UInt8] = [96, 64, 56, 48, 40, 32]
    /// 64:ff9b::/96, which no network has for itself.
    package static let wellKnown = NAT64Prefix(high: 0x0064_FF9B_0000_0000, low: 0, length: 96)

    private let high: UInt64
    private let low: UInt64
    private let length: UInt8

    private init(high: UInt64, low: UInt64, length: UInt8) { (self.high, self.low, self.length) = (high, low, length) }

    /// - Returns: `nil` if it is none: of IPv4, of another length, or with something in octet 8, which is 0 in each such address.
    package init?(_ prefix: IPPrefix) {
        guard prefix.family == .ipv6, Self.lengths.contains(prefix.length), prefix.address.low >> 56 == 0, !prefix.address.isMulticast else {
            return nil
        }
        self.init(high: prefix.address.high, low: prefix.address.low, length: prefix.length)
    }

    /// The prefix that the answers for ipv4only.arpa show (RFC 7050): its IPv4 addresses are known to be 192.0.0.170 and .171.
    package init?(wellKnownNameAt answers: [IPAddress]) {
        for answer in answers where !answer.isIPv4 {
            for length in Self.lengths {
                guard let prefix = NAT64Prefix(IPPrefix(covering: answer, length: length)), let inside = prefix.extract(answer)?.ipv4,
                    inside == 0xC000_00AA || inside == 0xC000_00AB
                else { continue }
                self = prefix
                return
            }
        }
        return nil
    }

    package var description: String { "\(IPAddress(high: high, low: low))/\(length)" }

    /// The address that leads to an IPv4 host.
    package func synthesise(_ address: IPAddress) -> IPAddress? {
        guard let ipv4 = address.ipv4.map(UInt64.init) else { return nil }
        switch length {
        case 96: return IPAddress(high: high, low: low | ipv4)
        case 64: return IPAddress(high: high, low: ipv4 << 24)
        default:
            // Octet 8 stays free: what does not fit before it comes after it.
            let before = UInt64(64 - length)
            let head = ipv4 >> (32 - before)
            let tail = before == 32 ? 0 : ipv4 << (56 - (32 - before)) & 0x00FF_FFFF_FFFF_FFFF
            return IPAddress(high: high | head, low: tail)
        }
    }

    /// The IPv4 host that an address leads to; `nil` if it does not belong to the prefix.
    package func extract(_ address: IPAddress) -> IPAddress? {
        guard !address.isIPv4 else { return nil }
        let ipv4: UInt64
        switch length {
        case 96: ipv4 = address.low & 0xFFFF_FFFF
        case 64: ipv4 = address.low >> 24 & 0xFFFF_FFFF
        default:
            let before = UInt64(64 - length)
            let head = address.high & (1 << before - 1)
            ipv4 = head << (32 - before) | (before == 32 ? 0 : address.low & 0x00FF_FFFF_FFFF_FFFF) >> (56 - (32 - before)) & 0xFFFF_FFFF
        }
        let result = IPAddress(ipv4: UInt32(truncatingIfNeeded: ipv4))
        return synthesise(result) == address ? result : nil
    }
}

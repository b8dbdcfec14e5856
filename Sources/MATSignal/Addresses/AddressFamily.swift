/// IPv4 or IPv6. Everything that has to do with packets is of one family: a packet has one header, so its two addresses, the entry
/// that rewrites them, the route that it takes and the socket that sends it agree. In order, IPv4 first.
public enum AddressFamily: UInt8, Hashable, Sendable, Comparable, CaseIterable, CustomStringConvertible {
    case ipv4 = 4
    case ipv6 = 6

    /// Bits of an address in a packet: the longest prefix length that people write.
    public var addressBits: UInt8 { self == .ipv4 ? 32 : 128 }

    /// Octets of an address in a packet.
    public var addressOctets: Int { self == .ipv4 ? 4 : 16 }

    /// Octets of a packet's header, without options and extension headers.
    public var headerOctets: Int { self == .ipv4 ? 20 : 40 }

    /// Bits of the 16-octet form that stand before the family's own address: those of `::ffff:0:0/96` for IPv4, none for IPv6
    /// (protocol.md section 1).
    public var leadingBits: UInt8 { 128 - addressBits }

    public var description: String { self == .ipv4 ? "IPv4" : "IPv6" }

    public static func < (a: AddressFamily, b: AddressFamily) -> Bool { a.rawValue < b.rawValue }
}

extension IPAddress {
    public var family: AddressFamily { isIPv4 ? .ipv4 : .ipv6 }
}

extension HomeAddress {
    public var family: AddressFamily { address.family }
}

extension MobileAddress {
    public var family: AddressFamily { address.family }
}

extension Endpoint {
    public var family: AddressFamily { address.family }
}

extension IPPrefix {
    /// The family whose addresses the prefix covers. A prefix that is shorter than `::ffff:0:0/96` covers IPv6 addresses too.
    public var family: AddressFamily { isIPv4 ? .ipv4 : .ipv6 }
}

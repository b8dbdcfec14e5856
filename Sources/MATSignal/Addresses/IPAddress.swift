import var Glibc.AF_INET
import var Glibc.AF_INET6
import var Glibc.INET6_ADDRSTRLEN
import struct Glibc.in6_addr
import struct Glibc.in_addr
// The C library's reader and writer of address text, and nothing else of it: this module does no I/O.
import func Glibc.inet_ntop
import func Glibc.inet_pton
import typealias Glibc.socklen_t

/// An address of either family in its 16-octet form: an IPv6 address, or an IPv4 address as `::ffff:a.b.c.d`
/// (protocol.md section 1). One representation for both families keeps every table and every message field dual-stack.
///
/// Code that knows which role an address plays uses `HomeAddress` or `MobileAddress`; this type is for what has no
/// role: packet headers, sockets, DNS targets.
public struct IPAddress: Hashable, Sendable, Comparable {
    /// The first eight octets as a big-endian number.
    public var high: UInt64
    /// The last eight octets as a big-endian number.
    public var low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// The IPv4 address `a.b.c.d`, given as a number in host order (`0xC0000201` is 192.0.2.1).
    public init(ipv4: UInt32) {
        self.init(high: 0, low: 0x0000_FFFF_0000_0000 | UInt64(ipv4))
    }

    /// - Parameter octets: 16 octets (either family) or 4 octets (IPv4); `nil` for any other count.
    public init?(octets: some Collection<UInt8>) {
        switch octets.count {
        case 4:
            self.init(ipv4: octets.reduce(0) { $0 << 8 | UInt32($1) })
        case 16:
            self.init(
                high: octets.prefix(8).reduce(0) { $0 << 8 | UInt64($1) },
                low: octets.dropFirst(8).reduce(0) { $0 << 8 | UInt64($1) })
        default:
            return nil
        }
    }

    public var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// The IPv4 address as a number in host order; `nil` for IPv6.
    public var ipv4: UInt32? { isIPv4 ? UInt32(truncatingIfNeeded: low) : nil }

    /// All 16 octets, IPv4 in mapped form.
    public var octets: [UInt8] {
        var result = [UInt8]()
        result.reserveCapacity(16)
        for shift in stride(from: 56, through: 0, by: -8) { result.append(UInt8(truncatingIfNeeded: high >> UInt64(shift))) }
        for shift in stride(from: 56, through: 0, by: -8) { result.append(UInt8(truncatingIfNeeded: low >> UInt64(shift))) }
        return result
    }

    /// The octets as they stand in a packet of the address's own family: 4 or 16.
    public var packetOctets: [UInt8] { octets.suffix(family.addressOctets) }

    public static func < (a: IPAddress, b: IPAddress) -> Bool { (a.high, a.low) < (b.high, b.low) }

    public static let unspecifiedIPv6 = IPAddress(high: 0, low: 0)
    public static let unspecifiedIPv4 = IPAddress(ipv4: 0)
}

/// Among whom an address means the same host.
public enum AddressScope: Hashable, Sendable {
    case global
    /// RFC 1918.
    case privateUse
    /// RFC 6598: between a provider's translator and its customers.
    case shared
    /// RFC 4193, and the prefix of local translators (RFC 8215).
    case uniqueLocal
    /// No host's at all, or only on one link or machine.
    case none
}

// MARK: - What kind of address it is

extension IPAddress {
    public var isUnspecified: Bool { (high == 0 && low == 0) || ipv4 == 0 }

    public var isLoopback: Bool {
        if let v4 = ipv4 { return v4 >> 24 == 127 }
        return high == 0 && low == 1
    }

    public var isMulticast: Bool {
        if let v4 = ipv4 { return v4 >> 28 == 0xE }
        return high >> 56 == 0xFF
    }

    /// The limited broadcast address; directed broadcasts can't be told without the network's mask.
    public var isBroadcast: Bool { ipv4 == 0xFFFF_FFFF }

    public var isLinkLocal: Bool {
        if let v4 = ipv4 { return v4 >> 16 == 0xA9FE }
        return high >> 54 == 0x3FA
    }

    /// Where the address means the same host to everybody (section 6). An IPv6 address that carries an IPv4 address by 6to4, Teredo or
    /// NAT64 leads to that host, so its scope is that of the IPv4 address in it.
    public var scope: AddressScope {
        if let embedded = embeddedIPv4 { return embedded.scope }
        if let v4 = ipv4 {
            if v4 >> 24 == 10 || v4 >> 20 == 0xAC1 || v4 >> 16 == 0xC0A8 { return .privateUse }
            if v4 >> 22 == 0x191 { return .shared }
        } else if high >> 57 == 0x7E || high >> 16 == 0x0064_FF9B_0001 {
            return .uniqueLocal
        }
        return isUsableUnicast ? .global : .none
    }

    /// The IPv4 address in an address of 6to4 (RFC 3056), Teredo (RFC 4380; the client's, which stands there inverted) or NAT64 (RFC 6052).
    public var embeddedIPv4: IPAddress? {
        if high >> 48 == 0x2002 { return IPAddress(ipv4: UInt32(truncatingIfNeeded: high >> 16)) }
        if high >> 32 == 0x2001_0000 { return IPAddress(ipv4: ~UInt32(truncatingIfNeeded: low)) }
        if high == 0x0064_FF9B_0000_0000, low >> 32 == 0 { return IPAddress(ipv4: UInt32(truncatingIfNeeded: low)) }
        return nil
    }

    /// Whether the address may stand in an address field of a message: section 2 calls a message with any other malformed, and lists
    /// them all.
    public var isUsableUnicast: Bool {
        // The query path asks this of every address, so the kinds are not looked at one by one: not unspecified, loopback, multicast,
        // broadcast or link-local.
        guard high == 0 else { return high >> 56 != 0xFF && high >> 54 != 0x3FA }
        guard low >> 32 == 0xFFFF else { return low > 1 }
        let ipv4 = UInt32(truncatingIfNeeded: low)
        return ipv4 != 0 && ipv4 >> 24 != 127 && ipv4 >> 28 != 0xE && ipv4 != 0xFFFF_FFFF && ipv4 >> 16 != 0xA9FE
    }
}

// MARK: - Text

extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
    /// Parses dotted-quad IPv4 or RFC 4291 IPv6 text, without zone or prefix length.
    public init?(_ text: String) {
        var v4 = in_addr()
        if inet_pton(AF_INET, text, &v4) == 1 {
            self.init(ipv4: UInt32(bigEndian: v4.s_addr))
            return
        }
        var v6 = in6_addr()
        guard inet_pton(AF_INET6, text, &v6) == 1 else { return nil }
        let octets = withUnsafeBytes(of: &v6) { Array($0) }
        self.init(octets: octets)
    }

    /// Dotted quad for IPv4, RFC 5952 for IPv6.
    public var description: String {
        var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let octets = packetOctets
        let family = family == .ipv4 ? AF_INET : AF_INET6
        let written = octets.withUnsafeBytes { inet_ntop(family, $0.baseAddress, &buffer, socklen_t(INET6_ADDRSTRLEN)) }
        guard written != nil else { return "invalid" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// An address prefix in the 16-octet form: an IPv4 /24 has length 120 (protocol.md section 1). Bits beyond the length
/// are zero, so two equal prefixes compare equal.
public struct IPPrefix: Hashable, Sendable, Comparable, CustomStringConvertible, LosslessStringConvertible {
    public let address: IPAddress
    /// 0...128, counted in the 16-octet form.
    public let length: UInt8

    /// - Returns: `nil` if the length is over 128 or a bit beyond it is set.
    public init?(_ address: IPAddress, length: UInt8) {
        guard length <= 128, address.masked(to: length) == address else { return nil }
        self.address = address
        self.length = length
    }

    /// The prefix of `length` bits (at most 128) that covers the address.
    public init(covering address: IPAddress, length: UInt8) {
        self.length = min(length, 128)
        self.address = address.masked(to: self.length)
    }

    /// The host prefix: this address alone.
    public init(_ address: IPAddress) {
        self.init(covering: address, length: 128)
    }

    public var isIPv4: Bool { address.isIPv4 && length >= 96 }

    /// The length as people write it: /24 for IPv4, /64 for IPv6.
    public var familyLength: UInt8 { length - family.leadingBits }

    /// A network, and smaller than a zone of the reverse tree: a zone for it alone is of RFC 2317.
    package var isClasslessNetwork: Bool { family == .ipv4 && familyLength > 24 && familyLength < 32 }

    /// What is to be said where the keys for a network's certificate are missing: its name in the DNS may be that of a larger one (protocol.md
    /// section 8), so that a zone of its own says nothing of it.
    package var keysNote: String {
        guard isClasslessNetwork else { return "" }
        return
            "; of a network longer than /24 they are to be in the zone of the /24, since one that is delegated for it (RFC 2317) vouches for single addresses only"
    }

    public func contains(_ other: IPAddress) -> Bool { other.masked(to: length) == address }

    public func contains(_ other: IPPrefix) -> Bool { other.length >= length && contains(other.address) }

    public static func < (a: IPPrefix, b: IPPrefix) -> Bool { (a.address, a.length) < (b.address, b.length) }

    /// Parses `192.0.2.0/24`, `2001:db8::/32`, or an address without a length (a host prefix). Bits beyond the length
    /// are an error, as in `nft` and `ip route`: they are a typing mistake more often than a wish.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard let first = parts.first, let address = IPAddress(String(first)) else { return nil }
        switch parts.count {
        case 1:
            self.init(address)
        case 2:
            guard let given = UInt8(parts[1]), given <= address.family.addressBits else { return nil }
            self.init(address, length: given + address.family.leadingBits)
        default:
            return nil
        }
    }

    public var description: String { "\(address)/\(familyLength)" }
    /// As people write it: a single address without its length.
    package var shortText: String { length == 128 ? "\(address)" : description }
}

extension IPAddress {
    /// The address with all bits beyond `length` (0...128, 16-octet form) cleared.
    public func masked(to length: UInt8) -> IPAddress {
        // Shifts by the full width yield zero in Swift, so 0, 64 and 128 need no cases of their own.
        let highMask = length >= 64 ? UInt64.max : ~(UInt64.max >> UInt64(length))
        let lowMask = length >= 128 ? UInt64.max : length <= 64 ? 0 : ~(UInt64.max >> UInt64(length - 64))
        return IPAddress(high: high & highMask, low: low & lowMask)
    }

    /// This address with its first `length` bits replaced by the prefix's: translation of a mobile network's hosts (section 4).
    public func replacingPrefix(with prefix: IPAddress, length: UInt8) -> IPAddress {
        let kept = masked(to: length)
        let head = prefix.masked(to: length)
        return IPAddress(high: high ^ kept.high | head.high, low: low ^ kept.low | head.low)
    }
}

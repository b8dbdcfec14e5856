import MATCore
import MATSignal

extension DomainName {
    /// The reverse name of an address: `1.2.0.192.in-addr.arpa.`, or 32 nibbles under `ip6.arpa.`
    public static func reverse(_ address: IPAddress) -> DomainName { reverse(IPPrefix(address)) }

    public static func reverse(_ hoa: HomeAddress) -> DomainName { reverse(hoa.address) }

    /// The prefix's own name (protocol.md section 8): rounded down to whole octets (IPv4) or nibbles (IPv6), so 192.0.0.0/20 is
    /// found at `0.192.in-addr.arpa.`
    public static func reverse(_ prefix: IPPrefix) -> DomainName {
        let family = prefix.family
        let parts = ReverseLabels.of(prefix.address, family).prefix(Int(prefix.familyLength / family.reverseLabelBits))
        let zone = family == .ipv4 ? ["in-addr", "arpa"] : ["ip6", "arpa"]
        // At most 34 short labels always fit.
        return DomainName(labels: (parts.reversed() + zone).map { Array($0.utf8) }) ?? .root
    }
}

enum ReverseLabels {
    /// The address cut into the labels of its reverse tree, from the top: octets for IPv4, nibbles for IPv6.
    static func of(_ address: IPAddress, _ family: AddressFamily) -> [String] {
        switch family {
        case .ipv4: address.octets.suffix(4).map { String($0) }
        case .ipv6: address.octets.flatMap { [String($0 >> 4, radix: 16), String($0 & 15, radix: 16)] }
        }
    }
}

extension AddressFamily {
    /// Bits of an address that one label of the reverse tree stands for: an octet in `in-addr.arpa.`, a nibble in `ip6.arpa.`
    var reverseLabelBits: UInt8 { self == .ipv4 ? 8 : 4 }
}

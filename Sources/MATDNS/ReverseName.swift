import MATSignal

extension DomainName {
    /// The reverse name of an address: `1.2.0.192.in-addr.arpa.`, or 32 nibbles under `ip6.arpa.`
    public static func reverse(_ address: IPAddress) -> DomainName { reverse(IPPrefix(address)) }

    public static func reverse(_ hoa: HomeAddress) -> DomainName { reverse(hoa.address) }

    /// The prefix's own name (protocol.md section 8): rounded down to whole octets (IPv4) or nibbles (IPv6), so 192.0.0.0/20 is
    /// found at `0.192.in-addr.arpa.`
    public static func reverse(_ prefix: IPPrefix) -> DomainName {
        let bits = prefix.isIPv4 ? 8 : 4
        let parts = ReverseLabels.of(prefix.address, isIPv4: prefix.isIPv4).prefix(Int(prefix.familyLength) / bits)
        let zone = prefix.isIPv4 ? ["in-addr", "arpa"] : ["ip6", "arpa"]
        // At most 34 short labels always fit.
        return DomainName(labels: (parts.reversed() + zone).map { Array($0.utf8) }) ?? .root
    }
}

enum ReverseLabels {
    /// The address cut into the labels of its reverse tree, from the top: octets for IPv4, nibbles for IPv6.
    static func of(_ address: IPAddress, isIPv4: Bool) -> [String] {
        isIPv4
            ? address.octets.suffix(4).map { String($0) }
            : address.octets.flatMap { [String($0 >> 4, radix: 16), String($0 & 15, radix: 16)] }
    }
}

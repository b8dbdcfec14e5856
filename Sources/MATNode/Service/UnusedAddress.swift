import IMTPlan
import MATSignal

/// An address of this host that is no MoA, and why: whoever wonders where a link has gone finds it in `mat status`.
struct UnusedAddress: Hashable, Sendable {
    var address: IPAddress
    var interface: String
    var reason: String
}

extension NodeConfiguration {
    /// Addresses of one link and family that are used at most: enough for a record, and a link with hundreds crowds nobody out.
    static let addressesPerLinkMax = 16

    /// Tells addresses that can be MoAs from those that can't. Link-local ones are not worth a word.
    func sort(_ addresses: [LocalAddress]) -> (usable: [LocalAddress], unused: [UnusedAddress]) {
        var usable: [LocalAddress] = []
        var unused: [UnusedAddress] = []
        for address in addresses where !address.address.isLinkLocal {
            let count = usable.count { $0.interfaceIndex == address.interfaceIndex && $0.address.isIPv4 == address.address.isIPv4 }
            guard let reason = reasonAgainst(address, among: count) else {
                usable.append(address)
                continue
            }
            unused.append(UnusedAddress(address: address.address, interface: address.interface, reason: reason))
        }
        return (usable, unused)
    }

    private func reasonAgainst(_ address: LocalAddress, among count: Int) -> String? {
        let interface = address.interface
        if !mayUse(interface: interface) { return "interfaces: ignore in matd.yaml names \(interface)" }
        if !address.linkUp { return "\(interface) is down or has no carrier" }
        if address.dadFailed { return "another host on the link has this address (duplicate)" }
        if address.isTentative { return "whether another host has this address is being found out (tentative)" }
        if !address.isUsable { return "it is valid on its link only" }
        if !address.hasDefaultRoute, needsDefaultRoute {
            return "\(interface) has no \(address.address.isIPv4 ? "IPv4" : "IPv6") default route; if its network needs none, set interfaces: need-default-route: false in matd.yaml"
        }
        if count >= Self.addressesPerLinkMax { return "\(interface) has more than \(Self.addressesPerLinkMax) addresses" }
        return nil
    }
}

import IMTPlan
import MATCore
import MATSignal

/// An address of this host that is no MoA, and why: whoever wonders where a link has gone finds it in `mat status`.
package struct UnusedAddress: Hashable, Sendable {
    package var address: IPAddress
    package var interface: String
    package var reason: String
}

/// Which of this host's addresses are the node's MoAs, as its configuration says.
package struct AddressRules: Sendable {
    package struct Home: Sendable {
        package var hoa: HomeAddress
        /// The HoA alone, or a mobile network's home prefix.
        package var prefix: IPPrefix
        /// A mobile network's places, by interface.
        package var mobilePrefixes: [String: IPPrefix]

        package init(hoa: HomeAddress, prefix: IPPrefix, mobilePrefixes: [String: IPPrefix] = [:]) {
            self.hoa = hoa
            self.prefix = prefix
            self.mobilePrefixes = mobilePrefixes
        }
    }

    package var homes: [Home]
    /// Interfaces whose addresses are never used. An entry may end in `*`.
    package var ignoredInterfaces: [String] = []
    /// An address counts only once its interface has a default route.
    package var needsDefaultRoute = true

    package init(homes: [Home]) { self.homes = homes }

    /// Whether an interface's addresses may serve as locators.
    package func mayUse(interface: String) -> Bool {
        !ignoredInterfaces.contains { pattern in
            pattern.hasSuffix("*") ? interface.hasPrefix(pattern.dropLast()) : interface == pattern
        }
    }

    /// Addresses of one link and family that are used at most: enough for a record, and a link with hundreds crowds nobody out.
    package static let addressesPerLinkMax = 16

    /// Tells addresses that can be MoAs from those that can't. Link-local ones are not worth a word.
    package func sort(_ addresses: [LocalAddress]) -> (usable: [LocalAddress], unused: [UnusedAddress]) {
        var usable: [LocalAddress] = []
        var unused: [UnusedAddress] = []
        for address in addresses where !address.address.isLinkLocal {
            let count = usable.count { $0.interfaceIndex == address.interfaceIndex && $0.address.family == address.address.family }
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
            return
                "\(interface) has no \(address.address.family) default route; if its network needs none, set interfaces: need-default-route: false in matd.yaml"
        }
        if count >= Self.addressesPerLinkMax { return "\(interface) has more than \(Self.addressesPerLinkMax) addresses" }
        return nil
    }

    /// Where the node's HoAs of each family can be reached: at usable addresses as they are or, for a mobile network, at the MoPres of the
    /// interfaces that have one. What MAT sends and asks for a network comes from its MoPre's base address, which the TUN device carries.
    package func places(of usable: [LocalAddress]) -> [LocalAddress] {
        var places: [LocalAddress] = []
        for address in usable {
            let family = homes.filter { $0.hoa.family == address.address.family }
            // No home of a family: its addresses serve for asking servers.
            if family.isEmpty || family.contains(where: { $0.prefix.length == 128 }) { places.append(address) }
            // An interface with several addresses has one MoPre all the same.
            for home in family {
                guard let prefix = home.mobilePrefixes[address.interface],
                    !places.contains(where: { $0.address == prefix.address && $0.interface == address.interface })
                else { continue }
                var place = address
                place.address = prefix.address
                place.prefixLength = prefix.family.addressBits
                places.append(place)
            }
        }
        return places
    }
}

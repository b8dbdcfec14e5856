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
    /// What a network routes to this mobile router (MoPre).
    package struct MobilePrefix: Hashable, Sendable {
        package var interface: String
        package var prefix: IPPrefix
        /// The network is known by the address that it gives the interface; `nil`: whatever is behind the interface routes the prefix here.
        package var network: IPPrefix?

        package init(interface: String, prefix: IPPrefix, network: IPPrefix? = nil) {
            self.interface = interface
            self.prefix = prefix
            self.network = network
        }

        func isThere(with address: LocalAddress) -> Bool {
            interface == address.interface && prefix.family == address.address.family && network?.contains(address.address) ?? true
        }
    }

    package struct Home: Sendable {
        package var hoa: HomeAddress
        /// The HoA alone, or a mobile network's home prefix.
        package var prefix: IPPrefix
        /// A mobile network's places.
        package var mobilePrefixes: [MobilePrefix]

        package init(hoa: HomeAddress, prefix: IPPrefix, mobilePrefixes: [MobilePrefix] = []) {
            self.hoa = hoa
            self.prefix = prefix
            self.mobilePrefixes = mobilePrefixes
        }

        func mobilePrefix(with address: LocalAddress) -> IPPrefix? { mobilePrefixes.first { $0.isThere(with: address) }?.prefix }
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
    /// interfaces that have one. What MAT sends and asks for a network comes from its MoPre's base address, which the TUN device carries. Elsewhere
    /// a mobile network is reached by packets in datagrams, at the interface's own addresses.
    package func places(of usable: [LocalAddress]) -> [LocalAddress] {
        var places: [LocalAddress] = []
        for address in usable {
            let family = homes.filter { $0.hoa.family == address.address.family }
            // No home of a family: its addresses serve for asking servers.
            if family.isEmpty || family.contains(where: { $0.mobilePrefix(with: address) == nil }) { places.append(address) }
            // An interface with several addresses has one MoPre all the same.
            for home in family {
                guard let prefix = home.mobilePrefix(with: address),
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

    /// Whether this is a MoPre's base address, rather than an address of the interface.
    package func isMobilePrefix(_ place: LocalAddress) -> Bool {
        homes.contains { $0.mobilePrefixes.contains { $0.interface == place.interface && $0.prefix.address == place.address } }
    }
}

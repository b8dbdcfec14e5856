import MATCore
import MATSignal

// What is asked of the own addresses and HoAs everywhere.

extension NodeCore {
    /// What is known of whom requests go to.
    var servers: ServerTable { exchanges.servers }

    /// This core's share of a bound of the whole node.
    func share(of bound: Int) -> Int { configuration.share(of: bound) }

    /// Usable own addresses in order of preference.
    var ownLocators: [OwnLocator] { addresses.ordered }

    /// Own usable addresses of a family, in order of preference.
    func ownMoAs(_ family: AddressFamily) -> [MobileAddress] { addresses.of(family) }

    /// The locators that a record of this HoA is to list.
    func desiredLocators(of hoa: HomeAddress) -> [MobileAddress] {
        let places = OtherFamily.askedFirst(addresses.places(of: hoa), of: hoa.family, servers: homes[hoa]?.servers?.endpoints ?? [])
        guard let first = places.first else { return places }
        guard isOpen(first, for: hoa) else { return OtherFamily.beside(places, of: hoa.family, addresses.beside(hoa)) }
        guard peersOfOtherFamily.isAny(like: hoa), first.address.scope == .global, isRewritable(first, hoa) else { return places }
        // What a translator shows of an address stays so while a binding is held from there, for another HoA here.
        let lasting = addresses.beside(hoa).filter { ownEndpoints[$0.moa].endpoint == nil || bindings.isHeld(from: $0.moa) }
        return OtherFamily.beside(places, of: hoa.family, lasting)
    }

    /// The own HoA that talks to a peer: the one of its family.
    func home(for peer: HomeAddress) -> HomeAddress? { home(in: peer.family) }

    func home(in family: AddressFamily) -> HomeAddress? { homes.keys.first { $0.family == family } }

    /// The own home that speaks for a HoA: that HoA's, or the mobile network's that it is in.
    func home(speakingFor hoa: HomeAddress) -> Home? { homes.values.first { $0.prefix.contains(hoa.address) } }

    /// Whether an own MoA stands for a prefix that is routed to this node for an own HoA's network.
    func isRouted(_ moa: MobileAddress, to hoa: HomeAddress) -> Bool {
        homes[hoa]?.isNetwork == true && moa.family == hoa.family && addresses.isMobilePrefix(moa)
    }

    func isOwn(_ address: IPAddress) -> Bool { addresses.isOwn(address) }

    /// Whether the kernel has been told to take packets to this address for an own HoA's.
    func isReachable(at address: IPAddress) -> Bool {
        entered.covers(address) { homes[$0]?.prefix.length ?? 128 }
    }
}

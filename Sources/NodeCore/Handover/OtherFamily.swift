import MATCore
import MATSignal

/// How an own HoA is reached where networks give this node no address of the HoA's family (protocol.md section 11.1: a locator of the other family
/// is an endpoint, where packets arrive encapsulated).
///
/// ```
///   some link has one of its family ──► the addresses of its family, as ever
///   no link has ──────────────────────► those of the other family; last the stand-ins of NAT64s (`StandIns`), before which a translator stands
/// ```
/// Whoever chooses an interface by hand may want it otherwise (`ChosenInterface`).
enum OtherFamily {
    /// Of all usable addresses those by which an own HoA of a family is reached, the best first.
    ///
    /// - Parameter all: the best first.
    static func reaching(_ family: AddressFamily, _ all: [OwnLocator]) -> [OwnLocator] {
        let own = all.filter { $0.moa.family == family }
        // On a new link one family's address comes a moment before the other's: that alone moves nothing.
        guard own.allSatisfy({ StandIns.isStandIn($0.moa.address) }) else { return own }
        return all.filter { $0.moa.family != family } + own
    }

    /// Those of a family of which the own IMSs have an address go first: from the first one the node registers.
    static func askedFirst(_ places: [MobileAddress], of family: AddressFamily, servers: [Endpoint]) -> [MobileAddress] {
        guard places.contains(where: { $0.family != family }), !servers.isEmpty else { return places }
        let families = Set(servers.map(\.family))
        return places.filter { families.contains($0.family) } + places.filter { !families.contains($0.family) }
    }

    /// Why rewritten packets of an own HoA have no way, for people.
    static func reason(_ hoa: HomeAddress) -> String { "there is no \(hoa.family) address here, which rewritten packets need; they go encapsulated" }

    /// The addresses that a record lists, and behind them those of the other family: where a translator or firewall stands before the first, so that it
    /// lists endpoints anyway, since no translator stands before an address of IPv6; and for peers that have no other (`PeersOfOtherFamily`).
    static func beside(_ places: [MobileAddress], of family: AddressFamily, _ all: [OwnLocator]) -> [MobileAddress] {
        let others = all.map(\.moa).filter { $0.family != family && $0.address.scope == .global && !places.contains($0) }
        return places + others.prefix(max(0, MappingRecord.locatorsMax - places.count))
    }

    /// Whether bindings are held though nothing stands before the MoA: a node without IPv4 endpoint holds them (section 11.3).
    static func needsBinding(_ hoa: HomeAddress, at moa: MobileAddress) -> Bool { hoa.family == .ipv4 && moa.family == .ipv6 }
}

extension NodeCore {
    /// Whether packets of an own HoA can be rewritten to carry this own MoA. Those of a mobile network carry a MoPre's addresses.
    func isRewritable(_ moa: MobileAddress, _ hoa: HomeAddress) -> Bool {
        moa.family == hoa.family && !StandIns.isStandIn(moa.address) && !isHidden && !configuration.sharesAddresses
            && (homes[hoa]?.isNetwork != true || isRouted(moa, to: hoa))
    }

    /// The own HoAs that are reached by an own MoA, in order.
    func homesReached(by moa: MobileAddress) -> [HomeAddress] { homes.keys.sorted().filter { desiredLocators(of: $0).contains(moa) } }
}

import IMTPlan
import MATSignal

// Peers' routes from HoAs beyond the first of their family. There are few such HoAs, so what is done for all peers of the first
// one is done here one by one.
extension IMTKernel {
    var hasFurtherHomes: Bool { !RoutePlan.furtherHomes(configuration).isEmpty }

    func isFurther(_ own: HomeAddress) -> Bool {
        configuration.allHomes.contains(own) && own != configuration.primaryHome(family: own.family)
    }

    /// All routes of further HoAs' peers.
    func furtherPeerRoutes(_ plan: RoutePlan) -> [KernelRoute] {
        guard hasFurtherHomes else { return [] }
        return tables.model.pairs.compactMap { pair in
            guard isFurther(pair.own) else { return nil }
            return tables.model.carriage(pair).flatMap { plan.furtherRoute(to: pair.peer, own: pair.own, over: $0) }
        }
    }

    func furtherRoute(of pair: HomePair) -> KernelRoute? {
        tables.model.carriage(pair).flatMap { plan.furtherRoute(to: pair.peer, own: pair.own, over: $0) }
    }

    /// Whether a packet from one own HoA to this address would leave now.
    public func canLeave(from own: HomeAddress, to destination: IPAddress) -> Bool {
        guard isFurther(own) else { return canLeave(to: destination) }
        let pair = HomePair(own: own, peer: HomeAddress(destination))
        return !tables.model.hasEntry(pair) || furtherRoute(of: pair) != nil
    }

    /// Whether the address is the HoA of a peer that has an entry for this own HoA.
    public func hasEntry(from own: HomeAddress, for destination: IPAddress) -> Bool {
        guard isFurther(own) else { return hasEntry(for: destination) }
        return tables.model.hasEntry(HomePair(own: own, peer: HomeAddress(destination)))
    }
}

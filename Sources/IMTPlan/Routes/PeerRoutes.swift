import MATSignal

/// Which peers have which route in the capture table. Most say just `throw` (see `RoutePlan`), so nothing is kept of them but that they are
/// there; few have a whole route of their own.
///
///     (no route) ──► shared: thrown to the path table         ──► separate: a whole route
///         │               ▲         a special way, or another path    │
///         │               └──────────────────────────────────────────┘
///         └──► without a way: there is an entry, and no route leads to its MoA now; its packets wait in our device
package struct PeerRoutes {
    private var separate: [HomeAddress: KernelRoute] = [:]
    private var shared = AddressSet()
    /// Peers that have an entry and no way.
    package private(set) var withoutWay: Set<HomeAddress> = []

    package init() {}

    package func contains(_ peer: HomeAddress) -> Bool { separate[peer] != nil || shared.contains(peer.address) }
    package func isShared(_ peer: HomeAddress) -> Bool { shared.contains(peer.address) }
    package func isSeparate(_ peer: HomeAddress) -> Bool { separate[peer] != nil }

    package var separatePeers: [HomeAddress] { separate.keys.sorted() }
    package var sharedPeers: [HomeAddress] { sharedPeers(from: 0, .max / 2).peers }

    /// Some of those that share the path, to go through all of them bit by bit.
    /// - Returns: also where the next begin; `nil` after the last.
    package func sharedPeers(from place: Int, _ count: Int) -> (peers: [HomeAddress], next: Int?) {
        let (members, next) = shared.some(from: place, count)
        return (members.map { HomeAddress($0) }, next)
    }

    /// The route that a peer has, in the capture table.
    package func route(to peer: HomeAddress, table: UInt32) -> KernelRoute? {
        separate[peer] ?? (shared.contains(peer.address) ? KernelRoute(table: table, destination: IPPrefix(peer.address), kind: .throwing) : nil)
    }

    package mutating func set(_ peer: HomeAddress, _ route: KernelRoute?) {
        if let route, route.kind == .throwing { shared.insert(peer.address) } else { shared.remove(peer.address) }
        separate[peer] = route?.kind == .unicast ? route : nil
    }

    package mutating func setWithoutWay(_ peer: HomeAddress, _ isWithout: Bool) {
        if isWithout { withoutWay.insert(peer) } else { withoutWay.remove(peer) }
    }

    /// With a link go the routes over it. Those that name no link stay.
    package mutating func linksChanged() {
        withoutWay.formUnion(separate.keys)
        separate = [:]
    }

    /// All are about to be read.
    package mutating func removeAll() {
        separate = [:]
        shared.removeAll()
    }
}

/// Peers whose routes are looked at again in portions, while other work goes on: to a packet it makes no difference.
///
///     settled ──► leaving: whole routes are given up for the shared one ──► settled
///        └──────► sweeping: all that share the path, since links changed ──► settled
package struct PeerRouteSweep {
    /// How many peers' routes are looked at in one go, and how long other work has then.
    package static let portion = 1024
    package static let pause: Duration = .milliseconds(5)

    private var leaving: [HomeAddress] = []
    private var sweepsFrom: Int?

    package init() {}

    package var isSettled: Bool { leaving.isEmpty && sweepsFrom == nil }

    /// Peers share the path from now on, and their own routes may go.
    package mutating func leave(_ peers: [HomeAddress]) { leaving = peers }
    package mutating func sweep() { sweepsFrom = 0 }

    /// The next peers to look at.
    package mutating func next(of routes: PeerRoutes) -> [HomeAddress] {
        guard leaving.isEmpty else {
            let portion = Array(leaving.suffix(Self.portion))
            leaving.removeLast(portion.count)
            // Gives up its room.
            if leaving.isEmpty { leaving = [] }
            return portion
        }
        guard let place = sweepsFrom else { return [] }
        let (peers, next) = routes.sharedPeers(from: place, Self.portion)
        sweepsFrom = next
        return peers
    }
}

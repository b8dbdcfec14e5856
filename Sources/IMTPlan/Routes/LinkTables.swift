import MATSignal

/// Everything rtnetlink says about where this host is. Read as a whole when links or addresses change; routes and neighbours are kept in
/// step by their notifications.
package struct LinkTables: Equatable {
    package var links: [UInt32: LinkState] = [:]
    package var addresses: [AddressState] = []
    /// Both families.
    package var main = MainTable()
    /// Routers that did not answer the kernel (NUD_FAILED) and have given no sign of life since. That the kernel forgot one is none.
    package var silentRouters: Set<Router> = []
    /// Links whose temporary addresses (RFC 8981) go before their stable ones.
    package var prefersTemporary: Set<UInt32> = []

    package init() {}

    package var mainRoutes: [KernelRoute] { main.routes }

    // MARK: Which route

    package func isSilent(_ route: KernelRoute) -> Bool {
        route.gateway.map { silentRouters.contains(Router(interfaceIndex: route.interfaceIndex, address: $0)) } ?? false
    }

    /// Of two routes to one destination, the one that the kernel's own traffic takes: a router that answers before one that does not,
    /// then the metric, then what routers say of themselves (RFC 4191 3.2). The rest only makes it the same each time.
    package func ranksBefore(_ a: KernelRoute, _ b: KernelRoute) -> Bool {
        let (silentA, silentB) = (isSilent(a), isSilent(b))
        if silentA != silentB { return silentB }
        if a.priority != b.priority { return a.priority < b.priority }
        if a.preference != b.preference { return a.preference > b.preference }
        let none = IPAddress.unspecifiedIPv6
        return (a.interfaceIndex, a.gateway ?? none) < (b.interfaceIndex, b.gateway ?? none)
    }

    package func best(of routes: [KernelRoute]) -> KernelRoute? { routes.min(by: ranksBefore) }

    /// The routers among which there is a choice: several lead to one destination over one link. Only their silence makes a difference.
    package var contestedRouters: Set<Router> {
        var result: Set<Router> = []
        for alternatives in main.ambiguous.compactMap({ main.byDestination[$0] }) {
            for route in alternatives {
                guard let gateway = route.gateway,
                    alternatives.contains(where: { $0.interfaceIndex == route.interfaceIndex && $0.gateway != gateway })
                else { continue }
                result.insert(Router(interfaceIndex: route.interfaceIndex, address: gateway))
            }
        }
        return result
    }

    // MARK: What others see of it

    /// - Parameter deviceName: our own device, which is no link.
    package func snapshot(without deviceName: String) -> LinkSnapshot {
        var best: [UInt64: KernelRoute] = [:]
        func slot(_ index: UInt32, _ family: AddressFamily) -> UInt64 { UInt64(index) << 1 | (family == .ipv4 ? 1 : 0) }
        for route in main.defaults(family: .ipv4) + main.defaults(family: .ipv6) {
            let slot = slot(route.interfaceIndex, route.family)
            if let known = best[slot], !ranksBefore(route, known) { continue }
            best[slot] = route
        }
        var result = LinkSnapshot(gateways: Set(mainRoutes.compactMap(\.gateway)).sorted())
        let contested = contestedRouters
        for router in silentRouters.intersection(contested).sorted() {
            guard let name = links[router.interfaceIndex]?.name else { continue }
            let instead = best[slot(router.interfaceIndex, router.address.family)]?.gateway
            result.silentRouters.append(SilentRouter(address: router.address, interface: name, instead: instead == router.address ? nil : instead))
        }
        var ranked: [(AddressRank, LocalAddress)] = []
        for state in addresses {
            guard let link = realLink(of: state, without: deviceName) else { continue }
            let route = best[slot(state.interfaceIndex, state.address.family)]
            // An optimistic address may be sent from although its duplicates are still being looked for (RFC 4429).
            let tentative = state.flags & KernelValues.addressTentative != 0 && state.flags & KernelValues.addressOptimistic == 0
            let address = LocalAddress(
                address: state.address, interface: link.name, interfaceIndex: state.interfaceIndex,
                prefixLength: state.prefixLength,
                isTentative: tentative, isDeprecated: state.flags & KernelValues.addressDeprecated != 0,
                dadFailed: state.flags & KernelValues.addressDADFailed != 0, linkUp: link.isUp, gateway: route?.gateway,
                hasDefaultRoute: route != nil,
                isGlobalScope: state.scope <= KernelValues.scopeSite)
            ranked.append((AddressRank(state, over: route, prefersTemporary: prefersTemporary.contains(state.interfaceIndex)), address))
        }
        result.addresses = ranked.sorted { $0.0 < $1.0 }.map(\.1)
        return result
    }

    private func realLink(of state: AddressState, without deviceName: String) -> LinkState? {
        links[state.interfaceIndex].flatMap { $0.isLoopback || $0.name == deviceName ? nil : $0 }
    }

    /// The addresses that a snapshot tells of.
    package func realAddresses(without deviceName: String) -> Set<IPAddress> {
        Set(addresses.filter { realLink(of: $0, without: deviceName) != nil }.map(\.address))
    }

    /// Whether a link other than our device (loopback included) carries the address.
    package func carries(_ address: IPAddress, otherThan deviceName: String) -> Bool {
        addresses.contains { $0.address == address && links[$0.interfaceIndex].map { $0.name != deviceName } ?? false }
    }

    // MARK: What notifications say

    /// Whether nothing but new addresses is told of links and addresses: then the kernel took no routes away.
    package func isAdditionOnly(_ news: LinkNews) -> Bool {
        !news.addresses.contains(where: \.isRemoval) && !news.links.contains { links[$0.index] != $0.state }
    }

    /// Whether a notification says anything about links and addresses that is not known. The kernel also tells of a router
    /// advertisement that only lengthens a lifetime, and of a radio's every word.
    package func isNews(_ news: LinkNews) -> Bool {
        news.links.contains { links[$0.index] != $0.state }
            || news.addresses.contains { event in
                // What went may be back by now, but its routes went with it.
                event.isRemoval || !addresses.contains(event.state)
            }
    }

    /// Takes over what was heard of the routes.
    /// - Returns: whether anything that is kept changed, and whether a default route did; `nil` if the table must be read.
    package mutating func apply(_ changes: [MainTable.Change]) -> (any: Bool, defaults: Bool)? {
        var result = (any: false, defaults: false)
        for change in changes {
            guard let isNews = main.apply(change) else { return nil }
            guard isNews else { continue }
            result.any = true
            if change.route.destination.familyLength == 0 { result.defaults = true }
        }
        return result
    }

    /// Takes over what was heard of neighbours.
    /// - Returns: whether it makes a difference.
    package mutating func apply(_ states: [Router: UInt16]) -> Bool {
        guard !states.isEmpty else { return false }
        let before = silentRouters
        for router in contestedRouters {
            guard let state = states[router] else { continue }
            if state & KernelValues.neighbourFailed != 0 {
                silentRouters.insert(router)
            } else if state & KernelValues.neighbourValid != 0 {
                silentRouters.remove(router)
            }
        }
        return silentRouters != before
    }

    /// Forgets routers that are none any more.
    package mutating func pruneRouters() {
        guard !silentRouters.isEmpty else { return }
        silentRouters.formIntersection(contestedRouters)
    }
}

/// In which order a host's addresses are used.
///
/// Links go by the metric of their default routes, as for the host's own traffic. On a link: what is not about to be taken away; the
/// source that the default route names; in IPv4 the address of the router's own network (as `inet_select_addr` chooses), so that
/// an address added for something else does not go first; addresses of the scope of most destinations (RFC 6724 5, rules 2 and 6);
/// temporary or stable ones, as the system says (rule 7); and the oldest, for a new one is no reason to move.
package struct AddressRank: Comparable {
    private var values: [UInt64]
    private var address: IPAddress

    package init(_ state: AddressState, over route: KernelRoute?, prefersTemporary: Bool) {
        let isSecondary = state.flags & KernelValues.addressSecondary != 0
        let length = min(state.prefixLength, state.address.family.addressBits) + state.address.family.leadingBits
        let isForeign =
            state.address.family == .ipv4 && route?.gateway.map { !IPPrefix(covering: state.address, length: length).contains($0) } ?? false
        let conditions = [
            route == nil,
            state.flags & KernelValues.addressDeprecated != 0,
            route?.source.map { $0 != state.address } ?? false,
            isForeign,
            state.address.scope != .global || Self.isTransitional(state.address),
            state.address.family == .ipv4 ? isSecondary : isSecondary != prefersTemporary,
            state.flags & KernelValues.addressOptimistic != 0,
        ]
        values = [UInt64(route?.priority ?? .max), UInt64(state.interfaceIndex)] + conditions.map { $0 ? 1 : 0 } + [UInt64(state.created)]
        address = state.address
    }

    /// 6to4 and Teredo, whose labels no other destination has (RFC 6724 2.1).
    private static func isTransitional(_ address: IPAddress) -> Bool { address.high >> 48 == 0x2002 || address.high >> 32 == 0x2001_0000 }

    package static func < (a: AddressRank, b: AddressRank) -> Bool {
        for (x, y) in zip(a.values, b.values) where x != y { return x < y }
        return a.address < b.address
    }
}

import MATSignal

/// A next hop on a link.
package struct Router: Hashable, Comparable {
    package var interfaceIndex: UInt32
    package var address: IPAddress

    package init(interfaceIndex: UInt32, address: IPAddress) {
        self.interfaceIndex = interfaceIndex
        self.address = address
    }

    package static func < (a: Router, b: Router) -> Bool { (a.interfaceIndex, a.address) < (b.interfaceIndex, b.address) }
}

/// The unicast routes of the kernel's main table, kept in step by its notifications, so that a change costs what it changes and not a
/// look at a table that may hold a million routes.
///
/// Two routes to one destination differ by metric, link or next hop, and all of them are kept: of equal metric too (two routers'
/// advertisements, ECMP). Which of them is used is `LinkTables.ranksBefore`.
package struct MainTable: Equatable {
    /// Routes of a link and family, default routes apart: the shortest prefixes. A host with more is a router, whose peers behind longer ones
    /// are reached by the shorter.
    package static let routesPerLinkMax = 1024
    /// Routes in all: a host may have many links.
    package static let routesMax = 16_384

    private struct Slot: Hashable {
        var interfaceIndex: UInt32
        var family: AddressFamily
    }

    package private(set) var byDestination: [IPPrefix: [KernelRoute]] = [:]
    /// Destinations with several routes.
    package private(set) var ambiguous: Set<IPPrefix> = []
    private var counts: [Slot: Int] = [:]
    /// No route kept of a full link is longer than this.
    private var longestKept: [Slot: UInt8] = [:]
    /// How many destinations of a length there are, for the longest match.
    private var lengths = FamilyPair(both: [Int](repeating: 0, count: 129))
    package private(set) var count = 0

    package init() {}
    package init(_ routes: some Sequence<KernelRoute>) { for route in routes { _ = insert(route) } }

    package var routes: [KernelRoute] { byDestination.values.flatMap { $0 } }
    /// Every default route of a family.
    package func defaults(family: AddressFamily) -> [KernelRoute] { byDestination[KernelRoute.everything(family: family)] ?? [] }

    private static func isSame(_ a: KernelRoute, _ b: KernelRoute) -> Bool {
        a.priority == b.priority && a.interfaceIndex == b.interfaceIndex && a.gateway == b.gateway && a.destination == b.destination
    }

    /// - Returns: whether anything that is kept changed.
    @discardableResult
    package mutating func insert(_ route: KernelRoute) -> Bool {
        guard route.kind == .unicast, route.interfaceIndex != 0, !route.destination.address.isLinkLocal, !route.destination.address.isMulticast else {
            return false
        }
        var alternatives = byDestination[route.destination] ?? []
        if let index = alternatives.firstIndex(where: { Self.isSame($0, route) }) {
            guard alternatives[index] != route else { return false }
            alternatives[index] = route
            byDestination[route.destination] = alternatives
            return true
        }
        let slot = Slot(interfaceIndex: route.interfaceIndex, family: route.family)
        if route.destination.familyLength > 0 {
            if (counts[slot] ?? 0) >= Self.routesPerLinkMax {
                // A longer one makes room; among equals who was first stays.
                guard longestKept[slot] ?? 128 > route.destination.length, let longest = longest(in: slot) else { return false }
                longestKept[slot] = longest.destination.length
                guard longest.destination.length > route.destination.length else { return false }
                remove(longest)
                alternatives = byDestination[route.destination] ?? []
            }
        }
        guard count < Self.routesMax else { return false }
        if alternatives.isEmpty { lengths[route.family][Int(route.destination.length)] += 1 }
        if route.destination.familyLength > 0 {
            counts[slot, default: 0] += 1
            longestKept[slot] = max(longestKept[slot] ?? 0, route.destination.length)
        }
        count += 1
        byDestination[route.destination] = alternatives + [route]
        if !alternatives.isEmpty { ambiguous.insert(route.destination) }
        return true
    }

    /// - Returns: whether it was kept.
    @discardableResult
    package mutating func remove(_ route: KernelRoute) -> Bool {
        guard var alternatives = byDestination[route.destination], let index = alternatives.firstIndex(where: { Self.isSame($0, route) }) else {
            return false
        }
        alternatives.remove(at: index)
        byDestination[route.destination] = alternatives.isEmpty ? nil : alternatives
        if alternatives.count < 2 { ambiguous.remove(route.destination) }
        if alternatives.isEmpty { lengths[route.family][Int(route.destination.length)] -= 1 }
        count -= 1
        guard route.destination.familyLength > 0 else { return true }
        let slot = Slot(interfaceIndex: route.interfaceIndex, family: route.family)
        counts[slot] = counts[slot].flatMap { $0 > 1 ? $0 - 1 : nil }
        return true
    }

    private func longest(in slot: Slot) -> KernelRoute? {
        var found: KernelRoute?
        for alternatives in byDestination.values {
            for route in alternatives
            where route.interfaceIndex == slot.interfaceIndex && route.family == slot.family && route.destination.familyLength > 0 {
                guard let known = found else {
                    found = route
                    continue
                }
                if (known.destination.length, known.destination.address) < (route.destination.length, route.destination.address) { found = route }
            }
        }
        return found
    }

    /// What a notification says.
    package struct Change: Hashable {
        package var route: KernelRoute
        package var isRemoval: Bool
        /// It took the place of another of its destination and metric. Of a multipath route's hops, which come as one each, the first says so.
        package var replaces: Bool

        package init(route: KernelRoute, isRemoval: Bool, replaces: Bool) {
            self.route = route
            self.isRemoval = isRemoval
            self.replaces = replaces
        }
    }

    /// - Returns: whether anything that is kept changed; `nil` if only reading the table tells what is there now.
    package mutating func apply(_ change: Change) -> Bool? {
        let route = change.route
        // Where it goes stands in a nexthop object that has not been read.
        if route.kind == .unicast, route.interfaceIndex == 0, route.nextHop != 0 { return nil }
        if change.isRemoval { return remove(route) }
        guard change.replaces else { return insert(route) }
        let known = (byDestination[route.destination] ?? []).filter { $0.priority == route.priority }
        // Which of several was replaced the kernel does not say.
        guard known.count <= 1 else { return nil }
        if let before = known.first, before != route { remove(before) }
        return insert(route) || known.first.map { $0 != route } ?? false
    }

    // MARK: Looking up

    /// The routes of the longest destination that holds the address and has one that fits, as the kernel looks for them.
    package func longestMatch(_ address: IPAddress, where fits: (KernelRoute) -> Bool) -> [KernelRoute] {
        let counts = lengths[address.family]
        for length in stride(from: 128, through: Int(address.family.leadingBits), by: -1) where counts[length] > 0 {
            let fitting = (byDestination[IPPrefix(covering: address, length: UInt8(length))] ?? []).filter { $0.family == address.family && fits($0) }
            if !fitting.isEmpty { return fitting }
        }
        return []
    }
}

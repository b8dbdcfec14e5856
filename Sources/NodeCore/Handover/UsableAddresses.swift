import MATSignal

/// The addresses that networks gave this node, in the order in which they are to be used, and what follows when they change.
///
/// ```
///   the links' addresses ──► in order of preference ──► places of a record, by family
///                               ▲        ▲
///    which of them work         │        │  interfaces: the one that a person chose, then those configured
///    (`Uplinks`) ───────────────┘        └────────────────────────────────────────────
/// ```
struct UsableAddresses: Sendable {
    /// What a new arrangement means.
    enum Arranged: Equatable, Sendable {
        /// The addresses and their order are the same.
        case same
        /// The same, but these, which were not the first, do not work any more: some peers' traffic left from them.
        case left(Set<MobileAddress>)
        case changed(Change)
    }

    struct Change: Equatable, Sendable {
        let before: [OwnLocator]
        let after: [OwnLocator]
        /// Of these those by which an own HoA of a family is reached.
        let reachedBefore: FamilyPair<[MobileAddress]>
        let reachedAfter: FamilyPair<[MobileAddress]>
        /// From these nothing can be sent any more: they are gone or dead. What still comes to a dead one is accepted.
        let gone: Set<MobileAddress>

        /// Addresses that have become ours, or are ours no more: peers that list them are concerned.
        var addresses: Set<IPAddress> { Set(before.map(\.moa.address)).symmetricDifference(after.map(\.moa.address)) }

        /// Which scopes own addresses have, by family, is another matter than before: only of these, peers' are used without being named as routed.
        var hasOtherScopes: Bool { Self.scopes(before) != Self.scopes(after) }

        /// What is sent leaves from another address of some family.
        var hasOtherFirst: Bool {
            AddressFamily.allCases.contains { family in
                before.first { $0.moa.family == family }?.moa != after.first { $0.moa.family == family }?.moa
            }
        }

        /// An own HoA of these families is reached first by another address.
        var reachedElsewhere: [AddressFamily] { AddressFamily.allCases.filter { reachedBefore[$0].first != reachedAfter[$0].first } }

        private struct FamilyScope: Hashable {
            let family: AddressFamily
            let scope: AddressScope
        }

        private static func scopes(_ locators: [OwnLocator]) -> Set<FamilyScope> {
            Set(locators.map { FamilyScope(family: $0.moa.family, scope: $0.moa.address.scope) }.filter { $0.scope != .global })
        }

        /// What it means for the own HoA of a family; `nil` if nothing.
        ///
        /// - Parameter order: which of the addresses by which it is reached goes first.
        func move(_ family: AddressFamily, _ order: ([MobileAddress]) -> [MobileAddress] = { $0 }) -> Move? {
            let (old, new) = (order(reachedBefore[family]), order(reachedAfter[family]))
            return old == new ? nil : Move(from: old, to: new, gone: gone)
        }
    }

    /// The usable addresses of an own HoA changed. With overlap the old address goes on working until each peer has acked the new one;
    /// without, everything happens at once from the new address.
    struct Move: Equatable, Sendable {
        let from: [MobileAddress]
        let to: [MobileAddress]
        let gone: Set<MobileAddress>

        /// The address to use from now on; `nil` if there is none.
        var first: MobileAddress? { to.first }
        /// Whether the address that was used before still works.
        var hasOverlap: Bool { from.first.map { !gone.contains($0) } ?? false }

        /// Whether the kernel goes on sending from the address that was used before. From one that stood in for those of the own family (`OtherFamily`)
        /// it never rewrote anything.
        var keepsSource: Bool { hasOverlap && from.first?.family == first?.family }

        /// Whether peers are to be told. The first address after a start is news for nobody.
        func isHandover(wasRegistered: Bool) -> Bool { from.first != first && !(from.isEmpty && !wasRegistered) }
    }

    private var preferredInterfaces: [String]
    private let routedPrefixes: [IPPrefix]
    /// What the own HoAs speak for: each its own address, or a mobile network's home prefix.
    private let homePrefixes: FamilyPair<IPPrefix?>

    /// The addresses in the order in which the system lists them.
    private(set) var system: [OwnLocator] = []
    /// The same in order of preference.
    private(set) var ordered: [OwnLocator] = []
    /// Those of them by which the own HoA of a family is reached.
    private var reached = FamilyPair<[OwnLocator]>(both: [])
    /// Those of them in turn that a record has room for.
    private var places = FamilyPair<[MobileAddress]>(both: [])
    /// Those over which nothing answers, whose peers were taken elsewhere.
    private var left: Set<MobileAddress> = []
    /// What a person chose goes before the configured order while it is usable.
    private var chosen = ChosenInterface()
    /// Gateways and resolvers: a peer's locator only if it proves itself.
    private(set) var infrastructure: Set<IPAddress> = []
    /// What this node's other HoAs have: never a peer's locator.
    private var others: Set<IPAddress> = []

    init(_ configuration: NodeCoreConfiguration) {
        preferredInterfaces = configuration.preferredInterfaces
        routedPrefixes = configuration.routedPrefixes
        homePrefixes = FamilyPair { family in configuration.homes.first { $0.hoa.family == family }?.certificate.prefix }
    }

    // MARK: Questions

    var isEmpty: Bool { ordered.isEmpty }

    /// Usable addresses of a family, in order of preference.
    func of(_ family: AddressFamily) -> [MobileAddress] { ordered.map(\.moa).filter { $0.family == family } }

    /// Whether there is one of this family.
    func has(_ family: AddressFamily) -> Bool { ordered.contains { $0.moa.family == family } }

    /// The locators that a record of this own HoA is to list: the HoA alone when it is an address of a link (the node is at
    /// home), otherwise the usable addresses of its family or, where there is none, of the other (`OtherFamily`).
    func places(of hoa: HomeAddress) -> [MobileAddress] {
        atHome(hoa).map { [$0.moa] } ?? places[hoa.family]
    }

    /// The link's address that an own HoA is, if the node is at home with it.
    func atHome(_ hoa: HomeAddress) -> OwnLocator? { ordered.first { $0.moa.address == hoa.address } }

    /// Those by which an own HoA of a family can be reached, the best first, be there more than a record has room for.
    private func reaching(_ family: AddressFamily) -> [OwnLocator] {
        if let home = homePrefixes[family].flatMap({ atHome(HomeAddress($0.address)) }) { return [home] }
        let ofChosen = ordered.filter { $0.interface == chosen.name }
        return switch chosen.crossing(family) {
        case .none: OtherFamily.reaching(family, ordered)
        case .first: ofChosen + ordered.filter { $0.interface != chosen.name && $0.moa.family == family }
        case .alone: ofChosen
        }
    }

    private func crossing(_ hoa: HomeAddress) -> ChosenInterface.Crossing {
        atHome(hoa) != nil ? .none : chosen.crossing(hoa.family)
    }

    /// Whether a HoA is about to be reached at an own address no more, since a person chose another interface: nobody is asked or answered from there.
    func isBeingLeft(_ own: IPAddress, by hoa: HomeAddress) -> Bool {
        crossing(hoa) != .none && interface(of: MobileAddress(own)) != chosen.name
    }

    /// What stands beside the places of a record: all usable addresses, or of the other family those of the interface alone that a person chose.
    func beside(_ hoa: HomeAddress) -> [OwnLocator] { crossing(hoa) == .none ? ordered : reached[hoa.family] }

    /// Of the HoA's family, by which it is reached no more since a person chose another interface: what peers still send there is accepted.
    func left(by hoa: HomeAddress) -> [MobileAddress] { crossing(hoa) == .alone ? of(hoa.family) : [] }

    /// The interface that a person chose with `mat handover`.
    var chosenInterface: String? { chosen.name }

    /// When the addresses are to be arranged again though nothing has changed.
    var due: MonotonicTime? { chosen.due }

    func interface(of moa: MobileAddress) -> String? { ordered.first { $0.moa == moa }?.interface }

    /// The address as people know it.
    func named(_ moa: MobileAddress) -> String { interface(of: moa).map { "\($0) (\(moa))" } ?? "\(moa)" }

    /// All addresses of the link that this one is of.
    func siblings(of moa: MobileAddress) -> [MobileAddress] {
        interface(of: moa).map { interface in ordered.filter { $0.interface == interface }.map(\.moa) } ?? []
    }

    /// Whether another of this node's HoAs has it.
    func isOthers(_ address: IPAddress) -> Bool { others.contains(address) }

    /// Whether it is ours: an own HoA's or address's, or behind one if that is a mobile network's.
    func isOwn(_ address: IPAddress) -> Bool {
        homePrefixes.values.contains { $0?.contains(address) ?? false }
            || ordered.contains { locator in
                let length = locator.isMobilePrefix ? homePrefixes[locator.moa.family]?.length : nil
                return IPPrefix(covering: locator.moa.address, length: length ?? 128).contains(address)
            }
    }

    /// Whether a network routes a whole prefix to this node, of which this is the base address.
    func isMobilePrefix(_ moa: MobileAddress) -> Bool { ordered.contains { $0.moa == moa && $0.isMobilePrefix } }

    /// Whether it is on a link with us.
    func isNeighbour(_ address: IPAddress) -> Bool { ordered.contains { $0.link?.contains(address) ?? false } }

    /// Whether an address means to us what it means to the peer: it is of global scope, or we are at such addresses ourselves, or the
    /// configuration says that its prefix is routed from here.
    func isInReach(_ moa: MobileAddress) -> Bool {
        switch moa.address.scope {
        case .global: true
        case .none: false
        case let scope: ordered.contains { $0.moa.family == moa.family && $0.moa.address.scope == scope } || isRouted(moa.address)
        }
    }

    /// Whether the address can be a peer's locator here at all; otherwise it is not even asked.
    func canBeLocator(_ moa: MobileAddress, of hoa: HomeAddress) -> Bool {
        moa.family == hoa.family && !isOwn(moa.address) && !isOthers(moa.address) && isInReach(moa)
    }

    /// Whether a valid MA Notify from there lets the peer's packets in while it is checked; elsewhere nothing counts before it has proved
    /// itself ("checked before use" of protocol.md section 6).
    func canBeNoticed(_ moa: MobileAddress, of hoa: HomeAddress) -> Bool {
        canBeLocator(moa, of: hoa) && !infrastructure.contains(moa.address) && !isNeighbour(moa.address)
    }

    func isRouted(_ address: IPAddress) -> Bool { routedPrefixes.contains { $0.contains(address) } }

    // MARK: Events

    /// A person wants this interface to be used first; `nil` goes back to the configured order. It counts with the next arrangement.
    mutating func choose(interface: String?) { if interface != chosen.name { chosen = ChosenInterface(interface) } }

    /// Another order is configured. It counts with the next arrangement.
    mutating func order(by interfaces: [String]) { preferredInterfaces = interfaces }

    /// What is around: gateways and resolvers, and the addresses of this node's other HoAs.
    ///
    /// - Returns: the addresses that have become, or are no longer, our other HoAs'.
    mutating func surround(infrastructure: Set<IPAddress>, others: Set<IPAddress>) -> Set<IPAddress> {
        self.infrastructure = infrastructure
        defer { self.others = others }
        return self.others.symmetricDifference(others)
    }

    /// Takes over the usable addresses and puts them in order.
    mutating func arrange(_ locators: [OwnLocator], _ uplinks: Uplinks, now: MonotonicTime) -> Arranged {
        let before = (ordered, reached.mapValues { $0.map(\.moa) })
        system = locators
        ordered = inOrder(locators, uplinks)
        chosen.look(at: ordered, now)
        reached = FamilyPair { reaching($0) }
        // From a dead address nothing can be sent, no more than from one that is gone; but what still comes there is accepted.
        let dead = Set(ordered.map(\.moa).filter(uplinks.isDead))
        defer { left = dead }
        let after = (ordered, reached.mapValues { $0.map(\.moa) })
        guard after != before else { return dead.isSubset(of: left) ? .same : .left(dead) }
        places = reached.mapValues(Self.places)
        let gone = Set(before.0.map(\.moa)).subtracting(ordered.map(\.moa)).union(dead)
        return .changed(Change(before: before.0, after: after.0, reachedBefore: before.1, reachedAfter: after.1, gone: gone))
    }

    /// What works first, then the chosen interface, then what is not about to be taken away (RFC 6724 5, rule 3), then the configured order,
    /// then the system's.
    private func inOrder(_ locators: [OwnLocator], _ uplinks: Uplinks) -> [OwnLocator] {
        func rank(_ locator: OwnLocator) -> (isOther: Int, isDeprecated: Int, place: Int) {
            (
                locator.interface == chosen.name ? 0 : 1, locator.isDeprecated ? 1 : 0,
                preferredInterfaces.firstIndex(of: locator.interface) ?? preferredInterfaces.count
            )
        }
        return locators.enumerated().sorted { a, b in
            let (x, y) = (rank(a.element), rank(b.element))
            return (uplinks.order(a.element.moa), x.isOther, x.isDeprecated, x.place, a.offset)
                < (uplinks.order(b.element.moa), y.isOther, y.isDeprecated, y.place, b.offset)
        }.map(\.element)
    }

    /// The addresses that a record has room for: the best of each link, then second ones and so on, so that no link's
    /// many addresses leave another without a place.
    private static func places(_ family: [OwnLocator]) -> [MobileAddress] {
        var earlier: [String: Int] = [:]
        let rounds = family.map { locator in
            defer { earlier[locator.interface, default: 0] += 1 }
            return earlier[locator.interface] ?? 0
        }
        let chosen = family.indices.sorted { (rounds[$0], $0) < (rounds[$1], $1) }.prefix(MappingRecord.locatorsMax).sorted()
        return chosen.map { family[$0].moa }
    }
}

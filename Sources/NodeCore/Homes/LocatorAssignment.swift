import MATSignal

/// Which own address serves which HoA. One MoA belongs to one HoA at a time (protocol.md section 6), so a node with several HoAs of
/// a family needs several addresses of it.
///
/// Per link and family, a new address goes to the HoA that has the fewest there: the i-th address to the i-th HoA. Addresses that
/// a HoA's `use` names go to it before those without. Whoever has an address keeps it as long as it exists. One that no HoA of its family
/// can have goes to those of the other in the same way: they are reached there by packets that come encapsulated.
package struct LocatorAssignment: Sendable {
    /// A condition on addresses: of this interface, or within this prefix.
    package enum Use: Hashable, Sendable {
        case interface(String)
        case prefix(IPPrefix)

        func covers(_ locator: OwnLocator) -> Bool {
            switch self {
            case .interface(let name): locator.interface == name
            case .prefix(let prefix): prefix.contains(locator.moa.address)
            }
        }
    }

    struct Claimant: Hashable, Sendable {
        var hoa: HomeAddress
        /// Empty: any address.
        var use: [Use] = []
        /// A mobile network's: beside its own MoPres it takes addresses that serve no HoA in particular.
        var isNetwork = false

        /// Whether an address is one that it names.
        func names(_ locator: OwnLocator) -> Bool { use.contains { $0.covers(locator) } }

        /// Whether it takes an address that no HoA names.
        func takesUnnamed(_ locator: OwnLocator) -> Bool { use.isEmpty || isNetwork && !locator.isMobilePrefix }
    }

    /// In the order of the configuration.
    let claimants: [Claimant]
    private(set) var holders: [MobileAddress: HomeAddress] = [:]
    /// Who had addresses that went away, the latest last: peers still send there, so an address that comes back is the same HoA's.
    private var former: [(moa: MobileAddress, hoa: HomeAddress)] = []
    /// As many as the kernel side remembers.
    static let formerMax = 64

    init(_ claimants: [Claimant]) { self.claimants = claimants }

    /// Assigns what is there now.
    mutating func assign(_ locators: [OwnLocator]) {
        let present = Set(locators.map(\.moa))
        let gone = holders.filter { !present.contains($0.key) }.sorted { $0.key < $1.key }
        former.removeAll { past in gone.contains { $0.key == past.moa } }
        former += gone.map { ($0.key, $0.value) }
        former.removeFirst(max(0, former.count - Self.formerMax))
        holders = holders.filter { present.contains($0.key) }
        for locator in locators {
            // A node at home: no other HoA can be at that address.
            if claimants.contains(where: { $0.hoa.address == locator.moa.address }) { holders[locator.moa] = HomeAddress(locator.moa.address) }
        }
        for locator in locators where holders[locator.moa] == nil {
            if let past = former.last(where: { $0.moa == locator.moa }), mayUse(locator, past.hoa) { holders[locator.moa] = past.hoa }
        }
        for locator in locators where holders[locator.moa] == nil { holders[locator.moa] = claimant(for: locator, among: locators) }
    }

    private func mayUse(_ locator: OwnLocator, _ hoa: HomeAddress) -> Bool {
        claimants.contains { $0.hoa == hoa && ($0.names(locator) || $0.takesUnnamed(locator)) }
    }

    private func claimant(for locator: OwnLocator, among locators: [OwnLocator]) -> HomeAddress? {
        let same = claimants.filter { $0.hoa.family == locator.moa.family }
        let family = same.isEmpty ? claimants : same
        let named = family.filter { $0.names(locator) }
        let able = named.isEmpty ? family.filter { $0.takesUnnamed(locator) } : named
        func held(_ hoa: HomeAddress) -> Int {
            locators.count { $0.interface == locator.interface && $0.moa.family == locator.moa.family && holders[$0.moa] == hoa }
        }
        return able.enumerated().min { (held($0.element.hoa), $0.offset) < (held($1.element.hoa), $1.offset) }?.element.hoa
    }
}

import IMTPlan
import MATCore
import MATSignal

/// This host's addresses as its links have them, and what the node makes of them.
package struct OwnAddresses: Sendable {
    private var rules: AddressRules
    private var snapshot = LinkSnapshot()
    /// Usable ones as they are, with the places of mobile networks: what each link's routes are made for.
    private(set) var linkAddresses: [LocalAddress] = []
    /// What the node can be reached at.
    private(set) var locators: [OwnLocator] = []
    /// Addresses of the host that are no MoAs, and why.
    package private(set) var unused: [UnusedAddress] = []

    package init(_ rules: AddressRules) { self.rules = rules }

    /// Other addresses are used, or another condition is put to them. Which homes there are does not change.
    ///
    /// - Returns: the links, to be looked at again; `nil` if nothing is other than before.
    mutating func change(_ fresh: AddressRules) -> LinkSnapshot? {
        guard fresh.ignoredInterfaces != rules.ignoredInterfaces || fresh.needsDefaultRoute != rules.needsDefaultRoute else { return nil }
        rules.ignoredInterfaces = fresh.ignoredInterfaces
        rules.needsDefaultRoute = fresh.needsDefaultRoute
        return snapshot
    }

    /// - Returns: whether the node can be reached elsewhere than before.
    mutating func update(_ snapshot: LinkSnapshot) -> Bool {
        self.snapshot = snapshot
        let (usable, unused) = rules.sort(snapshot.addresses)
        let places = rules.places(of: usable)
        self.unused = unused
        linkAddresses = usable + places.filter { !usable.contains($0) }
        let before = locators
        locators = places.map { place in
            OwnLocator(
                MobileAddress(place.address), interface: place.interface, isDeprecated: place.isDeprecated, link: place.onLink,
                isMobilePrefix: rules.isMobilePrefix(place))
        }
        return locators != before
    }

    /// The main table's.
    var gateways: [IPAddress] { snapshot.gateways }
    /// Routers that are passed over.
    package var silentRouters: [SilentRouter] { snapshot.silentRouters }
    /// All of this host's, usable as locators or not.
    var all: Set<IPAddress> { Set(snapshot.addresses.map(\.address)).union(rules.homes.map(\.hoa.address)) }
}

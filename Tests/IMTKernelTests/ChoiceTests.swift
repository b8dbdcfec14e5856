import MATSignal
import Testing

@testable import IMTPlan

/// Which router, which address, which place among rules: the decisions as values, without a kernel.
@Suite("Choices") struct ChoiceTests {
    private static let everything4 = KernelRoute.everything(family: .ipv4), everything6 = KernelRoute.everything(family: .ipv6)

    private func route(
        _ destination: String, via gateway: String?, dev index: UInt32 = 2, metric: UInt32 = 100, preference: Int8 = 0, source: String? = nil
    ) throws -> KernelRoute {
        var route = KernelRoute(table: KernelValues.tableMain, destination: try #require(IPPrefix(destination)))
        route.gateway = try gateway.map { try address($0) }
        (route.interfaceIndex, route.priority, route.preference) = (index, metric, preference)
        route.source = try source.map { try address($0) }
        return route
    }

    private func change(_ route: KernelRoute, removal: Bool = false, replaces: Bool = false) -> MainTable.Change {
        MainTable.Change(route: route, isRemoval: removal, replaces: replaces)
    }

    private func tables(_ routes: [KernelRoute]) -> LinkTables {
        var tables = LinkTables()
        tables.links = [2: LinkState(name: "wlan0", flags: 0x41), 3: LinkState(name: "wwan0", flags: 0x41)]
        tables.main = MainTable(routes)
        return tables
    }

    // MARK: The main table

    @Test("Routes of one destination and metric that differ by next hop are two routes; the same one twice is one")
    func twoRoutes() throws {
        var table = MainTable()
        let result1 = table.insert(try route("0.0.0.0/0", via: "10.0.0.1"))
        #expect(result1)
        let result2 = table.insert(try route("0.0.0.0/0", via: "10.0.0.2"))
        #expect(result2)
        let result3 = table.insert(try route("0.0.0.0/0", via: "10.0.0.2"))
        #expect(!result3)
        #expect(table.defaults(family: .ipv4).count == 2)
        let result4 = table.apply(change(try route("0.0.0.0/0", via: "10.0.0.1"), removal: true))
        #expect(result4 == true)
        #expect(table.defaults(family: .ipv4).map(\.gateway) == [try address("10.0.0.2")])
        let result5 = table.apply(change(try route("0.0.0.0/0", via: "10.0.0.1"), removal: true))
        #expect(result5 == false)
    }

    @Test("A replaced route takes the place of the one there was; with several the table must be read")
    func replaced() throws {
        var table = MainTable([try route("0.0.0.0/0", via: "10.0.0.1"), try route("0.0.0.0/0", via: "10.0.0.9", metric: 200)])
        let result6 = table.apply(change(try route("0.0.0.0/0", via: "10.0.0.2"), replaces: true))
        #expect(result6 == true)
        #expect(Set(table.defaults(family: .ipv4).map(\.gateway)) == [try address("10.0.0.2"), try address("10.0.0.9")])
        let result7 = table.insert(try route("0.0.0.0/0", via: "10.0.0.3"))
        #expect(result7)
        let result8 = table.apply(change(try route("0.0.0.0/0", via: "10.0.0.4"), replaces: true))
        #expect(result8 == nil)
    }

    @Test("A route that names only a nexthop object makes the table be read")
    func nextHopObject() throws {
        var table = MainTable()
        var only = try route("0.0.0.0/0", via: nil, dev: 0)
        only.nextHop = 7
        let result9 = table.apply(change(only))
        #expect(result9 == nil)
    }

    @Test("Of a link with a hundred thousand routes the shortest are kept, and the default routes always; a change of the others is no news")
    func bounded() throws {
        var table = MainTable()
        for number in 0..<UInt32(5000) {
            var host = try route("0.0.0.0/0", via: "10.0.0.1")
            host.destination = IPPrefix(IPAddress(ipv4: 0x6440_0000 + number))
            table.insert(host)
        }
        #expect(table.count == MainTable.routesPerLinkMax)
        let result10 = table.insert(try route("0.0.0.0/0", via: "10.0.0.1"))
        #expect(result10)
        let result11 = table.insert(try route("10.0.0.0/24", via: nil))
        #expect(result11)
        #expect(table.count == MainTable.routesPerLinkMax + 1)
        let result12 = table.apply(change(try route("100.64.19.0/32", via: "10.0.0.1")))
        #expect(result12 == false)
        let result13 = table.apply(change(try route("100.64.19.0/32", via: "10.0.0.1"), removal: true))
        #expect(result13 == false)
        #expect(table.longestMatch(try address("10.0.0.7")) { _ in true }.map(\.destination.familyLength) == [24])
        // Another link is not crowded out.
        let result14 = table.insert(try route("192.0.2.7/32", via: "10.1.0.1", dev: 3))
        #expect(result14)
    }

    @Test("The longest match is that of the link asked for")
    func longestMatch() throws {
        let table = MainTable([
            try route("::/0", via: "fe80::1"), try route("2001:db8::/32", via: "fe80::2", dev: 3), try route("2001:db8:1::/48", via: "fe80::3"),
        ])
        let target = try address("2001:db8:1::9")
        #expect(table.longestMatch(target) { _ in true }.map(\.destination.length) == [48])
        #expect(table.longestMatch(target) { $0.interfaceIndex == 3 }.map(\.destination.length) == [32])
        #expect(table.longestMatch(try address("192.0.2.1")) { _ in true }.isEmpty)
    }

    // MARK: Which router

    struct RouterCase: CustomTestStringConvertible, Sendable {
        let name: String
        /// Gateway, metric, preference; the first is right.
        let routes: [(String, UInt32, Int8)]
        var silent: [String] = []
        var testDescription: String { name }
    }
    static let routerCases = [
        RouterCase(name: "the lower metric, whatever it says of itself", routes: [("fe80::2", 100, -1), ("fe80::1", 200, 1)]),
        RouterCase(name: "of one metric, the one that says high (RFC 4191)", routes: [("fe80::2", 1024, 1), ("fe80::1", 1024, 0)]),
        RouterCase(name: "medium before low", routes: [("fe80::2", 1024, 0), ("fe80::1", 1024, -1)]),
        RouterCase(name: "one that answers before one that does not", routes: [("fe80::2", 1024, 0), ("fe80::1", 1024, 1)], silent: ["fe80::1"]),
        RouterCase(name: "likewise of another metric", routes: [("fe80::2", 2000, -1), ("fe80::1", 100, 1)], silent: ["fe80::1"]),
        RouterCase(name: "if none answers, as if all did", routes: [("fe80::1", 1024, 1), ("fe80::2", 1024, 0)], silent: ["fe80::1", "fe80::2"]),
        RouterCase(name: "of equals the same each time", routes: [("fe80::1", 1024, 0), ("fe80::2", 1024, 0)]),
        RouterCase(name: "IPv4, of one metric", routes: [("10.0.0.2", 100, 0), ("10.0.0.1", 100, 0)], silent: ["10.0.0.1"]),
    ]

    @Test("Of several routers on a link", arguments: routerCases)
    func router(_ each: RouterCase) throws {
        let destination = each.routes[0].0.contains(":") ? "::/0" : "0.0.0.0/0"
        let routes = try each.routes.map { try route(destination, via: $0.0, metric: $0.1, preference: $0.2) }
        for order in [routes, routes.reversed()] {
            var tables = tables(order)
            _ = tables.apply(
                Dictionary(
                    uniqueKeysWithValues: try each.silent.map { (Router(interfaceIndex: 2, address: try address($0)), KernelValues.neighbourFailed) })
            )
            #expect(tables.best(of: tables.main.defaults(family: routes[0].family))?.gateway == routes[0].gateway)
            #expect(tables.snapshot(without: "mat0").silentRouters.count == each.silent.count)
        }
    }

    @Test("A router that failed stays passed over while the kernel forgets it or asks again, until it answers")
    func signOfLife() throws {
        var tables = tables([try route("::/0", via: "fe80::1", preference: 1), try route("::/0", via: "fe80::2")])
        let first = Router(interfaceIndex: 2, address: try address("fe80::1"))
        let result15 = tables.apply([first: KernelValues.neighbourFailed])
        #expect(result15)
        let result16 = tables.apply([first: 0x01])
        #expect(!result16, "incomplete")
        let result17 = tables.apply([Router(interfaceIndex: 2, address: try address("fe80::77")): KernelValues.neighbourFailed])
        #expect(!result17, "no router")
        let result18 = tables.apply([first: 0x04])
        #expect(result18, "stale: it has just sent an advertisement")
        #expect(tables.best(of: tables.main.defaults(family: .ipv6))?.gateway == first.address)
    }

    @Test("A router without another on its link is never passed over, and one that is none any more is forgotten")
    func onlyRouter() throws {
        var tables = tables([try route("0.0.0.0/0", via: "10.0.0.1"), try route("0.0.0.0/0", via: "10.1.0.1", dev: 3)])
        #expect(tables.contestedRouters.isEmpty)
        let result19 = tables.apply([Router(interfaceIndex: 2, address: try address("10.0.0.1")): KernelValues.neighbourFailed])
        #expect(!result19)
        tables.main.insert(try route("0.0.0.0/0", via: "10.0.0.2"))
        let result20 = tables.apply([Router(interfaceIndex: 2, address: try address("10.0.0.1")): KernelValues.neighbourFailed])
        #expect(result20)
        tables.main.remove(try route("0.0.0.0/0", via: "10.0.0.1"))
        tables.pruneRouters()
        #expect(tables.silentRouters.isEmpty)
    }

    @Test("A link's table has one default route, the better router's, and the shared path too")
    func plan() throws {
        let home = HomeAddress(try address("2001:db8:a::1"))
        let moa = MobileAddress(try address("2001:db8:1::2"))
        var tables = tables([try route("::/0", via: "fe80::1", metric: 1024, preference: 1), try route("::/0", via: "fe80::2", metric: 1024)])
        let local = LocalAddress(address: moa.address, interface: "wlan0", interfaceIndex: 2, prefixLength: 64)
        for (silent, expected) in [([], "fe80::1"), (["fe80::1"], "fe80::2")] {
            tables.silentRouters = Set(try silent.map { Router(interfaceIndex: 2, address: try address($0)) })
            let plan = RoutePlan(
                configuration: IMTConfiguration(homeAddresses: [home]), tables: tables, locators: [local], deviceIndex: 9, plain: [],
                homes: [home.address],
                primaries: [moa])
            #expect(plan.linkRoutes().map(\.gateway) == [try address(expected)])
            #expect(plan.pathRoutes().first { $0.destination.length == 0 && $0.interfaceIndex == 2 }?.gateway == (try address(expected)))
        }
    }

    // MARK: Which address

    struct AddressCase: CustomTestStringConvertible, Sendable {
        let name: String
        /// Text, prefix length, interface, flags, age (smaller is older); in the right order.
        let addresses: [(String, UInt8, UInt32, UInt32, UInt32)]
        /// Gateway, interface, metric, source.
        var routes: [(String, UInt32, UInt32, String?)] = [("203.0.113.1", 2, 100, nil), ("fe80::1", 2, 1024, nil)]
        var prefersTemporary = false
        var testDescription: String { name }
    }
    static let addressCases = [
        AddressCase(
            name: "an address added for something else comes after that of the router's network",
            addresses: [("203.0.113.9", 24, 2, 0, 5), ("10.9.9.9", 24, 2, 0, 4), ("172.16.0.1", 24, 2, 0, 6)]),
        AddressCase(
            name: "the source that the default route names comes first",
            addresses: [("203.0.113.20", 24, 2, 0x01, 9), ("203.0.113.9", 24, 2, 0, 5)], routes: [("203.0.113.1", 2, 100, "203.0.113.20")]),
        AddressCase(
            name: "behind a private router its network's address is first, whatever others there are",
            addresses: [("192.168.1.7", 24, 2, 0, 5), ("198.51.100.7", 32, 2, 0, 1)], routes: [("192.168.1.1", 2, 100, nil)]),
        AddressCase(
            name: "a secondary address of the same network comes second",
            addresses: [("203.0.113.99", 24, 2, 0, 5), ("203.0.113.9", 24, 2, 0x01, 1)]),
        AddressCase(
            name: "deprecated addresses come last, however old",
            addresses: [("2001:db8:1::9", 64, 2, 0, 50), ("2001:db8:1::1", 64, 2, 0x20, 1), ("2001:db8:1::2", 64, 2, 0x20, 2)]),
        AddressCase(
            name: "global before unique local, 6to4 and Teredo (RFC 6724 rule 6)",
            addresses: [
                ("2001:db8:1::9", 64, 2, 0, 9), ("fd00::1", 64, 2, 0, 1), ("2002:c000:201::1", 64, 2, 0, 2), ("2001:0:c000:201::1", 64, 2, 0, 3),
            ]),
        AddressCase(
            name: "stable before temporary where the system does not prefer them (use_tempaddr 1)",
            addresses: [("2001:db8:1::9", 64, 2, 0, 5), ("2001:db8:1::5", 64, 2, 0x01, 6)]),
        AddressCase(
            name: "temporary before stable where the system does (rule 7)",
            addresses: [("2001:db8:1::5", 64, 2, 0x01, 6), ("2001:db8:1::9", 64, 2, 0, 5), ("2001:db8:1::4", 64, 2, 0x21, 3)], prefersTemporary: true),
        AddressCase(
            name: "the oldest of equals: a new one is no reason to move",
            addresses: [("2001:db8:1::9", 64, 2, 0, 5), ("2001:db8:1::1", 64, 2, 0, 6)]),
        AddressCase(
            name: "an optimistic one after those that are through with duplicate detection",
            addresses: [("2001:db8:1::9", 64, 2, 0, 9), ("2001:db8:1::1", 64, 2, 0x44, 1)]),
        AddressCase(
            name: "the link whose default route has the lower metric first, one without any last",
            addresses: [("198.51.100.9", 24, 3, 0, 9), ("203.0.113.9", 24, 2, 0, 1), ("192.0.2.9", 24, 4, 0, 1)],
            routes: [("203.0.113.1", 2, 600, nil), ("198.51.100.1", 3, 100, nil)]),
    ]

    @Test("Of several addresses", arguments: addressCases)
    func addresses(_ each: AddressCase) throws {
        var tables = tables(
            try each.routes.map { try route($0.0.contains(":") ? "::/0" : "0.0.0.0/0", via: $0.0, dev: $0.1, metric: $0.2, source: $0.3) })
        tables.links[4] = LinkState(name: "eth0", flags: 0x41)
        if each.prefersTemporary { tables.prefersTemporary = [2] }
        let states = try each.addresses.map {
            AddressState(address: try address($0.0), interfaceIndex: $0.2, prefixLength: $0.1, flags: $0.3, scope: 0, created: $0.4)
        }
        for order in [states, states.reversed()] {
            tables.addresses = order
            #expect(tables.snapshot(without: "mat0").addresses.map(\.address.description) == each.addresses.map(\.0))
        }
    }

    // MARK: Which place among rules

    private func rule(_ priority: UInt32, table: UInt32 = 51820, narrow: Bool = false, action: UInt8 = KernelValues.ruleActionTable) -> ForeignRule {
        ForeignRule(family: .ipv4, priority: priority, table: table, action: action, isNarrow: narrow, text: "\(priority)")
    }
    private var system: [ForeignRule] {
        [rule(0, table: KernelValues.tableLocal), rule(32766, table: KernelValues.tableMain), rule(32767, table: 253)]
    }
    private func place(_ rules: [ForeignRule], keepsFirst: Bool = true) -> RulePlace {
        RulePlace(standard: 6270, among: system + rules, keepsFirst: keepsFirst)
    }

    @Test("Among the system's own rules, and those after ours, ours stand where the configuration says")
    func usual() {
        #expect(place([]) == RulePlace(base: 6270))
        #expect(place([rule(10_000), rule(6286)]) == RulePlace(base: 6270))
    }

    @Test("Rules that take everything are stepped before, all of them, also those among ours")
    func steppedBefore() {
        let wireguard = place([rule(6268, table: KernelValues.tableMain), rule(6269)])
        #expect(wireguard.base == 6252 && wireguard.passed == ["6268", "6269"] && wireguard.before.isEmpty)
        // The next one without a priority lands before our first.
        #expect(place([rule(6268), rule(6269), rule(6251)]).base == 6235)
        #expect(place([rule(6275)]).base == 6259)
        #expect(place([rule(5270, table: 52)]).base == 5254)
    }

    @Test("Rules for some packets only are let be: whoever made one meant these packets")
    func narrow() { #expect(place([rule(5210, narrow: true), rule(100, narrow: true)]) == RulePlace(base: 6270)) }

    @Test("With routing-rules: fixed ours stay, and what comes before is told")
    func fixed() {
        let place = place([rule(6269), rule(6280)], keepsFirst: false)
        #expect(place.base == 6270 && place.before == ["6269"] && place.passed == ["6280"])
    }

    @Test("A rule that forbids everything is not gone around, nor is the local table; and where there is no room it is told")
    func noRoom() {
        let forbidding = place([rule(6000, action: KernelValues.ruleActionUnreachable), rule(6269)])
        #expect(forbidding.base == 6253 && forbidding.before == ["6000"] && forbidding.passed == ["6269"])
        #expect(place([rule(5)]).base == 6270)
        #expect(place([rule(5)]).before == ["5"])
        let movedLocal = RulePlace(standard: 6270, among: [rule(100, table: KernelValues.tableLocal), rule(50), rule(200)], keepsFirst: true)
        #expect(movedLocal.base == 184 && movedLocal.before == ["50"] && movedLocal.passed == ["200"])
    }
}

import MATSignal
import Testing

@testable import IMTPlan

/// Two links with default routes, as `GoldenRoutes` has them, and what is written when something changes.
@Suite("Routes") struct RouteTests {
    private let own = GoldenScenario.own, own6 = GoldenScenario.own6
    private let wlan = GoldenScenario.wlan, cell = GoldenScenario.cell

    private func model(_ changes: [IMTChange]) throws -> TranslationModel {
        var model = TranslationModel()
        try model.apply(changes)
        return model
    }

    private func routes(_ changes: [RoutingChange]) -> [KernelRoute] {
        changes.compactMap { if case .setRoute(let route) = $0 { route } else { nil } }
    }

    @Test("A peer over the shared path is thrown to it, one over another own MoA has a route of its own, and one without a way waits")
    func peers() throws {
        let third = HomePair(own: own.own, peer: GoldenScenario.home("203.0.113.9"))
        let model = try model([
            .setOutbound(own, .rewritten(MobilePair(own: wlan, peer: GoldenScenario.peer))),
            .setOutbound(GoldenScenario.other, .rewritten(MobilePair(own: cell, peer: GoldenScenario.otherPeer))),
            .setOutbound(third, .rewritten(MobilePair(own: GoldenScenario.moa("10.7.0.2"), peer: GoldenScenario.otherPeer))),
        ])
        let plan = GoldenRoutes.plan(GoldenScenario.node)
        var installed = InstalledRoutes()
        let changes = installed.changes(of: [own.peer, GoldenScenario.other.peer, third.peer], to: plan, model)
        #expect(routes(changes).map(\.kind) == [.throwing, .unicast])
        #expect(routes(changes).last?.gateway == GoldenScenario.address("10.2.0.1"))
        #expect(
            installed.peers.isShared(own.peer) && installed.peers.isSeparate(GoldenScenario.other.peer) && installed.peers.withoutWay == [third.peer])
        // Nothing is written twice.
        #expect(installed.changes(of: [own.peer, GoldenScenario.other.peer, third.peer], to: plan, model).isEmpty)
        // What leaves goes first, and says so.
        #expect(
            installed.changes(of: [own.peer], to: plan, model, leaving: true) == [
                .deleteRoute(KernelRoute(table: 6288, destination: IPPrefix(own.peer.address), kind: .throwing))
            ])
    }

    @Test("With a link go its peers' routes, not those that share the path; a route that was refused is written again")
    func losses() throws {
        let model = try model([
            .setOutbound(own, .rewritten(MobilePair(own: wlan, peer: GoldenScenario.peer))),
            .setOutbound(GoldenScenario.other, .rewritten(MobilePair(own: cell, peer: GoldenScenario.otherPeer))),
        ])
        let plan = GoldenRoutes.plan(GoldenScenario.node)
        var installed = InstalledRoutes()
        let changes = installed.changes(of: [own.peer, GoldenScenario.other.peer], to: plan, model)
        installed.linksChanged()
        #expect(installed.peers.contains(own.peer) && !installed.peers.contains(GoldenScenario.other.peer))
        #expect(installed.peers.withoutWay == [GoldenScenario.other.peer])
        installed.refused(changes[0], captureTable: 6288)
        #expect(!installed.peers.contains(own.peer))
        #expect(installed.changes(of: [own.peer, GoldenScenario.other.peer], to: plan, model) == changes)
    }

    @Test("An IPv6 peer that leaves the shared path has the shared route written once more, so that its sockets ask again")
    func renewal() throws {
        let plan = GoldenRoutes.plan(GoldenScenario.node)
        var installed = InstalledRoutes()
        _ = installed.changes(to: plan, further: [])
        let model = try model([.setOutbound(own6, .rewritten(MobilePair(own: GoldenScenario.wlan6, peer: GoldenScenario.peer6)))])
        #expect(installed.changes(of: [own6.peer], to: plan, model).count == 1)
        let left = installed.changes(of: [own6.peer], to: plan, model, leaving: true)
        #expect(
            left.count == 3 && routes(left).allSatisfy { $0.table == RoutePlan.pathTable(plan.configuration) && $0.destination.familyLength == 0 })
    }

    @Test("All is written once, in the same order each time, gateways after the links that lead to them, and what is not wanted goes")
    func whole() {
        let plan = GoldenRoutes.plan(GoldenScenario.node)
        var installed = InstalledRoutes()
        let changes = installed.changes(to: plan, further: [])
        var again = InstalledRoutes()
        #expect(again.changes(to: plan, further: []) == changes && installed.changes(to: plan, further: []).isEmpty)
        let firstFar = routes(changes).firstIndex { $0.gateway != nil }
        let lastNear = routes(changes).lastIndex { $0.gateway == nil }
        #expect(firstFar != nil && lastNear != nil && (lastNear ?? 0) < (firstFar ?? 0))
        var narrower = plan
        narrower.locators.removeLast()
        let gone = installed.changes(to: narrower, further: [])
        #expect(
            !gone.isEmpty
                && gone.allSatisfy {
                    if case .deleteRoute(let route) = $0 {
                        route.table == 6291
                    } else if case .deleteRule(let rule) = $0 {
                        rule.table == 6291
                    } else {
                        false
                    }
                })
    }

    @Test("A plain address has its exceptions in both tables; a peer's route stands in place of one")
    func plain() throws {
        var plan = GoldenRoutes.plan(GoldenScenario.node)
        var installed = InstalledRoutes()
        _ = installed.changes(to: plan, further: [])
        let address = own.peer.address
        plan.plain.insert(address)
        #expect(routes(installed.changes(to: plan, of: [address])).map(\.table) == [6288, RoutePlan.pathTable(plan.configuration)])
        var model = try model([.setOutbound(own, .rewritten(MobilePair(own: wlan, peer: GoldenScenario.peer)))])
        model.plain = [address]
        // The same route, noted as the peer's.
        #expect(installed.changes(of: [own.peer], to: plan, model).isEmpty && installed.peers.isShared(own.peer))
    }

    @Test("The own MoA that most peers leave from becomes the shared path, and stays it while it is used by many")
    func sharedPaths() {
        var paths = SharedPaths()
        #expect(paths.choose([wlan: 10, cell: 9]) && paths[.ipv4] == wlan && paths[.ipv6] == nil)
        #expect(!paths.choose([wlan: 2, cell: 15]) && paths[.ipv4] == wlan)
        #expect(paths.choose([wlan: 2, cell: 16]) && paths[.ipv4] == cell)
        #expect(!paths.choose([:]) && paths.all == [cell])
    }

    @Test("Peers' routes are looked at in portions: those that give up theirs first, then all that share the path")
    func sweep() {
        var routes = PeerRoutes()
        let count = PeerRouteSweep.portion + 1
        for number in 0..<count {
            let peer = HomeAddress(IPAddress(ipv4: UInt32(number)))
            routes.set(peer, KernelRoute(table: 1, destination: IPPrefix(peer.address), kind: .throwing))
        }
        var sweep = PeerRouteSweep()
        #expect(sweep.isSettled && sweep.next(of: routes).isEmpty)
        sweep.leave([own.peer])
        sweep.sweep()
        #expect(sweep.next(of: routes) == [own.peer] && !sweep.isSettled)
        #expect(sweep.next(of: routes).count == PeerRouteSweep.portion && !sweep.isSettled)
        #expect(sweep.next(of: routes).count == 1 && sweep.isSettled)
    }

    @Test("Each HoA is put on the device; one that is refused is told of once, and one that somebody took off is put back")
    func homes() {
        var homes = OwnHomes()
        let (first, second) = (own.own.address, own6.own.address)
        #expect(homes.changes(GoldenScenario.node, present: [GoldenScenario.address("192.0.2.9")], device: 9, retire: true).count == 3)
        #expect(homes.placed(GoldenScenario.node, present: [], refused: [second]).newlyRefused == [second])
        #expect(homes.usable == [first])
        let again = homes.placed(GoldenScenario.node, present: [], refused: [second])
        #expect(again.newlyRefused.isEmpty && again.putBack == [first])
        homes.deviceLost()
        #expect(homes.placed(GoldenScenario.node, present: [], refused: []).putBack.isEmpty && homes.usable == [first, second])
    }
}

@Suite("The place of our rules") struct RulePlaceTests {
    private func rule(_ priority: UInt32, table: UInt32 = 51820, action: UInt8 = KernelValues.ruleActionTable, isNarrow: Bool = false) -> ForeignRule
    {
        ForeignRule(family: .ipv4, priority: priority, table: table, action: action, isNarrow: isNarrow, text: "\(priority): test")
    }
    private var local: ForeignRule { rule(0, table: KernelValues.tableLocal) }

    @Test("Ours stand before a rule that takes everything, as far as there is room after the local table's")
    func passes() {
        let place = RulePlace(standard: 6270, among: [local, rule(5210), rule(32766, table: KernelValues.tableMain)], keepsFirst: true)
        #expect(place.base == 5210 - RulePlace.width && place.passed == ["5210: test"] && place.before.isEmpty)
        let tight = RulePlace(standard: 6270, among: [local, rule(10)], keepsFirst: true)
        #expect(tight.base == 6270 && tight.before == ["10: test"] && tight.passed.isEmpty)
    }

    @Test("Narrow rules are let be, rules that forbid are not gone around, and nobody is passed if that is not wanted")
    func lets() {
        #expect(RulePlace(standard: 6270, among: [local, rule(100, isNarrow: true)], keepsFirst: true) == RulePlace(base: 6270))
        let forbidden = RulePlace(standard: 6270, among: [local, rule(100, action: KernelValues.ruleActionProhibit)], keepsFirst: true)
        #expect(forbidden.base == 6270 && forbidden.before == ["100: test"])
        #expect(RulePlace(standard: 6270, among: [local, rule(5210)], keepsFirst: false).before == ["5210: test"])
    }
}

@Suite("The main table") struct MainTableTests {
    private func route(_ prefix: String, _ priority: UInt32, via gateway: String? = nil, on link: UInt32 = 2) -> KernelRoute {
        KernelRoute(
            table: KernelValues.tableMain, destination: GoldenScenario.prefix(prefix), gateway: gateway.map(GoldenScenario.address),
            interfaceIndex: link,
            priority: priority)
    }

    @Test("Of routes to one destination the lower metric goes first, unless its router is silent")
    func rank() {
        var tables = LinkTables()
        tables.main = MainTable([route("0.0.0.0/0", 100, via: "10.1.0.1"), route("0.0.0.0/0", 200, via: "10.1.0.9")])
        let all = tables.main.defaults(family: .ipv4)
        #expect(tables.best(of: all)?.priority == 100)
        #expect(tables.contestedRouters.count == 2)
        let makesDifference = tables.apply([Router(interfaceIndex: 2, address: GoldenScenario.address("10.1.0.1")): KernelValues.neighbourFailed])
        #expect(makesDifference)
        #expect(tables.best(of: all)?.priority == 200)
    }

    @Test("The longest destination that fits is found, and a replacement that says too little asks for reading")
    func lookUp() {
        var table = MainTable([
            route("0.0.0.0/0", 100, via: "10.1.0.1"), route("10.9.0.0/16", 100, via: "10.1.0.7"), route("10.9.3.0/24", 100, on: 3),
        ])
        #expect(table.longestMatch(GoldenScenario.address("10.9.3.4")) { _ in true }.map(\.interfaceIndex) == [3])
        #expect(
            table.longestMatch(GoldenScenario.address("10.9.3.4")) { $0.interfaceIndex == 2 }.map(\.gateway) == [GoldenScenario.address("10.1.0.7")])
        table.insert(route("10.9.0.0/16", 100, via: "10.1.0.8"))
        #expect(table.ambiguous == [GoldenScenario.prefix("10.9.0.0/16")])
        #expect(table.apply(MainTable.Change(route: route("10.9.0.0/16", 100, via: "10.1.0.3"), isRemoval: false, replaces: true)) == nil)
    }

    @Test("A full link keeps its shortest destinations")
    func bound() {
        var table = MainTable()
        for number in 0..<MainTable.routesPerLinkMax {
            table.insert(
                KernelRoute(table: 254, destination: IPPrefix(covering: IPAddress(ipv4: UInt32(number) << 8), length: 120), interfaceIndex: 2))
        }
        let short = KernelRoute(table: 254, destination: IPPrefix(covering: IPAddress(ipv4: 0xF000_0000), length: 104), interfaceIndex: 2)
        let isShortKept = table.insert(short)
        #expect(isShortKept && table.count == MainTable.routesPerLinkMax)
        let long = KernelRoute(table: 254, destination: IPPrefix(covering: IPAddress(ipv4: 0xF100_0000), length: 128), interfaceIndex: 2)
        let isLongKept = table.insert(long)
        #expect(!isLongKept)
    }
}

@Suite("Many addresses") struct AddressSetTests {
    @Test("Addresses come and go as in a set, and are gone through bit by bit")
    func members() {
        var random = SystemRandomNumberGenerator()
        var set = AddressSet()
        var model: Set<IPAddress> = []
        for _ in 0..<5000 {
            let address = IPAddress(ipv4: UInt32.random(in: 0..<700, using: &random))
            if Bool.random(using: &random) {
                set.insert(address)
                model.insert(address)
            } else {
                set.remove(address)
                model.remove(address)
            }
        }
        #expect(set.count == model.count && model.allSatisfy(set.contains))
        var seen: Set<IPAddress> = []
        var place: Int? = 0
        while let from = place {
            let (members, next) = set.some(from: from, 64)
            seen.formUnion(members)
            place = next
        }
        #expect(seen == model)
    }
}

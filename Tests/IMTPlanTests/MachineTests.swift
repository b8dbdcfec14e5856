import MATSignal
import Testing

@testable import IMTPlan

private func at(_ seconds: Double) -> MonotonicTime { .zero + .milliseconds(Int64(seconds * 1000)) }
private func address(_ number: UInt32) -> IPAddress { IPAddress(ipv4: number) }
private func home(_ number: UInt32) -> HomeAddress { HomeAddress(address(number)) }
private func moa(_ number: UInt32) -> MobileAddress { MobileAddress(address(number)) }

@Suite("Plain destinations") struct PlainDestinationsTests {
    @Test("A destination is plain for the time that the agent gave, and a later word counts")
    func lapses() {
        var plain = PlainDestinations()
        plain.committed([.setPlain(address(1), lifetime: .seconds(10)), .setPlain(address(2), lifetime: .seconds(5))], now: at(0))
        #expect(plain.nextDeadline == at(5) && plain.expired(at(4)).isEmpty)
        plain.committed([.setPlain(address(2), lifetime: .seconds(30))], now: at(0))
        #expect(plain.expired(at(10)) == [address(1)])
        plain.committed([.removePlain(address(1))], now: at(10))
        #expect(plain.nextDeadline == at(30))
    }

    @Test("What an earlier run had found is believed for a minute; a destination that can't be removed stays a second longer")
    func adoptionAndRefusal() {
        var plain = PlainDestinations()
        plain.adopt([address(7)], now: at(0))
        #expect(plain.expired(at(60)) == [address(7)])
        plain.refused([address(7)], now: at(60))
        #expect(plain.expired(at(60)).isEmpty && plain.nextDeadline == at(61))
    }

    @Test("One that never lapses wakes nobody")
    func forEver() {
        var plain = PlainDestinations()
        plain.committed([.setPlain(address(1), lifetime: .seconds(Int64.max))], now: at(1))
        #expect(plain.nextDeadline == nil)
    }

    @Test("A full set makes room by those whose time ends first, and more than is needed at once")
    func evictions() {
        var plain = PlainDestinations()
        let most = TranslationRuleset.plainSourcesMax
        let all = (1...most).map { IMTChange.setPlain(address($0), lifetime: .seconds(Int64($0))) }
        plain.committed(all, now: at(0))
        let evicted = plain.evictions(for: [.setPlain(address(most + 1), lifetime: .seconds(1))], plain: Set((1...most).map(address)))
        #expect(evicted.count == 1 + Int(most) / 16 && evicted.first == .removePlain(address(1)))
        #expect(plain.evictions(for: [.removePlain(address(1))], plain: Set((1...most).map(address))).isEmpty)
    }
}

@Suite("Own MoAs that went away") struct RetiredAddressesTests {
    @Test("Each has its time from when it went; one that is back has none")
    func lapses() {
        var retired = RetiredAddresses()
        retired.update([moa(1)], now: at(0))
        retired.update([moa(1), moa(2)], now: at(100))
        #expect(retired.nextDeadline == at(0) + RetiredAddresses.lifetime)
        #expect(retired.expired(at(0) + RetiredAddresses.lifetime) == [moa(1)])
        retired.update([moa(2)], now: at(200))
        #expect(retired.nextDeadline == at(100) + RetiredAddresses.lifetime)
        retired.update([], now: at(300))
        #expect(retired.nextDeadline == nil)
    }

    @Test("A release that the kernel refuses is tried again after a minute")
    func refusal() {
        var retired = RetiredAddresses()
        retired.update([moa(1)], now: at(0))
        let end = at(0) + RetiredAddresses.lifetime
        retired.refused([moa(1)], now: end)
        retired.update([moa(1)], now: end)
        #expect(retired.expired(end).isEmpty && retired.nextDeadline == end + .seconds(60))
    }
}

@Suite("Search for plain flows") struct PlainSearchTests {
    private func mapping(_ peer: UInt32, at place: UInt32) -> IMTChange { .setInbound(peer: moa(place), HomePair(own: home(1), peer: home(peer))) }

    @Test("Searches take a twentieth of the time: after a long one the next new peer waits")
    func share() {
        var search = PlainSearch()
        #expect(search.mappings([mapping(10, at: 20)], before: TranslationModel(), now: at(0)) == .search)
        #expect(search.begin().peers == [Arrival(peer: moa(20), own: home(1)): home(10)])
        search.ended(from: at(0), to: at(1))
        #expect(search.mappings([mapping(11, at: 21)], before: TranslationModel(), now: at(2)) == .wait(until: at(20)))
        #expect(search.mappings([mapping(12, at: 22)], before: TranslationModel(), now: at(3)) == .nothing)
        #expect(search.begin().peers.count == 2)
        #expect(search.mappings([mapping(13, at: 23)], before: TranslationModel(), now: at(18)) == .search)
    }

    @Test("A MoA that passes from one peer to another is searched for at once, and what was known is no news")
    func taken() throws {
        var search = PlainSearch()
        var model = TranslationModel()
        try model.apply([mapping(10, at: 20)])
        #expect(search.mappings([mapping(10, at: 20)], before: model, now: at(0)) == .nothing)
        search.ended(from: at(0), to: at(10))
        #expect(search.mappings([mapping(11, at: 21)], before: model, now: at(10)) == .wait(until: at(200)))
        #expect(search.mappings([mapping(12, at: 20)], before: model, now: at(10)) == .search)
    }

    @Test("A peer is known that packets reached, whether rewritten or in datagrams, before it came to a MoA where they are rewritten")
    func known() throws {
        var search = PlainSearch()
        var model = TranslationModel()
        let datagrams = Carriage(.encapsulated(own: Endpoint(address(1), port: 6289), peer: Endpoint(address(30), port: 6289)))
        try model.apply([
            .setOutbound(HomePair(own: home(1), peer: home(10)), .rewritten(MobilePair(own: moa(1), peer: moa(30)))),
            .setOutbound(HomePair(own: home(1), peer: home(11)), datagrams),
        ])
        _ = search.mappings([mapping(10, at: 20), mapping(11, at: 21), mapping(12, at: 22)], before: model, now: at(0))
        #expect(search.begin().moved == [Arrival(peer: moa(20), own: home(1)), Arrival(peer: moa(21), own: home(1))])
    }

    @Test("A peer whose entry went before its new place had proved itself is known there for 10 s, and new later")
    func left() throws {
        var search = PlainSearch()
        var model = TranslationModel()
        let pairs = [10, 11].map { HomePair(own: home(1), peer: home($0)) }
        let datagrams = Carriage(.encapsulated(own: Endpoint(address(1), port: 6289), peer: Endpoint(address(30), port: 6289)))
        try model.apply(pairs.map { .setOutbound($0, datagrams) })
        #expect(search.mappings(pairs.map { .removeOutbound($0) }, before: model, now: at(0)) == .nothing)
        try model.apply(pairs.map { .removeOutbound($0) })
        _ = search.mappings([mapping(10, at: 20)], before: model, now: at(9))
        #expect(search.begin().moved == [Arrival(peer: moa(20), own: home(1))])
        _ = search.mappings([mapping(11, at: 21)], before: model, now: at(10))
        let late = search.begin()
        #expect(late.peers.count == 1 && late.moved.isEmpty)
    }

    @Test("Who lost entries without end leaves no more behind than the bound, and makes room when their time is over")
    func leftMany() throws {
        var search = PlainSearch()
        var model = TranslationModel()
        let pairs = (0...UInt32(PlainSearch.leftMax)).map { HomePair(own: home(1), peer: home(1000 + $0)) }
        let datagrams = Carriage(.encapsulated(own: Endpoint(address(1), port: 6289), peer: Endpoint(address(30), port: 6289)))
        try model.apply(pairs.map { .setOutbound($0, datagrams) })
        _ = search.mappings(pairs.map { .removeOutbound($0) }, before: model, now: at(0))
        let last = try #require(pairs.last)
        let place = IMTChange.setInbound(peer: moa(20), last)
        _ = search.mappings([place], before: TranslationModel(), now: at(1))
        #expect(search.begin().moved.isEmpty)
        _ = search.mappings([.removeOutbound(last)], before: model, now: at(20))
        _ = search.mappings([place], before: TranslationModel(), now: at(21))
        #expect(search.begin().moved.count == 1)
    }

    @Test("A flow keeps its MoAs if its peer is new there; of a peer that has moved only TCP does, and no connection between HoAs")
    func flows() {
        let arrivals = [Arrival(peer: moa(20), own: home(1)): home(10), Arrival(peer: moa(21), own: home(1)): home(11)]
        let wanted = PlainSearch.Wanted(peers: arrivals, moved: [Arrival(peer: moa(21), own: home(1))])
        func noted(_ peer: UInt32, _ protocolNumber: UInt8) -> PlainFlow {
            PlainFlow(peerHome: home(peer), peer: moa(peer), own: moa(2), protocolNumber: protocolNumber, peerPort: 1, ownPort: 2)
        }
        let connection = TCPConnection(local: Endpoint(address(2), port: 5), remote: Endpoint(address(20), port: 6))
        let flows = wanted.flows(
            noted: [noted(20, 17), noted(21, 17), noted(21, 6), noted(22, 6)], connections: [connection], own: [moa(2): home(1)],
            moaOf: { _ in (moa(2), home(1)) })
        #expect(flows.map(\.peerHome) == [home(10), home(11), home(10)] && flows.last?.ownPort == 5)
        let atHome = PlainSearch.Wanted(peers: [Arrival(peer: moa(10), own: home(1)): home(10)], moved: [])
        let between = TCPConnection(local: Endpoint(address(1), port: 5), remote: Endpoint(address(10), port: 6))
        #expect(atHome.flows(noted: [], connections: [between], own: [:], moaOf: { _ in (moa(2), home(1)) }).isEmpty)
    }
}

@Suite("Repair") struct RepairMachineTests {
    @Test("Six repairs are prompt, then each waits longer, up to a minute; after two quiet minutes all is forgotten")
    func pace() {
        var pace = RepairPace()
        for _ in 0..<RepairPace.promptMax {
            #expect(pace.next(at(0)) == at(0))
            pace.made(at(0))
        }
        var delays: [Duration] = []
        var now = at(0)
        for _ in 0..<8 {
            let next = pace.next(now)
            delays.append(next - now)
            pace.made(next)
            now = next
        }
        #expect(delays == [1, 2, 4, 8, 16, 32, 60, 60].map { Duration.seconds($0) })
        #expect(pace.next(now + RepairPace.quiet) == now + RepairPace.quiet)
    }

    @Test("Damage of the tables that comes while a repair waits is repaired with it")
    func tables() {
        var repair = TableRepair()
        var rules = RulesetNews()
        var structure = RulesetNews()
        (rules.rules, structure.structure) = (true, true)
        for _ in 0..<RepairPace.promptMax {
            guard case .repair(let damage) = repair.heard(rules, now: at(0)) else { return #expect(Bool(false)) }
            #expect(damage.rules && !damage.structure)
            repair.repaired(at(0))
        }
        guard case .contested(let time) = repair.heard(rules, now: at(0)) else { return #expect(Bool(false)) }
        #expect(time == at(1))
        guard case .nothing = repair.heard(structure, now: at(0.5)) else { return #expect(Bool(false)) }
        guard case .repair(let damage) = repair.due(time) else { return #expect(Bool(false)) }
        #expect(damage.rules && damage.structure)
    }

    @Test("Routes are put back when a flush has ended, or goes on for long, and not while peers' routes change by themselves")
    func routes() {
        var repair = RouteRepair()
        #expect(repair.heard(isSettled: true, now: at(0)) == .wait(until: at(0.03), isContested: false))
        #expect(repair.heard(isSettled: true, now: at(0.02)) == .nothing)
        #expect(repair.due(isSettled: true, now: at(0.03)) == .wait(until: at(0.05), isContested: false))
        #expect(repair.due(isSettled: true, now: at(0.05)) == .repair)
        #expect(repair.heard(isSettled: true, now: at(1)) == .wait(until: at(1.03), isContested: false))
        for step in 1...20 { #expect(repair.heard(isSettled: true, now: at(1 + 0.02 * Double(step))) == .nothing) }
        #expect(repair.due(isSettled: true, now: at(1.4)) == .repair)
        #expect(repair.heard(isSettled: false, now: at(2)) == .wait(until: at(2.1), isContested: false))
    }

    @Test("Our rules move before others' at once, and wait when that happens too often")
    func rules() {
        func place(_ base: UInt32) -> RulePlace { RulePlace(base: base) }
        var order = RuleOrder(base: 6270)
        guard case .unchanged = order.review(place(6270), now: at(0)) else { return #expect(Bool(false)) }
        for step in 0..<RepairPace.promptMax {
            guard case .moved = order.review(place(6000 - UInt32(step)), now: at(0)) else { return #expect(Bool(false)) }
        }
        var next = place(5000)
        next.passed = ["5016: from all lookup 7"]
        guard case .contested(let time) = order.review(next, now: at(0)) else { return #expect(Bool(false)) }
        // Meanwhile ours stay where they are, and the other's takes what is ours.
        #expect(time == at(1) && !order.isDue && order.place.base == 5995 && order.place.before == next.passed)
        order.due()
        guard case .moved(let moved) = order.review(next, now: time) else { return #expect(Bool(false)) }
        #expect(moved == next && order.isDue)
    }
}

@Suite("Reverse path filters") struct ReversePathsTests {
    @Test("A strict link is warned of once, or loosened and put back; the higher of its setting and the host's counts")
    func review() {
        var paths = ReversePaths()
        #expect(paths.review("wlan", own: 0, everywhere: 0, loosens: false) == .nothing)
        #expect(paths.review("wlan", own: 1, everywhere: 2, loosens: false) == .nothing)
        #expect(paths.review("wlan", own: 0, everywhere: 1, loosens: false) == .warn)
        #expect(paths.review("wlan", own: 1, everywhere: 0, loosens: false) == .nothing)
        #expect(paths.review("cell", own: 1, everywhere: 0, loosens: true) == .loosen)
        paths.loosened(3, before: 1)
        #expect(paths.restore().map(\.setting) == [1] && paths.restore().isEmpty)
    }
}

@Suite("What the host asks of the tables") struct TranslationNeedsTests {
    @Test(
        "Mapped packets are kept out of connection tracking unless somebody asks for their state",
        arguments: [
            (ConnectionTracking.auto, false, false, false), (.auto, true, false, true), (.auto, true, true, false), (.always, true, false, false),
            (.never, false, false, false), (.never, false, true, true), (.never, true, false, true),
        ])
    func tracking(_ tracking: ConnectionTracking, _ translates: Bool, _ othersFilter: Bool, _ spares: Bool) {
        var configuration = GoldenScenario.node
        configuration.connectionTracking = tracking
        let needs = TranslationNeeds(translatesSources: translates).reviewed(configuration, othersFilter: othersFilter, hasPolicies: true)
        #expect(needs.sparesTracking == spares && needs.exemptsIPsec)
        // Source NAT comes with its first packet, or at once where all is to be tracked.
        #expect(needs.translatesSources == (translates || tracking == .always))
        #expect(TranslationNeeds().translatingSources(configuration, othersFilter: othersFilter).translatesSources)
    }

    @Test("Source NAT goes again where it was for single programs alone, and stays where others may need it")
    func programs() {
        var configuration = GoldenScenario.node
        let needs = TranslationNeeds().translatingSources(configuration, othersFilter: false)
        #expect(!needs.isForPrograms(configuration))
        configuration.traffic = .nothing
        #expect(needs.isForPrograms(configuration) && !TranslationNeeds().isForPrograms(configuration))
        for othersFilter in [false, true] {
            let before = TranslationNeeds().reviewed(configuration, othersFilter: othersFilter, hasPolicies: false)
            let during = before.translatingSources(configuration, othersFilter: othersFilter)
            #expect(during != before && during.leavingSources(configuration, othersFilter: othersFilter) == before)
        }
        configuration.connectionTracking = .always
        #expect(!needs.isForPrograms(configuration))
    }

    @Test("Packets that leave meet a hook before connection tracking only while something may track them")
    func holding() {
        func chains(_ needs: TranslationNeeds) -> [String] {
            var plan = TranslationPlan(GoldenScenario.node)
            plan.needs = needs
            return plan.ruleset(.ipv4).table.chains.filter { $0.hook?.number == KernelValues.hookOutput }.map(\.name)
        }
        let alone = TranslationNeeds().reviewed(GoldenScenario.node, othersFilter: false, hasPolicies: false)
        #expect(chains(alone).isEmpty)
        #expect(chains(alone.reviewed(GoldenScenario.node, othersFilter: true, hasPolicies: false)) == ["hold"])
        #expect(chains(alone.translatingSources(GoldenScenario.node, othersFilter: false)) == ["hold"])
    }

    @Test("A mobile network has source NAT from the start, and nobody has it without traffic from HoAs")
    func networks() {
        var configuration = GoldenScenario.router
        #expect(TranslationNeeds().reviewed(configuration, othersFilter: false, hasPolicies: false) == TranslationNeeds(translatesSources: true))
        configuration.traffic = .nothing
        #expect(!TranslationNeeds().reviewed(configuration, othersFilter: false, hasPolicies: false).translatesSources)
    }
}

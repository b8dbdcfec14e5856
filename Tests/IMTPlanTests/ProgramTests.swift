import MATSignal
import Testing

@testable import IMTPlan

/// Which rules and routes follow from programs and homes, and which marks and control groups programs get.
@Suite("Programs with other addresses than the rest of the host") struct ProgramTests {
    private let first = GoldenScenario.own.own, first6 = GoldenScenario.own6.own, second = GoldenScenario.home("192.0.2.77")
    private let mark: UInt32 = 0x6288_0001, other: UInt32 = 0x6288_0002

    private func plan(_ traffic: TrafficSelection, _ programs: [UInt32: ProgramVia]) -> RoutePlan {
        var configuration = IMTConfiguration(homeAddresses: [first, second, first6], traffic: traffic)
        configuration.exceptions = [GoldenScenario.prefix("172.16.0.0/12")]
        var plan = GoldenRoutes.plan(configuration, homes: [first.address, second.address, first6.address])
        plan.programs = programs
        return plan
    }

    /// What the rules say to a socket, from the first on: the tables that it is looked up in.
    private func tables(_ plan: RoutePlan, _ family: AddressFamily, mark: UInt32?, source: IPAddress?) -> [UInt32] {
        plan.rules().filter { rule in
            rule.family == family && (rule.mark == nil || rule.mark == mark)
                && (rule.source == nil || source.map { rule.source?.contains($0) ?? false } ?? false)
        }.sorted().map(\.table)
    }

    private func unbound(_ plan: RoutePlan, _ family: AddressFamily, _ mark: UInt32?) -> [UInt32] { tables(plan, family, mark: mark, source: nil) }

    private var path: UInt32 { RoutePlan.pathTable(IMTConfiguration()) }

    @Test("Without programs there is no rule and no route for any")
    func none() {
        for traffic in [TrafficSelection.everything, .nothing] {
            let plan = plan(traffic, [:])
            #expect(plan.programRules().isEmpty && plan.programRoutes().isEmpty && plan.programTables.isEmpty)
        }
    }

    @Test("What all sockets do anyway needs no rule")
    func asEverybody() {
        let plan = plan(.everything, [mark: .homes(ipv4: first, ipv6: first6)])
        #expect(plan.programRules().isEmpty && plan.programRoutes().isEmpty)
    }

    @Test("A program starts from the first home address whatever the host does: peers first, then what nobody has decided about")
    func firstHome() throws {
        let plan = plan(.nothing, [mark: .homes(ipv4: first, ipv6: first6)])
        for (family, home) in [(AddressFamily.ipv4, first), (.ipv6, first6)] {
            let table = try #require(RoutePlan.programTable(plan.configuration, home))
            #expect(unbound(plan, family, mark).prefix(3) == [6288, path, table])
            #expect(!unbound(plan, family, nil).contains(table) && !unbound(plan, family, plan.configuration.mark).prefix(2).contains(table))
            let everything = plan.programRoutes().filter { $0.table == table && $0.destination.familyLength == 0 }
            #expect(everything.map(\.source) == [home.address] && everything.map(\.interfaceIndex) == [9])
            // What is never a peer, or not now, passes by.
            let thrown = plan.programRoutes().filter { $0.table == table && $0.kind == .throwing }
            let plain = IPPrefix(GoldenScenario.address("192.88.99.9"))
            #expect(thrown.allSatisfy { $0.family == family } && thrown.contains { $0.destination == plain } == (family == .ipv4))
        }
    }

    @Test("Two programs with two homes of a family are looked up apart, and neither in the other's table")
    func twoHomes() throws {
        for traffic in [TrafficSelection.everything, .nothing] {
            let plan = plan(traffic, [mark: .homes(ipv4: first, ipv6: first6), other: .homes(ipv4: second, ipv6: first6)])
            let further = RoutePlan.homeTable(plan.configuration, 1)
            #expect(unbound(plan, .ipv4, other).first == further)
            #expect(!unbound(plan, .ipv4, mark).contains(further))
            if traffic == .nothing {
                let table = try #require(RoutePlan.programTable(plan.configuration, second))
                #expect(unbound(plan, .ipv4, other).prefix(2) == [further, table])
            }
        }
    }

    @Test("A program of a visited home is looked up in that home's tables, beside those of its own homes")
    func visitedHome() throws {
        let visited = GoldenScenario.home("198.51.100.130")
        for traffic in [TrafficSelection.everything, .nothing] {
            var plan = plan(traffic, [mark: .homes(ipv4: visited, ipv6: first6)])
            try plan.configuration.enter(visited)
            plan.homes.insert(visited.address)
            let capture = try #require(RoutePlan.furtherHomes(plan.configuration).first { $0.hoa == visited }?.table)
            #expect(unbound(plan, .ipv4, mark).first == capture && unbound(plan, .ipv4, nil).first != capture)
            // What it binds to a visited home, of another program too.
            #expect(tables(plan, .ipv4, mark: mark, source: visited.address).first == capture)
            guard traffic == .nothing else { continue }
            let table = try #require(RoutePlan.programTable(plan.configuration, visited))
            #expect(unbound(plan, .ipv4, mark).dropFirst().first == table)
            let all = [first, second, first6, visited].map { RoutePlan.programTable(plan.configuration, $0) } + [capture]
            #expect(Set(all).count == 5)
            #expect(plan.programRoutes().contains { $0.table == table && $0.source == visited.address && $0.destination.familyLength == 0 })
            // It goes with the home.
            plan.configuration.leave(visited)
            #expect(!unbound(plan, .ipv4, mark).contains(capture) && !plan.programTables.contains(table))
        }
    }

    @Test("A plain program follows the main table, and goes nowhere while that has no way")
    func plain() {
        let plan = plan(.everything, [mark: .plain])
        let table = RoutePlan.plainProgramTable(plan.configuration)
        for family in AddressFamily.allCases { #expect(unbound(plan, family, mark).prefix(2) == [KernelValues.tableMain, table]) }
        #expect(plan.programRoutes().map(\.kind) == [.unreachable, .unreachable] && plan.programRoutes().allSatisfy { $0.table == table })
    }

    @Test("What a program binds itself to stays its choice: the home's own table comes before the mark's, the mobile address's before both")
    func bound() {
        let plan = plan(.nothing, [mark: .plain, other: .homes(ipv4: second, ipv6: nil)])
        let further = RoutePlan.homeTable(plan.configuration, 1)
        #expect(tables(plan, .ipv4, mark: mark, source: first.address).prefix(2) == [6288, path])
        #expect(tables(plan, .ipv4, mark: mark, source: second.address).first == further)
        #expect(tables(plan, .ipv4, mark: other, source: first.address).prefix(2) == [6288, path])
        #expect(tables(plan, .ipv4, mark: other, source: GoldenScenario.wlan.address).first == RoutePlan.linkTable(plan.configuration, 2))
    }

    @Test("A home address that the node does not have, or can't use, leaves its programs as they would be without")
    func unknown() {
        var plan = plan(.nothing, [mark: .homes(ipv4: GoldenScenario.home("192.0.2.99"), ipv6: first6)])
        plan.homes.remove(first6.address)
        #expect(plan.programRules().isEmpty && plan.programRoutes().isEmpty)
    }

    @Test("What lapses as plain goes from the programs' tables too, and an IPv6 peer's route has their default written once more")
    func changes() throws {
        var configuration = GoldenScenario.node
        configuration.traffic = .nothing
        var plan = GoldenRoutes.plan(configuration)
        plan.programs = [mark: .homes(ipv4: first, ipv6: first6)]
        let tables = Set(plan.programTables)
        #expect(tables.count == 2)
        var installed = InstalledRoutes()
        _ = installed.changes(to: plan, further: [])
        let plainAddress = try #require(plan.plain.first)
        plan.plain = []
        let lapsed = installed.changes(to: plan, of: [plainAddress])
        #expect(lapsed.contains { if case .deleteRoute(let route) = $0 { tables.contains(route.table) } else { false } })
        var model = TranslationModel()
        try model.apply([.setOutbound(GoldenScenario.own6, .rewritten(MobilePair(own: GoldenScenario.wlan6, peer: GoldenScenario.peer6)))])
        let changes = installed.changes(of: [GoldenScenario.own6.peer], to: plan, model)
        let table = try #require(RoutePlan.programTable(configuration, first6))
        #expect(changes.count == 2)
        guard case .setRoute(let peer)? = changes.first, case .setRoute(let again)? = changes.last else { return #expect(Bool(false)) }
        #expect(peer.kind == .unicast && peer.table == 6288 && again.table == table && again.destination.familyLength == 0)
        // All goes with the last program.
        plan.programs = [:]
        let gone = installed.changes(to: plan, further: [])
        #expect(gone.contains { if case .deleteRule = $0 { true } else { false } })
        for case .deleteRoute(let route) in gone { #expect(tables.contains(route.table) || route.destination.length == 128) }
    }

    // MARK: Marks and groups

    @Test("Programs of one via share a mark, whatever groups they are in; it ends with the last group, and is not given again at once")
    func marks() throws {
        var programs = SteeredPrograms(mark: 0x6288)
        let marks = [programs.mark(for: .plain), programs.mark(for: .plain)]
        #expect(marks == [0x6288_0001, 0x6288_0001])
        programs.entered("/a/x", mark: mark)
        programs.entered("/b/x", mark: mark)
        let first = programs.ended("/a/x")
        #expect(!first && programs.via(of: mark) == .plain)
        let ends = [programs.ended("/b/x"), programs.ended("/b/x")]
        #expect(ends == [true, false] && programs.isEmpty)
        let next = programs.mark(for: .plain)
        #expect(next == 0x6288_0002)
    }

    @Test("A mark that no program came to is given back, and there is an end to vias and groups")
    func bounds() throws {
        var programs = SteeredPrograms(mark: 0x6288)
        let unused = programs.mark(for: .plain)
        let released = programs.release(try #require(unused))
        #expect(released && programs.isEmpty)
        let vias = (1...SteeredPrograms.viasMax).map { ProgramVia.homes(ipv4: GoldenScenario.home("192.0.2.\($0)"), ipv6: nil) }
        let marks = vias.compactMap { programs.mark(for: $0) }
        #expect(Set(marks).count == SteeredPrograms.viasMax)
        let (more, known) = (programs.mark(for: .plain), programs.mark(for: vias[0]))
        #expect(more == nil && known == marks[0])
        for number in 0..<SteeredPrograms.groupsMax { programs.entered("/\(number)", mark: marks[0]) }
        #expect(!programs.hasRoomForGroup)
    }

    @Test("A successor finds by the groups' names which mark is whose, and gives no other via a mark that is in use")
    func adoption() throws {
        var programs = SteeredPrograms(mark: 0x6288)
        let via = ProgramVia.homes(ipv4: first, ipv6: first6)
        let name = try #require(GroupName.parse(GroupName(network: 4_026_531_840, mark: 0x6288_0007, via: via).write()))
        #expect(name.via == via && name.network == 4_026_531_840)
        let isOurs = programs.found("/x/\(name.write())", name)
        let marks = [programs.mark(for: via), programs.mark(for: .plain)]
        #expect(isOurs && marks == [0x6288_0007, 0x6288_0008])
        let contradicts = programs.found("/y", GroupName(network: 1, mark: 0x6288_0007, via: .plain))
        let anothers = programs.found("/z", GroupName(network: 1, mark: 0x7000_0001, via: .plain))
        #expect(!contradicts && !anothers)
        for text in [
            "mat-1-6288-", "mat-x-62880001-plain", "mat-1-62880001-192.0.2.1+192.0.2.2", "mat-1-62880001-192.0.2.1+", "mat-1-62880001", "user.slice",
        ] {
            #expect(GroupName.parse(text) == nil, "\(text)")
        }
    }

    @Test("The mount of version 2 is found beside those of version 1, also where its name has a space")
    func mounts() {
        let hybrid = """
            30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
            32 30 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
            """
        #expect(GroupPlace.mount(hybrid) == "/sys/fs/cgroup/unified")
        #expect(GroupPlace.mount("31 30 0:27 / /a\\040b rw - cgroup2 cgroup2 rw\n") == "/a b")
        // Of a part of the groups only, and none at all.
        #expect(GroupPlace.mount("31 30 0:27 /x /a rw - cgroup2 cgroup2 rw\n") == nil && GroupPlace.mount("") == nil)
    }

    @Test("A program's group is made below the one that it is in, never within another of ours, and higher up where the kernel does not allow it")
    func places() {
        let ours = GroupName(network: 7, mark: mark, via: .plain).write()
        #expect(GroupPlace.path("4:memory:/x\n0::/user.slice/session-3.scope\n") == "/user.slice/session-3.scope")
        #expect(GroupPlace.path("0::/../../other\n") == nil && GroupPlace.path("4:memory:/x\n") == nil)
        #expect(GroupPlace.base(of: "/user.slice/\(ours)/own", network: 7) == "/user.slice")
        #expect(GroupPlace.base(of: "/user.slice/\(ours)", network: 8) == "/user.slice/\(ours)")
        #expect(GroupPlace.base(of: "/", network: 7) == "/")
        #expect(GroupPlace.candidates(from: "/a/b") == ["/a/b", "/a", "/"] && GroupPlace.candidates(from: "/") == ["/"])
        #expect(GroupPlace.child("/", "x") == "/x" && GroupPlace.child("/a", "x") == "/a/x" && GroupPlace.parent("/a/x") == "/a")
    }

    @Test("Users may steer processes that are theirs alone, root all")
    func owners() throws {
        func status(_ users: String) -> String { "Name:\tssh\nUid:\t\(users)\nGid:\t0\t0\t0\t0\n" }
        let own = try #require(ProcessOwner(status: status("1000\t1000\t1000\t1000")))
        #expect(own.maySteer(1000) && own.maySteer(0) && !own.maySteer(1001))
        let raised = try #require(ProcessOwner(status: status("1000\t0\t0\t0")))
        #expect(!raised.maySteer(1000) && raised.maySteer(0) && raised.effective == 0)
        #expect(ProcessOwner(status: "Name:\tx\n") == nil && ProcessOwner(status: status("1\t2\t3")) == nil)
    }
}

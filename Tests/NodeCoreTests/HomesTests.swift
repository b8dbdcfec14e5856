import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Several home addresses") struct HomesTests {
    @Test("Counters of several cores are added up, every one of them")
    func counters() {
        func numbered(_ factor: UInt64) -> NodeCounters {
            var next: UInt64 = 0
            return NodeCounters { _ in
                next += 1
                return next * factor
            }
        }
        func fields(_ counters: NodeCounters) -> [(label: String, value: UInt64)] {
            Mirror(reflecting: counters).children.map { ($0.label ?? "", $0.value as? UInt64 ?? .max) }
        }
        let sum = fields(numbered(1) + numbered(1000))
        #expect(sum.count >= 20)
        for (index, field) in sum.enumerated() { #expect(field.value == UInt64(index + 1) * 1001, "\(field.label)") }
        #expect(fields(NodeCounters()).allSatisfy { $0.value == 0 })
    }

    @Test("Bounds are the node's: what the network can make grow is divided among its cores, and nothing else")
    func bounds() throws {
        var whole = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        whole.paths.probesPerSecond = 100
        let part = whole.part(of: 4)
        func numbers(_ value: Any) -> [String: Int] {
            Dictionary(
                uniqueKeysWithValues: Mirror(reflecting: value).children.compactMap { child in (child.value as? Int).map { (child.label ?? "", $0) } }
            )
        }
        for (before, after) in [(numbers(whole), numbers(part)), (numbers(whole.paths), numbers(part.paths))] {
            for (name, number) in before where name != "coresCount" { #expect(after[name] == max(1, number / 4), "\(name)") }
        }
        #expect(numbers(whole).count >= 13 && numbers(whole.paths).count == 3)
        #expect(part.pollInterval == whole.pollInterval && part.lifetime == whole.lifetime && part.paths.interval == whole.paths.interval)
        #expect(numbers(whole.part(of: 1000)).values.allSatisfy { $0 >= 1 })

        let authority = TestAuthority(seed: 201)
        let identities = [first, second, home("198.51.100.3")].enumerated().map { authority.enrol($1, seed: UInt8(11 + $0)) }
        whole.homes = identities.map { HomeIdentity(hoa: $0.hoa, key: $0.key, certificate: $0.certificate) }
        (whole.clientSecret, whole.cookieSecret) = ([UInt8](repeating: 1, count: 16), [UInt8](repeating: 2, count: 16))
        let cores = try #require(NodeCores(whole) { SeededGenerator(seed: 1) }).cores
        #expect(cores.map(\.configuration.messagesPerSecond) == [666, 666, 666])
        #expect(cores[0].share(of: DoubtfulNames.countMax) == 341, "constants too")
    }

    private func locator(_ address: String, _ interface: String) -> OwnLocator { OwnLocator(MobileAddress(ip(address)), interface: interface) }
    private let first = home("198.51.100.1"), second = home("198.51.100.2"), sixth = home("2001:db8:1::1")

    private func holders(_ assignment: LocatorAssignment, _ hoa: HomeAddress) -> [String] {
        assignment.holders.filter { $0.value == hoa }.map(\.key.description).sorted()
    }

    @Test("On each link the i-th address goes to the i-th home address of its family")
    func inOrder() {
        var assignment = LocatorAssignment([.init(hoa: first), .init(hoa: second), .init(hoa: sixth)])
        assignment.assign([
            locator("192.0.2.1", "a"), locator("192.0.2.2", "a"), locator("192.0.2.65", "b"), locator("192.0.2.66", "b"),
            locator("2001:db8:2::1", "a"), locator("2001:db8:2::2", "a"),
        ])
        #expect(holders(assignment, first) == ["192.0.2.1", "192.0.2.65"])
        #expect(holders(assignment, second) == ["192.0.2.2", "192.0.2.66"])
        #expect(holders(assignment, sixth) == ["2001:db8:2::1", "2001:db8:2::2"])
    }

    @Test("Who has an address keeps it while it exists, whatever comes and in whatever order")
    func sticky() {
        var assignment = LocatorAssignment([.init(hoa: first), .init(hoa: second)])
        assignment.assign([locator("192.0.2.2", "a")])
        assignment.assign([locator("192.0.2.1", "a"), locator("192.0.2.2", "a")])
        #expect(holders(assignment, first) == ["192.0.2.2"] && holders(assignment, second) == ["192.0.2.1"])
        assignment.assign([locator("192.0.2.1", "a")])
        #expect(holders(assignment, first) == [] && holders(assignment, second) == ["192.0.2.1"])
        assignment.assign([locator("192.0.2.1", "a"), locator("192.0.2.9", "a")])
        #expect(holders(assignment, first) == ["192.0.2.9"])
    }

    @Test("An own address that went and comes back is the same home address's, for peers still send there; the latest 64 are remembered")
    func returning() {
        var assignment = LocatorAssignment([.init(hoa: first), .init(hoa: second)])
        assignment.assign([locator("192.0.2.1", "a"), locator("192.0.2.2", "a")])
        // The second's address is back before the first's.
        assignment.assign([])
        assignment.assign([locator("192.0.2.2", "a")])
        #expect(holders(assignment, second) == ["192.0.2.2"] && holders(assignment, first) == [])
        assignment.assign([locator("192.0.2.2", "a"), locator("192.0.2.1", "a")])
        #expect(holders(assignment, first) == ["192.0.2.1"])
        for number in 1...LocatorAssignment.formerMax {
            assignment.assign([locator("198.18.0.\(number)", "a")])
            assignment.assign([])
        }
        assignment.assign([locator("192.0.2.2", "a")])
        #expect(holders(assignment, first) == ["192.0.2.2"], "forgotten: it goes to who has the fewest, as a new one")
    }

    @Test("What `use` names goes there alone; a node at home is at home with its own address")
    func use() {
        var assignment = LocatorAssignment([.init(hoa: first), .init(hoa: second, use: [.interface("b"), .prefix(prefix("192.0.2.128/25"))])])
        assignment.assign([locator("192.0.2.1", "a"), locator("192.0.2.65", "b"), locator("192.0.2.129", "a")])
        #expect(holders(assignment, first) == ["192.0.2.1"] && holders(assignment, second) == ["192.0.2.129", "192.0.2.65"])
        var atHome = LocatorAssignment([.init(hoa: first), .init(hoa: second)])
        atHome.assign([locator("198.51.100.2", "a"), locator("192.0.2.1", "a")])
        #expect(holders(atHome, first) == ["192.0.2.1"] && holders(atHome, second) == ["198.51.100.2"])
    }

    @Test("A mobile network has its own prefixes, no other network's, and what no home address names")
    func networks() {
        let (one, two) = (prefix("198.18.1.16/28"), prefix("198.18.2.16/28"))
        var assignment = LocatorAssignment([
            .init(hoa: first, use: [.prefix(one)], isNetwork: true), .init(hoa: second, use: [.prefix(two)], isNetwork: true),
        ])
        var routed = ["198.18.1.16", "198.18.2.16", "198.18.3.16"].map { locator($0, "a") }
        for index in routed.indices { routed[index].isMobilePrefix = true }
        assignment.assign(routed + [locator("192.0.2.1", "b"), locator("192.0.2.2", "b")])
        #expect(holders(assignment, first) == ["192.0.2.1", "198.18.1.16"] && holders(assignment, second) == ["192.0.2.2", "198.18.2.16"])
    }

    @Test("Each home address registers its own places; what arrives goes to whom it is for")
    func cores() throws {
        let authority = TestAuthority(seed: 201)
        let identities = [(first, UInt8(11)), (second, 12)].map { authority.enrol($0.0, seed: $0.1) }
        let configuration = NodeCoreConfiguration(
            homes: identities.map { HomeIdentity(hoa: $0.hoa, key: $0.key, certificate: $0.certificate) },
            clientSecret: [UInt8](repeating: 1, count: 16),
            cookieSecret: [UInt8](repeating: 2, count: 16))
        var node = try #require(NodeCores(configuration, random: { SeededGenerator(seed: 1) }))
        let now = VirtualClock().now
        var steps = node.linksChanged([locator("192.0.2.1", "a")], infrastructure: [], now: now)
        #expect(node.status(now: now).registrations.map { $0.problem != nil } == [false, true])
        #expect(steps.contains { if case .log(.warning, let text) = $0.action { text.contains("\(second)") } else { false } })
        steps += node.linksChanged([locator("192.0.2.1", "a"), locator("192.0.2.2", "a")], infrastructure: [], now: now)
        #expect(node.status(now: now).registrations.allSatisfy { $0.problem == nil })
        let owned = steps.flatMap { step -> [IMTChange] in if case .changeIMT(let changes) = step.action { changes } else { [] } }
        #expect(owned == [.setOwn(MobileAddress(ip("192.0.2.1")), first), .setOwn(MobileAddress(ip("192.0.2.2")), second)])
        // A locator check is answered for the HoA that is there, and not for the other.
        for (place, hoa, code) in [("192.0.2.1", first, ResponseCode.ok), ("192.0.2.2", second, .ok), ("192.0.2.1", second, .notAuthoritative)] {
            let query = SignalMessage(sequence: 5, .maQuery(MAQuery(cookie: Cookie(client: 8), hoa: hoa)))
            let answers = node.received(query.octets, from: Endpoint(ip("203.0.113.9"), port: SignalPort.node), to: ip(place), now: now).compactMap {
                step -> ResponseCode? in
                guard case .sendIfRoom(let octets, _, _) = step.action, case .message(let message, _)? = SignalDatagram.decode(octets).first else {
                    return nil
                }
                return message.code
            }
            #expect(answers == [code])
        }
    }

    @Test("A visited home shares the own home's addresses and takes none of them; requests go to whom they name, and its place to the next one")
    func visited() throws {
        let own = TestAuthority(seed: 201).enrol(first, seed: 11)
        let now = VirtualClock().now
        var configuration = NodeCoreConfiguration(
            homes: [HomeIdentity(hoa: own.hoa, key: own.key, certificate: own.certificate)], clientSecret: [UInt8](repeating: 1, count: 16),
            cookieSecret: [UInt8](repeating: 2, count: 16))
        configuration.visits = true
        var node = try #require(NodeCores(configuration, random: { SeededGenerator(seed: 1) }))
        func identity(_ hoa: HomeAddress) -> HomeIdentity {
            let given = TestAuthority(seed: 203).enrol(hoa, seed: 11)
            return HomeIdentity(hoa: hoa, key: given.key, certificate: given.certificate)
        }
        func codes(_ hoa: HomeAddress) -> [ResponseCode] {
            let query = SignalMessage(sequence: 5, .maQuery(MAQuery(cookie: Cookie(client: 8), hoa: hoa)))
            let source = Endpoint(ip("203.0.113.9"), port: SignalPort.node)
            return node.received(query.octets, from: source, to: ip("192.0.2.1"), now: now).compactMap { step in
                guard case .sendIfRoom(let octets, _, _) = step.action, case .message(let message, _)? = SignalDatagram.decode(octets).first else {
                    return nil
                }
                return message.code
            }
        }
        var steps = node.linksChanged([locator("192.0.2.1", "a")], infrastructure: [], now: now)
        let visits = [home("203.0.113.129"), home("203.0.113.130")]
        steps += node.enter(identity(visits[0]), now: now)
        // No address is the visited home's in the kernel's tables: its packets travel in datagrams.
        let changes = steps.flatMap { step -> [IMTChange] in if case .changeIMT(let changes) = step.action { changes } else { [] } }
        #expect(changes == [.setOwn(MobileAddress(ip("192.0.2.1")), first)])
        #expect(node.status(now: now).locators.count == 1 && node.status(now: now).registrations.map(\.hoa) == [first, visits[0]])
        #expect(codes(first) == [.ok] && codes(visits[0]) == [.ok] && codes(visits[1]) == [.notAuthoritative])
        #expect(node.ownLocators.map(\.moa) == [MobileAddress(ip("192.0.2.1"))])
        // Nobody gives the node what it has already.
        #expect(node.surroundings(.ipv4) { _ in true }.isTaken(visits[0].address))

        #expect(node.leave(first, now: now).steps.isEmpty, "it is at home there")
        _ = node.leave(visits[0], now: now)
        #expect(codes(visits[0]) == [.notAuthoritative] && codes(first) == [.ok])
        _ = node.enter(identity(visits[1]), now: now)
        #expect(codes(visits[1]) == [.ok] && node.cores.count == 2)
        // With the link gone both have lost it.
        _ = node.linksChanged([], infrastructure: [], now: now)
        #expect(codes(first) == [.notAuthoritative] && codes(visits[1]) == [.notAuthoritative])
    }
}

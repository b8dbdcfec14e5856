import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// A node of both families as one value, without a machine.
@Suite("A node as one value") struct NodeTests {
    private static let home4 = home("198.51.100.1"), home6 = home("2001:db8:100::1")
    private var node: Node
    /// Likewise, one that takes visited homes.
    private var visiting: Node
    private let now = VirtualClock().now

    init() throws {
        let authority = TestAuthority(seed: 201)
        let homes = [Self.home4, Self.home6].enumerated().map { index, hoa in
            let identity = authority.enrol(hoa, seed: UInt8(11 + index))
            return HomeIdentity(hoa: hoa, key: identity.key, certificate: identity.certificate)
        }
        let configuration = NodeCoreConfiguration(
            homes: homes, clientSecret: [UInt8](repeating: 1, count: 16), cookieSecret: [UInt8](repeating: 2, count: 16))
        let cores = try #require(NodeCores(configuration) { SeededGenerator(seed: 1) })
        let rules = AddressRules(homes: homes.map { AddressRules.Home(hoa: $0.hoa, prefix: $0.certificate.prefix) })
        node = Node(cores, rules, names: NameServers())
        visiting = Node(cores, rules, names: NameServers(), visiting: SeededGenerator(seed: 2))
    }

    private func links(_ addresses: [String]) -> LinkSnapshot {
        LinkSnapshot(
            addresses: addresses.enumerated().map { index, address in
                LocalAddress(
                    address: ip(address), interface: "if\(index)", interfaceIndex: UInt32(index + 1), prefixLength: 24, hasDefaultRoute: true)
            }, gateways: [ip("192.0.2.1")])
    }

    private mutating func move(to addresses: [String]) -> [ShellAction] {
        #expect(node.linksChanged(links(addresses), now: now) == [.readNames])
        return node.namesRead(NameServers(), areOthers: false, now: now)
    }

    private mutating func hold(_ number: Int, to destination: HomeAddress) -> [ShellAction] {
        node.heldOutbound(UserPacket(number).held(from: Self.home4.address, to: destination.address), now: now)
    }

    @Test("A link event changes the kernel in one transaction, before anything is sent, and lets packets out once, at the end")
    mutating func oneTransaction() throws {
        _ = move(to: ["192.0.2.10", "2001:db8:a::10"])
        _ = hold(1, to: home("203.0.113.1"))
        let actions = move(to: ["192.0.2.20", "2001:db8:a::20"])
        guard case .changeIMT(let changes, let addresses)? = actions.first else {
            Issue.record("it begins with \(actions.first.map { "\($0)" } ?? "nothing")")
            return
        }
        #expect(addresses?.map(\.address) == [ip("192.0.2.20"), ip("2001:db8:a::20")])
        for (moa, hoa) in [("192.0.2.20", Self.home4), ("2001:db8:a::20", Self.home6)] {
            #expect(changes.contains(.setOwn(MobileAddress(ip(moa)), hoa)))
        }
        for gone in ["192.0.2.10", "2001:db8:a::10"] { #expect(changes.contains(.removeOwn(MobileAddress(ip(gone))))) }
        #expect(actions.dropFirst().allSatisfy { if case .changeIMT = $0 { false } else { true } })
        let releases = actions.indices.filter { if case .release = actions[$0] { true } else { false } }
        #expect(releases == [actions.count - 1])
    }

    @Test("Links that changed without any news for the node are written, and names are not read")
    mutating func noNews() {
        let first = move(to: ["192.0.2.10"])
        #expect(!first.isEmpty)
        var same = links(["192.0.2.10"])
        same.gateways = [ip("192.0.2.2")]
        let actions = node.linksChanged(same, now: now)
        guard case .changeIMT(_, let addresses)? = actions.first else {
            Issue.record("\(actions)")
            return
        }
        #expect(addresses?.map(\.address) == [ip("192.0.2.10")] && !actions.contains(.readNames))
    }

    @Test("DNS servers that are others are told to the kernel with what the links brought, in the one transaction")
    mutating func servers() {
        #expect(node.linksChanged(links(["192.0.2.10"]), now: now) == [.readNames])
        let names = NameServers(origin: "here", inUse: [.init(ip("192.0.2.53"))], others: [ip("192.0.2.54"), ip("192.0.2.53")])
        let actions = node.namesRead(names, areOthers: true, now: now)
        let commits = actions.compactMap { if case .changeIMT(let changes, _) = $0 { changes } else { nil } }
        #expect(commits.count == 1)
        let expected: [IMTChange] = [
            .setOwn(MobileAddress(ip("192.0.2.10")), Self.home4), .setAlwaysPlain([IPPrefix(ip("192.0.2.53")), IPPrefix(ip("192.0.2.54"))]),
        ]
        #expect(expected.allSatisfy { commits.first?.contains($0) == true }, "\(commits)")
        #expect(actions.contains(.log(.notice, "DNS servers of here: 192.0.2.53")))
        #expect(node.namesRead(names, areOthers: false, now: now).isEmpty, "nobody waits for them")
        let alone = node.namesRead(NameServers(origin: "here", inUse: [.init(ip("192.0.2.55"))]), areOthers: true, now: now)
        #expect(alone.first == .changeIMT([.setAlwaysPlain([IPPrefix(ip("192.0.2.55"))])], linkAddresses: nil), "\(alone.prefix(2))")
    }

    @Test("A home that an earlier run visited is asked for again, and its packets are nobody else's until then; or it is let go of")
    mutating func visited() throws {
        let hoa = home("203.0.113.129")
        var state = AdoptedState(adopted: true)
        state.visited = [hoa]
        #expect(node.adopted(state, now: now).contains(.leaveHome(hoa)))
        #expect(visiting.adopted(state, now: now).allSatisfy { $0 != .leaveHome(hoa) })
        #expect(visiting.linksChanged(links(["192.0.2.10"]), now: now) == [.readNames])
        _ = visiting.namesRead(NameServers(), areOthers: false, now: now)
        #expect(visiting.nextDeadline.map { $0 <= now.monotonic } ?? false)
        #expect(visiting.timerFired(now: now).contains(.lookUp(hoa, core: Node.visitsCore)))
        let destination = home("203.0.113.1")
        #expect(visiting.heldOutbound(UserPacket(1).held(from: hoa.address, to: destination.address), now: now).isEmpty)
        let source = Endpoint(destination.address, port: SignalPort.node)
        let arrived = UserPacket(2).held(from: destination.address, to: hoa.address)
        #expect(visiting.heldEncapsulated(arrived, from: source, to: ip("192.0.2.10"), now: now).isEmpty)
        // Its own homes' are looked into as ever.
        let own = visiting.heldOutbound(UserPacket(3).held(from: Self.home4.address, to: destination.address), now: now)
        #expect(own.contains(.lookUp(destination, core: 0)))
    }

    @Test("Packets to an unknown destination stay in the node until the kernel takes them")
    mutating func held() throws {
        _ = move(to: ["192.0.2.10"])
        let destination = home("203.0.113.1")
        #expect(hold(1, to: destination).contains(.lookUp(destination, core: 0)))
        #expect(!hold(2, to: destination).contains { if case .release = $0 { true } else { false } })
        let actions = node.lookedUp(destination, .absent(lifetime: .seconds(60)), core: 0, now: now)
        let plain = actions.firstIndex {
            if case .changeIMT(let changes, nil) = $0 { changes.contains(.setPlain(destination.address, lifetime: .seconds(60))) } else { false }
        }
        let release = try #require(actions.firstIndex { if case .release = $0 { true } else { false } })
        #expect(plain.map { $0 < release } ?? false)
        guard case .release(let offer, let own) = actions[release] else { return }
        #expect(own == Self.home4 && offer.packets.map { UserPacket($0).number } == [1, 2])
        #expect(node.exited(offer.destination, .sent(1), now: now).count == 1, "told")
        var later = now
        later.monotonic = now.monotonic + .milliseconds(50)
        #expect(node.nextDeadline.map { $0 <= later.monotonic } ?? false)
        let again = node.timerFired(now: later).compactMap {
            if case .release(let offer, _) = $0 { offer.packets.map { UserPacket($0).number } } else { nil }
        }
        #expect(again == [[2]])
    }
}

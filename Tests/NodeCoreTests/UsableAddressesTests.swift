import MATTesting
import Testing

@testable import MATSignal
@testable import NodeCore

@Suite("Own addresses and what works of them") struct UsableAddressesTests {
    private let own: HomeAddress = home("198.51.100.1")
    private let first: MobileAddress = moa("192.0.2.10")
    private let second: MobileAddress = moa("192.0.3.10")
    private let server = PathMonitor.Target.server(ip("192.88.1.1"))

    private func configuration(_ adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) -> NodeCoreConfiguration {
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        adjust(&configuration)
        return configuration
    }

    private func locator(_ moa: MobileAddress, _ interface: String, isDeprecated: Bool = false) -> OwnLocator {
        OwnLocator(moa, interface: interface, isDeprecated: isDeprecated)
    }

    /// A monitor of one target over both addresses, which answers over those given.
    private func monitor(answering: Set<MobileAddress>, until end: Int64 = 3000) -> PathMonitor {
        var monitor = PathMonitor(PathConfiguration())
        for own in [first, second] { monitor.watch(PathMonitor.Path(own, server), until: .distantFuture, now: .zero) }
        var sequence: UInt32 = 0
        while let next = monitor.next, next <= time(end) {
            for case .probe(let path, let number) in monitor.due(
                now: next,
                sequence: {
                    sequence += 1; return sequence
                }) where answering.contains(path.own)
            {
                monitor.answered(number, now: next + .milliseconds(10))
            }
        }
        return monitor
    }

    // MARK: Order and places

    @Test(
        "The chosen interface goes before the configured order, what is about to be taken away behind both, and the system's order decides the rest")
    func order() {
        var addresses = UsableAddresses(configuration { $0.preferredInterfaces = ["b", "c"] })
        let uplinks = Uplinks(PathConfiguration())
        let locators =
            ["a", "b", "c", "d"].enumerated().map { locator(moa("192.0.2.\($0 + 1)"), $1) } + [locator(moa("192.0.2.9"), "b", isDeprecated: true)]
        _ = addresses.arrange(locators, uplinks, now: .zero)
        #expect(addresses.ordered.map(\.interface) == ["b", "c", "a", "d", "b"])
        addresses.choose(interface: "d")
        _ = addresses.arrange(addresses.system, uplinks, now: .zero)
        #expect(addresses.ordered.map(\.interface) == ["d", "b", "c", "a", "b"])
    }

    @Test("A record has room for eight, and no link's many addresses take another's place")
    func room() {
        var addresses = UsableAddresses(configuration())
        let many = (1...12).map { locator(moa("192.0.2.\($0)"), "a") }
        _ = addresses.arrange(many + [locator(second, "b")], Uplinks(PathConfiguration()), now: .zero)
        #expect(addresses.places(of: own).count == MappingRecord.locatorsMax && addresses.places(of: own).contains(second))
    }

    @Test("At home the home address is enough")
    func atHome() {
        var addresses = UsableAddresses(configuration())
        _ = addresses.arrange([locator(first, "a"), locator(MobileAddress(own.address), "b")], Uplinks(PathConfiguration()), now: .zero)
        #expect(addresses.places(of: own) == [MobileAddress(own.address)])
    }

    // MARK: Moves

    @Test("The first address after a start is no handover; another is, with overlap as long as the old one works")
    func moves() throws {
        var addresses = UsableAddresses(configuration())
        let uplinks = Uplinks(PathConfiguration())
        func change(_ locators: [OwnLocator]) throws -> UsableAddresses.Move {
            guard case .changed(let change) = addresses.arrange(locators, uplinks, now: .zero) else { throw Unexpected() }
            // Nothing has an address of its family, so an IPv6 HoA goes the same way.
            #expect(change.move(.ipv6) == change.move(.ipv4))
            return try #require(change.move(.ipv4))
        }
        let start = try change([locator(first, "a")])
        #expect(start.first == first && !start.isHandover(wasRegistered: false) && !start.hasOverlap)
        let over = try change([locator(second, "b"), locator(first, "a")])
        #expect(over.isHandover(wasRegistered: true) && over.hasOverlap && over.gone.isEmpty)
        let cut = try change([locator(first, "a")])
        #expect(cut.isHandover(wasRegistered: true) && !cut.hasOverlap && cut.gone == [second])
        #expect(addresses.arrange([locator(first, "a")], uplinks, now: .zero) == .same)
        let lost = try change([])
        #expect(lost.first == nil && lost.gone == [first])
    }

    private struct Unexpected: Error {}

    @Test("An interface that a person chose carries the home addresses of the family that it lacks, too, when it has lacked it for a while")
    func chosenLacks() throws {
        var addresses = UsableAddresses(configuration())
        let uplinks = Uplinks(PathConfiguration())
        let own = home("198.51.100.1")
        let (there, elsewhere) = (moa("2001:db8:2::10"), moa("2001:db8:1::10"))
        let locators = [locator(first, "a"), locator(elsewhere, "a"), locator(there, "b")]
        _ = addresses.arrange(locators, uplinks, now: time(0))
        #expect(addresses.places(of: own) == [first] && addresses.due == nil)
        addresses.choose(interface: "b")
        _ = addresses.arrange(locators, uplinks, now: time(1000))
        #expect(addresses.places(of: own) == [first] && addresses.due == time(3000))
        // What changes meanwhile is not the beginning.
        _ = addresses.arrange(locators.reversed(), uplinks, now: time(2000))
        #expect(addresses.due == time(3000))
        guard case .changed(let change) = addresses.arrange(addresses.system, uplinks, now: time(3000)) else { throw Unexpected() }
        let move = try #require(change.move(.ipv4))
        #expect(move.from == [first] && move.to == [there, first] && move.hasOverlap && !move.keepsSource)
        #expect(change.move(.ipv6) == nil && change.reachedElsewhere == [.ipv4] && !change.hasOtherFirst && addresses.due == time(4000))
        // Those that can follow do so by the new record.
        #expect(addresses.places(of: own) == [there, first] && addresses.left(by: own).isEmpty)
        #expect(addresses.isBeingLeft(first.address, by: own) && !addresses.isBeingLeft(there.address, by: own))
        #expect(addresses.beside(own).map(\.moa) == [there, first])
        // The others leave the old network then; what they still send there is accepted.
        guard case .changed(let later) = addresses.arrange(addresses.system, uplinks, now: time(4000)) else { throw Unexpected() }
        let end = try #require(later.move(.ipv4))
        #expect(end.from == [there, first] && end.to == [there] && !end.isHandover(wasRegistered: true) && addresses.due == nil)
        #expect(addresses.places(of: own) == [there] && addresses.beside(own).map(\.moa) == [there] && addresses.left(by: own) == [first])
        #expect(addresses.isBeingLeft(first.address, by: own))
        let other = home("2001:db8:10::1")
        #expect(addresses.places(of: other) == [there, elsewhere] && addresses.left(by: other).isEmpty)
        #expect(!addresses.isBeingLeft(elsewhere.address, by: other))
        #expect(addresses.arrange(addresses.system, uplinks, now: time(5000)) == .same)
    }

    @Test("That ends with the choice, with an address of the family there, and where the interface does not work", arguments: [0, 1, 2])
    func chosenLacksNoMore(_ end: Int) throws {
        var addresses = UsableAddresses(configuration())
        var uplinks = Uplinks(PathConfiguration())
        let own = home("2001:db8:10::1")
        let home = moa("2001:db8:1::10")
        var locators = [locator(home, "a"), locator(first, "a"), locator(second, "b")]
        addresses.choose(interface: "b")
        for second in [0, 2000, 3000] { _ = addresses.arrange(locators, uplinks, now: time(Int64(second))) }
        #expect(addresses.places(of: own) == [second])
        switch end {
        case 0: addresses.choose(interface: "a")
        case 1: locators.append(locator(moa("2001:db8:2::10"), "b"))
        default:
            let servers = [PathMonitor.Path(second, server)]
            #expect(uplinks.judge(second, servers: servers, others: [first], monitor(answering: [first]), now: time(3000)) != nil)
        }
        _ = addresses.arrange(locators, uplinks, now: time(4000))
        #expect(addresses.places(of: own) == (end == 1 ? [moa("2001:db8:2::10"), home] : [home]) && addresses.left(by: own).isEmpty)
    }

    @Test("Where no link has the family, the old network's address stays beside the chosen one's, as in any move with overlap")
    func chosenLacksWhatNoneHas() {
        var addresses = UsableAddresses(configuration())
        let own = home("2001:db8:10::1")
        addresses.choose(interface: "b")
        for at in [0, 2000, 3000] as [Int64] {
            _ = addresses.arrange([locator(first, "a"), locator(second, "b")], Uplinks(PathConfiguration()), now: time(at))
            #expect(addresses.places(of: own) == [second, first] && addresses.due == nil)
            #expect(!addresses.isBeingLeft(first.address, by: own) && addresses.left(by: own).isEmpty)
        }
    }

    @Test("A mobile network follows to an interface that has neither a prefix for it nor its family, as a host does")
    func chosenForNetwork() throws {
        let key = makeKey(31)
        let network = home("203.0.113.16")
        let certificate = try #require(
            Certificate(issuing: network, prefixLength: 28, nodeKey: key.publicKey, notBefore: 0, notAfter: 1, with: makeKey(32)))
        var addresses = UsableAddresses(configuration { $0.homes = [HomeIdentity(hoa: network, key: key, certificate: certificate)] })
        let routed = OwnLocator(first, interface: "a", isMobilePrefix: true)
        let there = locator(moa("2001:db8:2::10"), "b")
        func look(_ locators: [OwnLocator], at seconds: Int64...) -> [MobileAddress] {
            for second in seconds { _ = addresses.arrange(locators, Uplinks(PathConfiguration()), now: time(second)) }
            return addresses.places(of: network)
        }
        #expect(look([routed, there], at: 0) == [first] && addresses.isMobilePrefix(first))
        // Only of a routed prefix the neighbours are its own.
        #expect(addresses.isOwn(IPAddress(high: first.address.high, low: first.address.low ^ 1)) && !addresses.isMobilePrefix(there.moa))
        #expect(look([there], at: 1000) == [there.moa])
        _ = look([routed, there], at: 2000)
        addresses.choose(interface: "b")
        #expect(look([routed, there], at: 3000, 5000) == [there.moa, first])
        #expect(look([routed, there], at: 6000) == [there.moa] && addresses.left(by: network) == [first])
    }

    @Test("What dies without being first is left all the same, once")
    func left() {
        var addresses = UsableAddresses(configuration())
        var uplinks = Uplinks(PathConfiguration())
        let locators = [locator(first, "a"), locator(second, "b")]
        _ = addresses.arrange(locators, uplinks, now: .zero)
        #expect(
            uplinks.judge(second, servers: [PathMonitor.Path(second, server)], others: [first], monitor(answering: [first]), now: time(3000)) != nil)
        #expect(addresses.arrange(locators, uplinks, now: .zero) == .left([second]))
        #expect(addresses.arrange(locators, uplinks, now: .zero) == .same)
    }

    @Test("Private addresses are in reach where we have such ourselves, or where they are routed")
    func reach() {
        var addresses = UsableAddresses(configuration { $0.routedPrefixes = [prefix("10.0.0.0/8")] })
        #expect(addresses.isInReach(moa("198.18.0.1")) && addresses.isInReach(moa("10.1.1.1")) && !addresses.isInReach(moa("192.168.1.1")))
        guard case .changed(let change) = addresses.arrange([locator(moa("192.168.7.7"), "a")], Uplinks(PathConfiguration()), now: .zero) else {
            Issue.record("nothing changed")
            return
        }
        #expect(change.hasOtherScopes && addresses.isInReach(moa("192.168.1.1")))
    }

    @Test("The kernel is told of what it does not know, and of what is no longer so")
    func entered() {
        var entered = EnteredAddresses()
        entered.adopt([first: own])
        let other = home("198.51.100.2")
        #expect(entered.replace(by: [first: other, second: own]) == [.setOwn(first, other), .setOwn(second, own)])
        #expect(entered.replace(by: [second: own]) == [.removeOwn(first)])
        #expect(entered.covers(second.address) { _ in 128 } && !entered.covers(first.address) { _ in 128 })
        #expect(entered.covers(ip("192.0.3.77")) { _ in 120 }, "behind a network's locator")
    }

    // MARK: Uplinks

    @Test("An address is dead if what is silent over it answers over another, and not if it is silent everywhere")
    func dead() {
        for (answering, isDead) in [(Set([second]), true), ([], false), ([first], false)] {
            var uplinks = Uplinks(PathConfiguration())
            let death = uplinks.judge(
                first, servers: [PathMonitor.Path(first, server)], others: [second], monitor(answering: answering), now: time(3000))
            #expect(death?.better == (isDead ? second : nil) && uplinks.isDead(first) == isDead)
            #expect(death.map(\.recovery) == (isDead ? [PathMonitor.Path(first, server)] : nil))
        }
    }

    @Test("What answers again is trusted after it has done so for the hold-down")
    func returns() {
        var uplinks = Uplinks(PathConfiguration())
        _ = uplinks.judge(first, servers: [PathMonitor.Path(first, server)], others: [second], monitor(answering: [second]), now: time(3000))
        #expect(uplinks.answered(second, now: time(4000)) == nil, "it was never dead")
        #expect(uplinks.answered(first, now: time(4000))?.pause == .seconds(10) && uplinks.nextTrial == time(14_000))
        #expect(uplinks.trials(now: time(13_999)).isEmpty && uplinks.trials(now: time(14_000)) == [first])
        #expect(uplinks.trial(first, monitor(answering: []), now: time(14_000)) == .goesOn, "nothing answers")
        let steady = monitor(answering: [first, second], until: 30_000)
        #expect(uplinks.trial(first, steady, now: time(30_000)) == .passed(wasDead: true) && uplinks.order(first) == uplinks.order(second))
    }

    @Test("A refused address is used last and tried ever later; several refused ones after one another")
    func refused() {
        var uplinks = Uplinks(PathConfiguration())
        let refusals = [first, second].enumerated().map { uplinks.refuse($1, "no", turn: $0, now: time(0)) }
        #expect(refusals.map(\.wasRefused) == [false, false] && refusals.map(\.pause) == [.seconds(10), .seconds(20)])
        #expect(uplinks.order(moa("192.0.4.1")) < uplinks.order(first))
        #expect(uplinks.trial(first, monitor(answering: []), now: time(10_000)) == .refused)
        uplinks.postponeTrial(of: first, now: time(10_000))
        #expect(uplinks.trials(now: time(20_000)) == [second] && uplinks.trials(now: time(30_000)) == [first, second])
        #expect(uplinks.accept(first) && !uplinks.accept(first) && !uplinks.isRefused(first))
    }

    @Test("A link that is lost for the third time within a minute must stay before it is preferred")
    func flaps() {
        var uplinks = Uplinks(PathConfiguration())
        var pauses: [Duration?] = []
        for round in 0..<5 {
            let now = time(Int64(round) * 4000)
            pauses.append(uplinks.linksChanged(from: [], to: [locator(first, "a")], now: now).flapping.first?.pause)
            #expect(uplinks.linksChanged(from: [locator(first, "a")], to: [], now: now + .seconds(2)).gone == [first])
        }
        #expect(pauses == [nil, nil, nil, .seconds(10), .seconds(20)])
    }

    // MARK: Detours and preferences

    private let peer: HomeAddress = home("203.0.113.1")
    private func pair(_ own: MobileAddress) -> MobilePair { MobilePair(own: own, peer: moa("198.18.0.10")) }

    /// The peer is asked over both addresses, and answers over those given.
    private func peerMonitor(answering: Set<MobileAddress>, until end: Int64) -> PathMonitor {
        var monitor = PathMonitor(PathConfiguration())
        for own in [first, second] { monitor.watch(PathMonitor.Path(own, .peer(peer, moa("198.18.0.10"))), until: .distantFuture, now: .zero) }
        var sequence: UInt32 = 0
        while let next = monitor.next, next <= time(end) {
            for case .probe(let path, let number) in monitor.due(
                now: next,
                sequence: {
                    sequence += 1; return sequence
                }) where answering.contains(path.own)
            {
                monitor.answered(number, now: next)
            }
        }
        return monitor
    }

    @Test("A silent pair is left for one that answers, and gone back to when it has answered for the hold-down")
    func detour() {
        var detours = Detours(PathConfiguration())
        let pairs = [pair(first), pair(second)]
        #expect(
            detours.choose(for: peer, among: pairs, instead: pairs[0], peerMonitor(answering: [first, second], until: 3000), now: time(3000)) == nil)
        let silent = detours.choose(for: peer, among: pairs, instead: pairs[0], peerMonitor(answering: [second], until: 3000), now: time(3000))
        #expect(silent == Detours.Choice(pair: pairs[1], isFailure: true))
        detours.take(own: second, moa: nil, by: peer, isFailure: true, now: time(3000))
        #expect(detours.isTaken(by: peer))
        #expect(
            detours.choose(for: peer, among: pairs, instead: pairs[1], peerMonitor(answering: [first, second], until: 9000), now: time(9000)) == nil,
            "not yet")
        let back = detours.choose(
            for: peer, among: pairs, instead: pairs[1], peerMonitor(answering: [first, second], until: 12_000), now: time(12_000))
        #expect(back == Detours.Choice(pair: pairs[0], isFailure: false))
        detours.prune(peer, own: { $0 != second }, moa: { _ in true })
        #expect(!detours.isTaken(by: peer) && detours[peer] != nil, "the memory of the failure stays")
    }

    @Test("A refused record speaks against its first address if that is translated or alone, else, the second time, against new ones")
    func culprits() {
        let third = moa("192.0.4.10")
        func culprits(_ places: [MobileAddress], observed: Endpoint? = nil, accepted: Set<MobileAddress> = [], again: Bool) -> [MobileAddress]? {
            let reply = IMSUpdateReply(code: .authenticationFailed, cookie: Cookie(client: 1), observed: observed)
            return Uplinks.culprits(among: places, isNetwork: false, reply, accepted: accepted, hasFailedBefore: again)?.addresses
        }
        let all = [first, second, third]
        #expect(culprits(all, observed: Endpoint(ip("203.0.113.99"), port: 4000), again: false) == [first])
        #expect(culprits(all, observed: Endpoint(first.address, port: SignalPort.node), again: false) == nil)
        #expect(culprits([first], again: false) == [first] && culprits([], again: true) == nil)
        #expect(culprits(all, again: false) == nil, "a proof may have been too old")
        #expect(culprits(all, accepted: [first, second], again: true) == [third])
        #expect(culprits(all, accepted: Set(all), again: true) == [second, third])
    }

    @Test("An address stands in for one from which no registration is answered only if an IMS answers over it now, and it was not refused")
    func standIn() {
        var uplinks = Uplinks(PathConfiguration())
        let monitor = monitor(answering: [second])
        #expect(uplinks.standIn(among: [first, second], monitor, now: time(3000)) == second)
        #expect(uplinks.standIn(among: [first], monitor, now: time(3000)) == nil)
        #expect(uplinks.standIn(among: [second], monitor, now: time(60_000)) == nil, "that was long ago")
        _ = uplinks.refuse(second, "the IMS refuses it", turn: 0, now: time(3000))
        #expect(uplinks.standIn(among: [first, second], monitor, now: time(3000)) == nil)
    }

    @Test("Where there is no room a memory goes before a detour that is in use")
    func detoursMax() {
        var configuration = PathConfiguration()
        configuration.detoursMax = 2
        var detours = Detours(configuration)
        let others = [home("203.0.113.2"), home("203.0.113.3")]
        detours.take(own: second, moa: nil, by: others[0], isFailure: true, now: time(0))
        detours.take(own: nil, moa: nil, by: others[1], isFailure: false, now: time(1000))
        #expect(detours.makeRoom(for: others[0]) == nil)
        #expect(detours.makeRoom(for: peer) == others[1])
        #expect(detours.makeRoom(for: peer) == nil)
    }

    @Test("A person's choice for a peer goes before the configuration's longest prefix, and that before the node's order")
    func preferences() {
        let configuration = configuration {
            $0.peerPreferences = [
                PeerPreference(prefix("203.0.113.0/24"), interfaces: ["b"]), PeerPreference(prefix("203.0.113.1/32"), interfaces: ["a"]),
            ]
        }
        var preferences = Preferences(configuration)
        #expect(preferences.interfaces(for: peer) == ["a"] && preferences.interfaces(for: home("203.0.113.9")) == ["b"])
        #expect(preferences.choose("b", for: peer) && preferences.interfaces(for: peer) == ["b"])
        var addresses = UsableAddresses(configuration)
        let uplinks = Uplinks(PathConfiguration())
        _ = addresses.arrange([locator(first, "a"), locator(second, "b")], uplinks, now: .zero)
        let record = MappingRecord(hoa: own, sequence: 1, lifetime: 600, issued: 1, locators: [Locator(first), Locator(second)])
        #expect(preferences.addresses(for: peer, among: [first, second], listedIn: record, addresses, uplinks) == [second, first])
        #expect(
            preferences.addresses(for: peer, among: [first, second], listedIn: nil, addresses, uplinks) == [first],
            "a peer accepts what the record lists")
        #expect(!preferences.choose(nil, for: peer) && preferences.interfaces(for: peer) == ["a"])
    }
}

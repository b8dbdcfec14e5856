import IMTPlan
import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Plain hosts by a gateway") struct GatewayDestinationsTests {
    private let own = home("192.0.2.10")
    private let plain = home("203.0.113.200")
    private let relay = Endpoint(ip("203.0.113.134"), port: SignalPort.relay)
    private var pair: HomePair { HomePair(own: own, peer: plain) }

    private func way(_ place: String = "198.51.100.1") -> GatewayDestinations.Way {
        GatewayDestinations.Way(own: Endpoint(ip(place), port: SignalPort.node), relay: relay, isTranslated: false)
    }

    private func granted(_ place: String? = "198.51.100.1") -> GatewayDestinations.Offer { .granted(relay: relay, place.map { way($0) }) }

    @Test("With a binding its packets go at once; after a move they wait until the gateway has granted the new one, and go on")
    func moves() {
        var all = GatewayDestinations(countMax: 10)
        #expect(
            all.enter(plain, own: own, .gateway, lifetime: .seconds(300), granted(), time(0)) == [.set(pair, way()), .release(plain)])
        #expect(all.offered({ _, _, former in former == relay ? granted(nil) : .none }, time(100)) == [.hold(pair)])
        #expect(all.contains(plain) && all.way(to: plain) == nil)
        #expect(all.offered({ _, _, _ in granted("10.1.1.1") }, time(220)) == [.set(pair, way("10.1.1.1")), .release(plain)])
        // With overlap it goes from the one to the other.
        #expect(all.offered({ _, _, _ in granted("10.2.2.2") }, time(300)) == [.set(pair, way("10.2.2.2"))])
        #expect(all.offered({ _, _, _ in granted("10.2.2.2") }, time(400)) == [])
    }

    @Test("First packets wait 2 s for a binding that is being made, and go plainly then, or at once when it is refused")
    func expected() {
        var all = GatewayDestinations(countMax: 10)
        #expect(all.enter(plain, own: own, .gateway, lifetime: .seconds(300), .expected, time(0)) == [])
        #expect(all.due == time(2000) && all.takeDue(time(1999)) == [])
        #expect(all.takeDue(time(2000)) == [.remove(pair), .goPlain(plain, lifetime: .seconds(300))])
        #expect(all.enter(plain, own: own, .gateway, lifetime: .seconds(60), .expected, time(3000)) == [])
        #expect(all.offered({ _, _, _ in .none }, time(3100)) == [.remove(pair), .goPlain(plain, lifetime: .seconds(60))])
        #expect(all.enter(plain, own: own, .gateway, lifetime: .seconds(60), .expected, time(4000)) == [])
        #expect(all.offered({ _, _, _ in granted() }, time(4100)) == [.set(pair, way()), .release(plain)])
        #expect(all.due.map { $0 >= time(64_000) } ?? false)
    }

    @Test("What is in use is looked up again and goes on; what is not is forgotten")
    func used() {
        var all = GatewayDestinations(countMax: 10)
        _ = all.enter(plain, own: own, .gateway, lifetime: .seconds(60), granted(), time(0))
        all.counted(plain, 5)
        #expect(all.takeDue(time(60_000)) == [.lookUp(plain)])
        all.counted(plain, 5)
        #expect(all.takeDue(time(360_000)) == [.remove(pair)] && all.isEmpty)
    }

    @Test("A gateway that is lost is waited for 10 s; what was carried by it is then as unknown as any")
    func lost() {
        var all = GatewayDestinations(countMax: 10)
        _ = all.enter(plain, own: own, .gateway, lifetime: .seconds(60), granted(), time(0))
        #expect(all.offered({ _, _, _ in .none }, time(1000)) == [.hold(pair)])
        #expect(all.takeDue(time(10_999)) == [] && all.takeDue(time(11_000)) == [.remove(pair)])
    }

    @Test("Who speaks first pushes out only others that did, and at most half of the places are theirs")
    func bounded() {
        var all = GatewayDestinations(countMax: 4)
        func address(_ number: Int) -> HomeAddress { home("203.0.113.\(number)") }
        for number in 1...2 { _ = all.enter(address(number), own: own, .gateway, lifetime: .seconds(1), granted(), time(0)) }
        for number in 3...9 {
            _ = all.enter(address(number), own: own, .gateway, hasArrived: true, lifetime: .seconds(300), granted(), time(Int64(number)))
        }
        #expect(all.all.map(\.hoa) == [1, 2, 8, 9].map(address))
        let actions = all.enter(address(10), own: own, .gateway, lifetime: .seconds(60), granted(), time(20))
        #expect(actions.first == .remove(HomePair(own: own, peer: address(1))) && all.count == 4)
    }

    @Test("A packet that the kernel moved to another own address is known to leave from there")
    func installedMoved() {
        var all = GatewayDestinations(countMax: 4)
        _ = all.enter(plain, own: own, .gateway, lifetime: .seconds(60), granted(), time(0))
        all.installedMoved(from: MobileAddress(ip("198.51.100.1")), to: MobileAddress(ip("10.1.1.1")))
        #expect(all.way(to: plain) == way("10.1.1.1"))
        #expect(all.offered({ _, _, _ in granted("10.1.1.1") }, time(10)) == [])
    }

    @Test("Of several prefixes the longest counts, and what is not global goes as it is unless one names it")
    func policy() {
        var policy = PlainPolicy()
        #expect(policy.way(to: plain.address) == .none && !policy.usesGateways)
        policy.standard = .gateway
        policy.exceptions = [
            .init(prefix("203.0.113.0/24"), .sourceNAT), .init(prefix("203.0.113.128/25"), .none), .init(prefix("10.1.0.0/16"), .gateway),
        ]
        #expect(policy.way(to: ip("203.0.113.1")) == .sourceNAT && policy.way(to: ip("203.0.113.200")) == .none)
        #expect(policy.way(to: ip("198.51.100.1")) == .gateway && policy.way(to: ip("10.1.2.3")) == .gateway)
        #expect(policy.way(to: ip("10.2.2.3")) == .none && policy.way(to: ip("fe80::1")) == .none)
    }
}

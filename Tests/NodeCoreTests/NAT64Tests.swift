import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("IPv4 through NAT64s") struct NAT64Tests {
    /// RFC 6052 section 2.4, table 1.
    @Test(
        "Addresses stand in prefixes of each length as RFC 6052 says, and are found there again",
        arguments: [
            ("2001:db8::/32", "2001:db8:c000:221::"), ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"), ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"), ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ])
    func synthesis(_ text: String, _ address: String) throws {
        let nat64 = try #require(NAT64Prefix(prefix(text)))
        #expect(nat64.synthesise(ip("192.0.2.33")) == ip(address))
        #expect(nat64.extract(ip(address)) == ip("192.0.2.33"))
        #expect(nat64.extract(ip("2001:db9::1")) == nil && nat64.extract(ip("192.0.2.33")) == nil && nat64.synthesise(ip("::1")) == nil)
        #expect("\(nat64)" == text)
        // What a DNS64 says of ipv4only.arpa shows the prefix.
        let answer = try #require(nat64.synthesise(ip("192.0.0.171")))
        #expect(NAT64Prefix(wellKnownNameAt: [ip("192.0.0.170"), answer]) == nat64)
    }

    @Test("What can't be a NAT64's prefix is none, and neither is an answer without the known addresses")
    func others() {
        for text in ["192.0.2.0/24", "2001:db8::/33", "2001:db8:0:0:100::/96", "ff00::/32"] { #expect(NAT64Prefix(prefix(text)) == nil) }
        #expect(NAT64Prefix(wellKnownNameAt: [ip("192.0.0.170"), ip("2001:db8::1")]) == nil)
    }

    private func locator(_ address: String, _ interface: String) -> OwnLocator { OwnLocator(moa(address), interface: interface) }
    private let target = Endpoint(ip("198.51.100.7"), port: 6288)

    @Test("A link that has IPv6 alone gets an IPv4 address for what goes through its NAT64, and keeps it")
    func standIns() {
        var standIns = StandIns()
        let links = [
            locator("2001:db8::10", "wwan0"), locator("2001:db8::11", "wwan0"), locator("192.0.2.10", "wlan0"), locator("2001:db8:1::1", "wlan0"),
        ]
        func add(_ locators: [OwnLocator]) -> (locators: [OwnLocator], hasOthers: Bool) { standIns.add(to: locators) }
        let without = add(links)
        #expect(without.locators == links)
        let isNews = standIns.found(.wellKnown)
        #expect(isNews)
        let with = add(links)
        #expect(with.locators.map(\.moa) == [moa("2001:db8::10"), moa("2001:db8::11"), moa("192.0.0.1"), moa("192.0.2.10"), moa("2001:db8:1::1")])
        #expect(with.hasOthers)
        let out = standIns.leaving(from: ip("192.0.0.1"), to: target)
        #expect(out.own == ip("2001:db8::10") && out.target == Endpoint(ip("64:ff9b::198.51.100.7"), port: 6288))
        let back = standIns.arriving(from: out.target, to: out.own)
        #expect(back.source == target && back.local == ip("192.0.0.1"))
        // From others of the same link, and from IPv6, nothing is another's.
        #expect(standIns.arriving(from: out.target, to: ip("2001:db8::11")).source == out.target)
        #expect(standIns.leaving(from: ip("192.0.2.10"), to: target).own == ip("192.0.2.10"))
        let same = add(links)
        #expect(!same.hasOthers && same.locators == with.locators)
        // Another address of the link is another MoA.
        let moved = add([locator("2001:db8::12", "wwan0")])
        #expect(moved.locators.map(\.moa) == [moa("2001:db8::12"), moa("192.0.0.2")] && moved.hasOthers)
        let gone = add([locator("192.0.2.10", "wlan0")])
        #expect(gone.locators.map(\.moa) == [moa("192.0.2.10")])
    }

    @Test("The kernel is told of IPv6 alone, and anew when an endpoint of IPv4 means another")
    func kernel() throws {
        var standIns = StandIns()
        let pair = HomePair(own: home("192.0.2.1"), peer: home("192.0.2.2"))
        let accept = IMTChange.accept(pair, from: [target])
        func real(_ change: IMTChange) -> [IMTChange] { standIns.real([change]) }
        let unchanged = real(accept)
        #expect(unchanged == [accept])
        _ = standIns.found(.wellKnown)
        let hasOthers = standIns.add(to: [locator("2001:db8::10", "wwan0")]).hasOthers
        #expect(hasOthers)
        let synthesised = Endpoint(ip("64:ff9b::198.51.100.7"), port: 6288)
        #expect(standIns.acceptAnew() == [.accept(pair, from: [target, synthesised])])
        let way = Carriage(.encapsulated(own: Endpoint(ip("192.0.0.1"), port: 6289), peer: target))
        let outbound = real(.setOutbound(pair, way))
        #expect(outbound == [.setOutbound(pair, Carriage(.encapsulated(own: Endpoint(ip("2001:db8::10"), port: 6289), peer: synthesised)))])
        let ended = real(.accept(pair, from: []))
        #expect(ended == [.accept(pair, from: [])] && standIns.acceptAnew().isEmpty)
    }

    @Test("The network's resolvers are asked while some link has IPv6 alone, again while they know of none, and silence changes nothing")
    func search() {
        var search = NAT64Search(.auto)
        func time(_ seconds: Int) -> MonotonicTime { .zero + .seconds(Int64(seconds)) }
        func begin(_ isNeeded: Bool) -> Bool { search.begin(isNeeded: isNeeded) }
        func answered(_ answer: NAT64Answer, _ before: NAT64Prefix?, _ seconds: Int) -> NAT64Prefix? {
            search.answered(answer, before: before, time(seconds))
        }
        func takeDue(_ seconds: Int) -> Bool { search.takeDue(time(seconds)) }
        #expect(begin(false) == false)
        #expect(search.due == nil)
        #expect(begin(true))
        #expect(answered(.none, nil, 0) == nil)
        #expect(search.due == time(1))
        #expect(takeDue(1))
        #expect(answered(.prefix(.wellKnown), nil, 1) == .wellKnown)
        #expect(search.due == nil)
        #expect(begin(true))
        #expect(answered(.silence, .wellKnown, 2) == .wellKnown)
        #expect(takeDue(3))
        #expect(answered(.none, .wellKnown, 3) == nil)
        #expect(begin(false) == false)
        #expect(answered(.prefix(.wellKnown), nil, 4) == nil)
        var fixed = NAT64Search(.fixed(.wellKnown))
        let fixedAsks = fixed.begin(isNeeded: true)
        #expect(!fixedAsks && fixed.present(nil) == .wellKnown)
        var never = NAT64Search(.never)
        let neverAsks = never.begin(isNeeded: true)
        #expect(!neverAsks && never.present(.wellKnown) == nil)
    }

    @Test("What a router advertises goes before the resolvers' word, for its time and on its link")
    func advertised() throws {
        // Lifetime 600 s, 64 bits; before it an option of 8 octets, after it one that is cut short.
        let octets: [UInt8] =
            [5, 1, 0, 0, 0, 0, 5, 220] + [38, 2, 0x02, 0x59, 0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0x64, 0, 0, 0, 0] + [38, 2, 0, 0, 0, 0, 0, 0]
        #expect(AdvertisedTranslator.all(in: octets) == [AdvertisedTranslator(prefix: prefix("2001:db8:0:64::/64"), lifetime: 600)])
        for garbage in [[38], [38, 0, 0, 0, 0, 0, 0, 0], [38, 2, 2, 0x5F] + [UInt8](repeating: 0, count: 12)] as [[UInt8]] {
            #expect(AdvertisedTranslator.all(in: garbage).isEmpty)
        }
        let said = try #require(NAT64Prefix(prefix("2001:db8:0:64::/64")))
        var search = NAT64Search(.auto)
        func time(_ seconds: Int) -> MonotonicTime { .zero + .seconds(Int64(seconds)) }
        func begin(_ links: Set<UInt32>) -> Bool { search.begin(isNeeded: true, links: links) }
        func advertise(_ lifetime: UInt32, on link: UInt32) {
            search.advertised(AdvertisedTranslator(prefix: prefix("2001:db8:0:64::/64"), lifetime: lifetime), on: link, time(0))
        }
        _ = begin([2])
        advertise(600, on: 2)
        #expect(search.present(.wellKnown) == said)
        #expect(search.due == time(600))
        _ = search.takeDue(time(600))
        #expect(search.present(.wellKnown) == .wellKnown)
        advertise(600, on: 2)
        advertise(0, on: 3)
        #expect(search.present(nil) == said)
        advertise(0, on: 2)
        #expect(search.present(nil) == nil)
        advertise(600, on: 2)
        _ = begin([3])
        #expect(search.present(nil) == nil)
    }
}

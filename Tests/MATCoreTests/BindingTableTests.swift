import MATCore
import MATSignal
import Testing

// Addresses: 10.0.0.x HoAs, 198.51.100.x translators, 192.0.2.1 the server.

@Suite("Bindings") struct BindingTableTests {
    /// When the tests' first cookies were made, Unix time in s.
    static let start: UInt32 = 1_800_000_000
    private static let server = Endpoint(IPAddress(ipv4: 0xC000_0201), port: 6290)

    private static func now(_ seconds: Int) -> Now {
        Now(monotonic: MonotonicTime(nanoseconds: Int64(1000 + seconds) * 1_000_000_000), wallMilliseconds: UInt64(Int(start) + seconds) * 1000)
    }

    private static func hoa(_ number: UInt32) -> IPPrefix { IPPrefix(IPAddress(ipv4: 0x0A00_0000 + number)) }
    private static func endpoint(_ number: UInt32, port: UInt16 = 6289) -> Endpoint { Endpoint(IPAddress(ipv4: 0xC633_6400 + number), port: port) }

    private static func request(
        _ prefix: IPPrefix = hoa(1), _ endpoint: Endpoint = endpoint(1), cookieAt: Int = 0, client: UInt64 = 7, seconds: UInt32? = nil,
        holder: Binding.Holder = .resident, certifiedFor: Int = 86_400
    ) -> BindingTable.Request {
        BindingTable.Request(
            prefix: prefix, holder: holder, endpoint: endpoint, local: server, cookieTime: UInt32(Int(start) + cookieAt), clientCookie: client,
            seconds: seconds, certificateNotAfter: UInt64(Int(start) + certifiedFor) * 1000)
    }

    private static func table(_ max: Int = 100, visitors: Int? = nil, perIssuer: Int = 64) -> BindingTable {
        BindingTable(BindingLimits(bindingsMax: max, visitorsMax: visitors, visitorsPerIssuerMax: perIssuer))
    }

    @Test("What is bound is found by HoA, by an address in it and by endpoint, until the grant is over")
    func found() throws {
        var table = Self.table()
        let now = Self.now(0)
        guard case .bound(let binding, let slot, isNew: true, movedFrom: nil) = table.bind(Self.request(), now) else {
            Issue.record("not bound")
            return
        }
        #expect(binding.secondsLeft(now.monotonic) == 120 && binding.endpoint == Self.endpoint(1) && binding.local == Self.server)
        let later = Self.now(119).monotonic
        #expect(table.binding(of: Self.hoa(1), later) == binding)
        #expect(table.slot(covering: Self.hoa(1).address, later) == slot)
        #expect(table.way(in: slot) == (Self.endpoint(1), Self.server))
        #expect(table.isBound(Self.endpoint(1), later) && !table.isBound(Self.endpoint(1, port: 6288), later))
        #expect(table.bindings(acceptedFrom: Self.endpoint(1), later) == [binding])
        #expect(table.boundCount(at: Self.endpoint(1).address) == 1)
        let over = Self.now(120).monotonic
        #expect(table.binding(of: Self.hoa(1), over) == nil && table.slot(covering: Self.hoa(1).address, over) == nil)
        #expect(!table.isBound(Self.endpoint(1), over) && table.all(over).isEmpty)
        #expect(table.sweep(steps: 10, over).map(\.slot) == [slot])
        #expect(table.count == 0 && table.boundCount(at: Self.endpoint(1).address) == 0)
    }

    @Test(
        "LIFETIME is held between 30 and 600 s, and to what the certificate leaves",
        arguments: [
            (UInt32?.none, 86_400, UInt32(120)), (1, 86_400, 30), (45, 86_400, 45), (.max, 86_400, 600), (600, 77, 77), (nil, 20, 20),
        ])
    func lifetime(wanted: UInt32?, certifiedFor: Int, granted: UInt32) {
        var table = Self.table()
        _ = table.bind(Self.request(seconds: wanted, certifiedFor: certifiedFor), Self.now(0))
        #expect(table.binding(of: Self.hoa(1), Self.now(0).monotonic)?.secondsLeft(Self.now(0).monotonic) == granted)
    }

    @Test("A certificate that has ended binds nothing")
    func certificateEnded() {
        var table = Self.table()
        #expect(table.bind(Self.request(certifiedFor: 100), Self.now(100)) == .refused(.certificateEnded))
        #expect(table.count == 0)
    }

    @Test("A node that moves is sent to at its new endpoint, and accepted from the old one for 30 s")
    func moved() {
        var table = Self.table()
        _ = table.bind(Self.request(), Self.now(0))
        let move = Self.request(Self.hoa(1), Self.endpoint(2), cookieAt: 5)
        guard case .bound(_, let slot, isNew: false, movedFrom: Self.endpoint(1)) = table.bind(move, Self.now(6)) else {
            Issue.record("not moved")
            return
        }
        let (soon, late) = (Self.now(35).monotonic, Self.now(36).monotonic)
        #expect(table.way(in: slot).endpoint == Self.endpoint(2))
        for endpoint in [Self.endpoint(1), Self.endpoint(2)] {
            #expect(table.slot(covering: Self.hoa(1).address, acceptedFrom: endpoint, soon) == slot && table.isBound(endpoint, soon))
        }
        #expect(table.slot(covering: Self.hoa(1).address, acceptedFrom: Self.endpoint(1), late) == nil && !table.isBound(Self.endpoint(1), late))
        #expect(table.boundCount(at: Self.endpoint(1).address) == 0 && table.boundCount(at: Self.endpoint(2).address) == 1)
    }

    @Test("A Bind that is shown again after a later one is refused, also when the binding has ended, for as long as its cookie is good")
    func repeated() {
        let first = Self.request()
        let second = Self.request(Self.hoa(1), Self.endpoint(2), cookieAt: 10, seconds: 30)
        var table = Self.table()
        _ = table.bind(first, Self.now(0))
        _ = table.bind(second, Self.now(10))
        #expect(table.bind(first, Self.now(11)) == .refused(.olderCookie))
        #expect(table.binding(of: Self.hoa(1), Self.now(11).monotonic)?.endpoint == Self.endpoint(2))
        // The grant is over, first unseen and then seen by a sweep.
        #expect(table.bind(first, Self.now(60)) == .refused(.olderCookie))
        _ = table.sweep(steps: 10, Self.now(61).monotonic)
        #expect(table.bind(first, Self.now(62)) == .refused(.olderCookie))
        #expect(table.bind(second, Self.now(62)) == .refused(.olderCookie))
        #expect(table.count == 0)
        // A node that comes back with a new cookie is welcome.
        guard case .bound(_, _, isNew: true, movedFrom: nil) = table.bind(Self.request(cookieAt: 63), Self.now(64)) else {
            Issue.record("not bound anew")
            return
        }
    }

    @Test("Two moves within one second are possible, but not back to where the node has just been, since that may be somebody else's repetition")
    func withinOneSecond() {
        var table = Self.table()
        _ = table.bind(Self.request(), Self.now(0))
        guard case .bound = table.bind(Self.request(Self.hoa(1), Self.endpoint(2)), Self.now(0)) else {
            Issue.record("not moved")
            return
        }
        #expect(table.bind(Self.request(), Self.now(200)) == .refused(.olderCookie))
    }

    @Test("LIFETIME 0 ends a binding under a newer cookie only, and no Bind of before brings it back")
    func ended() {
        var table = Self.table()
        _ = table.bind(Self.request(), Self.now(0))
        #expect(table.bind(Self.request(seconds: 0), Self.now(1)) == .refused(.olderCookie))
        guard case .ended(let binding?, _) = table.bind(Self.request(cookieAt: 2, seconds: 0), Self.now(2)) else {
            Issue.record("not ended")
            return
        }
        #expect(binding.hoa.address == Self.hoa(1).address && table.count == 0)
        #expect(table.bind(Self.request(), Self.now(3)) == .refused(.olderCookie))
        #expect(table.bind(Self.request(cookieAt: 2), Self.now(3)) == .refused(.olderCookie))
        #expect(table.bind(Self.request(Self.hoa(2), seconds: 0), Self.now(3)) == .ended(nil, slot: nil))
    }

    @Test("A refresh extends the grant, for at most 600 s after the signature")
    func refreshed() {
        var table = Self.table()
        let (hoa, from) = (HomeAddress(Self.hoa(1).address), Self.endpoint(1))
        _ = table.bind(Self.request(), Self.now(0))
        for second in stride(from: 25, through: 500, by: 25) {
            let now = Self.now(second).monotonic
            #expect(table.refresh(hoa, from: from, to: Self.server, clientCookie: 7, now)?.secondsLeft(now) == UInt32(min(120, 600 - second)))
        }
        let last = table.refresh(hoa, from: from, to: Self.server, clientCookie: 7, Self.now(590).monotonic)
        #expect(last?.secondsLeft(Self.now(590).monotonic) == 10)
        #expect(table.refresh(hoa, from: from, to: Self.server, clientCookie: 7, Self.now(600).monotonic) == nil)
        #expect(table.binding(of: Self.hoa(1), Self.now(600).monotonic) == nil)
        // The Bind of before, shown again, would have started another 600 s.
        var other = Self.table()
        _ = other.bind(Self.request(seconds: 600), Self.now(0))
        _ = other.bind(Self.request(seconds: 600), Self.now(290))
        #expect(other.binding(of: Self.hoa(1), Self.now(290).monotonic)?.secondsLeft(Self.now(290).monotonic) == 310)
    }

    @Test("A refresh from another endpoint, to another address, with another cookie, or for what is not bound, is none")
    func notRefreshed() {
        var table = Self.table()
        let now = Self.now(1).monotonic
        let hoa = HomeAddress(Self.hoa(1).address)
        _ = table.bind(Self.request(), Self.now(0))
        #expect(table.refresh(hoa, from: Self.endpoint(1, port: 1), to: Self.server, clientCookie: 7, now) == nil)
        #expect(table.refresh(hoa, from: Self.endpoint(1), to: Self.endpoint(9), clientCookie: 7, now) == nil)
        #expect(table.refresh(hoa, from: Self.endpoint(1), to: Self.server, clientCookie: 8, now) == nil)
        #expect(table.refresh(HomeAddress(Self.hoa(2).address), from: Self.endpoint(1), to: Self.server, clientCookie: 7, now) == nil)
        #expect(table.refresh(hoa, from: Self.endpoint(1), to: Self.server, clientCookie: 7, Self.now(120).monotonic) == nil)
    }

    @Test("Of several HoAs that cover an address the longest counts, and a shorter one while that is not bound or bound elsewhere")
    func prefixes() throws {
        var table = Self.table()
        let network = try #require(IPPrefix("10.0.0.0/24"))
        let now = Self.now(0).monotonic
        _ = table.bind(Self.request(network, Self.endpoint(1)), Self.now(0))
        #expect(table.binding(covering: Self.hoa(5).address, now)?.prefix == network)
        _ = table.bind(Self.request(Self.hoa(5), Self.endpoint(2), cookieAt: 1), Self.now(0))
        #expect(table.binding(covering: Self.hoa(5).address, now)?.prefix == Self.hoa(5))
        #expect(table.binding(covering: Self.hoa(6).address, now)?.prefix == network)
        #expect(table.binding(covering: IPAddress(ipv4: 0x0A00_0100), now) == nil)
        let throughRouter = try #require(table.slot(covering: Self.hoa(5).address, acceptedFrom: Self.endpoint(1), now))
        #expect(table.binding(in: throughRouter, now)?.prefix == network)
        table.end(Self.hoa(5), now)
        #expect(table.binding(covering: Self.hoa(5).address, now)?.prefix == network)
    }

    @Test("Several HoAs at one endpoint are all found there, and counted at its address")
    func severalHomes() {
        var table = Self.table()
        let now = Self.now(0)
        for number in UInt32(1)...5 { _ = table.bind(Self.request(Self.hoa(number), Self.endpoint(1, port: number < 4 ? 6289 : 7000)), now) }
        #expect(table.bindings(acceptedFrom: Self.endpoint(1), now.monotonic).map(\.prefix) == (1...3).map(Self.hoa))
        #expect(table.boundCount(at: Self.endpoint(1).address) == 5)
        table.end(Self.hoa(2), now.monotonic)
        #expect(table.bindings(acceptedFrom: Self.endpoint(1), now.monotonic).map(\.prefix) == [Self.hoa(1), Self.hoa(3)])
        #expect(table.boundCount(at: Self.endpoint(1).address) == 4)
    }

    @Test("A full table refuses what is new, and keeps and renews what is there")
    func full() {
        var table = Self.table(4, perIssuer: 1)
        let now = Self.now(0)
        func visitor(_ number: UInt32, issuer: UInt64, cookieAt: Int = 0) -> BindingTable.Request {
            Self.request(Self.hoa(number), Self.endpoint(number), cookieAt: cookieAt, holder: .visitor(issuer: issuer))
        }
        _ = table.bind(visitor(1, issuer: 1), now)
        #expect(table.mayBind(visitor(2, issuer: 1), now) == .fullOfIssuer)
        _ = table.bind(visitor(2, issuer: 2), now)
        #expect(table.bind(visitor(3, issuer: 3), now) == .refused(.fullOfVisitors))
        _ = table.bind(Self.request(Self.hoa(3), Self.endpoint(3)), now)
        _ = table.bind(Self.request(Self.hoa(4), Self.endpoint(4)), now)
        #expect(table.bind(Self.request(Self.hoa(5), Self.endpoint(5)), now) == .refused(.full))
        #expect(table.bind(visitor(3, issuer: 3, cookieAt: 1), now) == .refused(.fullOfVisitors))
        #expect(table.count == 4 && table.visitorsCount == 2)
        guard case .bound = table.bind(visitor(1, issuer: 1, cookieAt: 1), now) else {
            Issue.record("what is there was not renewed")
            return
        }
        // Room is made by what has ended by itself.
        guard case .bound = table.bind(Self.request(Self.hoa(5), Self.endpoint(5), cookieAt: 130), Self.now(130)) else {
            Issue.record("no room though all others have ended")
            return
        }
        #expect(table.visitorsCount == 0)
    }

    @Test("Another run takes over what was bound, with the time that is left, and refuses what was shown to the run before")
    func restart() {
        var table = Self.table()
        _ = table.bind(Self.request(), Self.now(0))
        _ = table.bind(Self.request(Self.hoa(2), Self.endpoint(2)), Self.now(0))
        _ = table.bind(Self.request(Self.hoa(2), Self.endpoint(2), cookieAt: 1, seconds: 0), Self.now(1))
        let saved = table.saved(Self.now(20))
        #expect(saved.map(\.prefix) == [Self.hoa(1), Self.hoa(2)])
        // The machine was restarted: its monotonic clock begins anew.
        let now = Now(monotonic: MonotonicTime(nanoseconds: 5_000_000_000), wallMilliseconds: Self.now(50).wallMilliseconds)
        var next = Self.table()
        #expect(saved.map { next.restore($0, holder: .resident, now) } == [0, nil])
        #expect(next.binding(of: Self.hoa(1), now.monotonic)?.secondsLeft(now.monotonic) == 70)
        #expect(next.bind(Self.request(Self.hoa(2), Self.endpoint(2)), now) == .refused(.olderCookie))
        let refreshed = next.refresh(HomeAddress(Self.hoa(1).address), from: Self.endpoint(1), to: Self.server, clientCookie: 7, now.monotonic)
        #expect(refreshed?.secondsLeft(now.monotonic) == 120)
    }

    @Test("The table agrees with a plain list of bindings, whatever is bound, moved, ended and swept")
    func model() {
        var random = SystemRandomNumberGenerator()
        var table = Self.table(40)
        var model: [IPPrefix: (endpoint: Endpoint, until: Int)] = [:]
        var cookie = 0
        for second in 0..<3000 {
            let now = Self.now(second)
            cookie += 1
            let prefix = Self.hoa(.random(in: 0..<60, using: &random))
            let endpoint = Self.endpoint(.random(in: 0..<10, using: &random))
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<6:
                if case .bound = table.bind(Self.request(prefix, endpoint, cookieAt: cookie, seconds: 40), now) {
                    model[prefix] = (endpoint, second + 40)
                }
            case 6:
                table.end(prefix, now.monotonic)
                model[prefix] = nil
            case 7: _ = table.sweep(steps: 20, now.monotonic)
            default:
                guard let held = model[prefix], held.until > second else { break }
                if table.refresh(HomeAddress(prefix.address), from: held.endpoint, to: Self.server, clientCookie: 7, now.monotonic) != nil {
                    model[prefix]?.until = second + 40
                }
            }
            let expected = model.filter { $0.value.until > second }
            #expect(Dictionary(uniqueKeysWithValues: table.all(now.monotonic).map { ($0.prefix, $0.endpoint) }) == expected.mapValues(\.endpoint))
            for (prefix, held) in expected { #expect(table.bindings(acceptedFrom: held.endpoint, now.monotonic).contains { $0.prefix == prefix }) }
        }
        _ = table.sweep(steps: 1000, Self.now(10_000).monotonic)
        #expect(table.count == 0 && (0..<10).allSatisfy { table.boundCount(at: Self.endpoint($0).address) == 0 })
    }
}

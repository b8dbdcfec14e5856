import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Which own address could stand in for which, without a node around it.
@Suite("Own addresses as ways out") struct OwnWaysTests {
    private let wlan: MobileAddress = moa("192.0.2.10")
    private let lte: MobileAddress = moa("192.0.3.10")
    private let wlan6: MobileAddress = moa("2001:db8:1::10")
    private let servers = ["192.88.1.1", "2001:db8:88::1", "192.88.1.2", "192.88.1.3"].map { Endpoint(ip($0), port: SignalPort.ims) }

    private var ways: OwnWays {
        OwnWays([
            OwnWays.Home(places: [wlan, lte], servers: servers, hoa: home("198.51.100.1")),
            OwnWays.Home(places: [wlan6], servers: servers, hoa: home("2001:db8::1")),
        ])
    }

    private func path(_ own: MobileAddress, _ server: String) -> PathMonitor.Path { PathMonitor.Path(own, .server(ip(server))) }

    @Test("Two IMSs of an address's family tell whether it works, and an address that nothing can stand in for is not suspected")
    func asked() {
        #expect(ways.servers(over: lte) == [path(lte, "192.88.1.1"), path(lte, "192.88.1.2")])
        #expect(ways.servers(over: wlan6) == [path(wlan6, "2001:db8:88::1")] && ways.servers(over: moa("192.0.9.9")).isEmpty)
        #expect(ways.suspicions(about: lte) == [lte, wlan].flatMap { [path($0, "192.88.1.1"), path($0, "192.88.1.2")] })
        #expect(ways.suspicions(about: wlan6).isEmpty)
    }

    @Test("While nothing is in use, the first IMS is asked over the preferred address of each HoA that has another")
    func standing() { #expect(ways.standing == [path(wlan, "192.88.1.1")]) }

    @Test("An overdue answer has the other family of the same link looked at, unless it is not in use")
    func suspects() {
        let uplinks = Uplinks(PathConfiguration())
        #expect(ways.suspects(for: wlan, [wlan, wlan6], uplinks) == [wlan, wlan6])
        #expect(ways.suspects(for: wlan6, [wlan6, lte], uplinks) == [wlan6], "that is a standby address")
        #expect(ways.home(of: lte) == home("198.51.100.1") && ways.others(than: lte) == [wlan] && ways.home(of: moa("192.0.9.9")) == nil)
    }
}

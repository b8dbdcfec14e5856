import MATSignal
import Testing

@testable import IMTPlan

@Suite("How packets get to a peer") struct CarriageTests {
    @Test("A rewritten packet has the family and the size of its addresses' exchange, and becomes one entry")
    func rewritten() throws {
        let mobile = MobilePair(own: GoldenScenario.wlan, peer: GoldenScenario.peer)
        let carriage = Carriage.rewritten(mobile, because: .detour)
        #expect(carriage.way.family == .ipv4 && carriage.way.own == mobile.own && carriage.way.destination == mobile.peer.address)
        #expect(carriage.mtu(over: 1400) == 1400 && carriage.reason == .detour)
        var model = TranslationModel()
        try model.apply([.setOutbound(GoldenScenario.own, carriage)])
        #expect(model.outbound == [GoldenScenario.own: mobile] && model.carriage(GoldenScenario.own)?.way == carriage.way)
    }

    @Test("A carriage of another family than the HoAs is refused, and nothing is changed")
    func families() {
        var model = TranslationModel()
        #expect(throws: PlanError.self) {
            try model.apply([.setOutbound(GoldenScenario.own, .rewritten(MobilePair(own: GoldenScenario.wlan6, peer: GoldenScenario.peer6)))])
        }
        #expect(model.outbound.isEmpty)
    }

    @Test("The route follows the carriage: its own address's link, and the limit of that link's route")
    func route() {
        let plan = GoldenRoutes.plan(GoldenScenario.node)
        let route = plan.peerRoute(
            to: GoldenScenario.other.peer, own: GoldenScenario.own.own,
            over: .rewritten(MobilePair(own: GoldenScenario.cell, peer: GoldenScenario.moa("10.2.0.77"))))
        #expect(route?.interfaceIndex == 3 && route?.mtu == 1400 && route?.gateway == GoldenScenario.address("10.2.0.77"))
    }
}

import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("What lies before an own address") struct TranslationTests {
    private let moa = MobileAddress(ip("192.0.2.10"))
    private let own = Endpoint(ip("192.0.2.10"), port: SignalPort.node)
    private let outside = Endpoint(ip("198.51.100.7"), port: 40_000)
    private let other = Endpoint(ip("198.51.100.7"), port: 40_001)
    private let first = Endpoint(ip("192.88.1.1"), port: SignalPort.ims)
    private let second = Endpoint(ip("192.88.2.1"), port: SignalPort.ims)
    private let start = VirtualClock().time

    @Test("A global address is taken for open until a server says otherwise, a private one is not")
    func unasked() {
        #expect(Translation(moa).isOpen)
        #expect(!Translation(MobileAddress(ip("10.1.2.3"))).isOpen)
        #expect(!Translation(MobileAddress(ip("100.64.0.9"))).isOpen)
        #expect(!Translation(MobileAddress(ip("fd00::9"))).isOpen)
        #expect(Translation(moa).endpoint == nil)
    }

    @Test("A private address that the own server sees as it is has nothing before it")
    func privateButOpen() {
        let local = ip("10.1.2.3")
        var translation = Translation(MobileAddress(local))
        let isNews1 = translation.observed(Endpoint(local, port: SignalPort.node), by: first)
        #expect(isNews1)
        #expect(translation.verdict == .open && translation.isOpen && translation.endpoint == nil)
    }

    @Test("Two servers tell how a translator maps: by the endpoint alone, or by the destination too")
    func mapping() {
        var translation = Translation(moa)
        let isNews = translation.observed(outside, by: first)
        #expect(isNews && translation.verdict == .translated(as: outside, .unknown))
        var dependent = translation
        _ = translation.observed(outside, by: second)
        #expect(translation.verdict == .translated(as: outside, .endpointIndependent))
        let again = translation.observed(outside, by: second)
        #expect(!again)
        _ = dependent.observed(other, by: second)
        #expect(dependent.verdict == .translated(as: outside, .endpointDependent))
        #expect(dependent.endpoint == outside)
    }

    @Test("A server that sees another endpoint than before outdates what all saw")
    func changed() {
        var translation = Translation(moa)
        _ = translation.observed(outside, by: first)
        _ = translation.observed(outside, by: second)
        let isNews = translation.observed(other, by: second)
        #expect(isNews && translation.verdict == .translated(as: other, .unknown))
    }

    @Test("A server on the inside, which sees the address itself, does not make it open")
    func insideServer() {
        var translation = Translation(moa)
        _ = translation.observed(own, by: first)
        _ = translation.observed(outside, by: second)
        #expect(translation.endpoint == outside && !translation.isOpen)
    }

    @Test("A signature may name the own address and what servers saw; any port, unless the mapping is known not to depend on the destination")
    func ownEndpoints() {
        var translation = Translation(moa)
        _ = translation.observed(outside, by: first)
        #expect(translation.isOwn(own) && translation.isOwn(outside) && translation.isOwn(other) && !translation.isOwn(first))
        var dependent = translation
        _ = translation.observed(outside, by: second)
        #expect(translation.isOwn(outside) && !translation.isOwn(other))
        _ = dependent.observed(other, by: second)
        #expect(dependent.isOwn(Endpoint(outside.address, port: 1)) && !dependent.isOwn(first))
    }

    @Test("An address is filtered when the IMS's checks of two records in a row do not come, until one comes")
    func filtered() {
        var translation = Translation(moa)
        _ = translation.observed(own, by: first)
        translation.awaitCheck(start)
        #expect(translation.due == start + .milliseconds(250) && translation.check == .awaited)
        let late = translation.timeUp(start + .milliseconds(250))
        #expect(late == .late && translation.check == .late && translation.due == start + .seconds(2) && translation.isCheckAwaited)
        let early = translation.timeUp(start + .seconds(1))
        let missed = translation.timeUp(start + .seconds(2))
        #expect(early == .nothing && missed == .registerAgain)
        #expect(translation.isOpen && translation.isCheckAwaited && translation.due == nil)
        translation.awaitCheck(start + .seconds(2))
        #expect(translation.due == start + .seconds(5))
        let filtered = translation.timeUp(start + .seconds(5))
        #expect(filtered == .filtered)
        #expect(translation.verdict == .filtered && translation.endpoint == own && translation.due == nil)
        let isNews = translation.checked()
        #expect(isNews && translation.isOpen)
        translation.awaitCheck(start + .seconds(9))
        #expect(translation.due == nil)
    }

    @Test("A check that comes in time, of either record, shows that packets arrive", arguments: [false, true])
    func reached(second: Bool) {
        var translation = Translation(moa)
        _ = translation.observed(own, by: first)
        translation.awaitCheck(start)
        if second {
            _ = translation.timeUp(start + .seconds(2))
            translation.awaitCheck(start + .seconds(2))
        }
        let isNews = translation.checked()
        let later = translation.timeUp(start + .seconds(60))
        #expect(!isNews && later == .nothing && translation.isOpen && translation.due == nil)
    }

    @Test("Of a server that does not say where it sees the address, no check is expected: of an earlier version, it sends none")
    func silentServer() {
        var translation = Translation(moa)
        translation.awaitCheck(start)
        let missed = translation.timeUp(start + .seconds(3))
        #expect(missed == .nothing && translation.verdict == .unknown && translation.isOpen && translation.due == nil)
    }

    @Test("What people say of an address counts whatever comes", arguments: [InboundSetting.filtered, .open])
    func said(_ inbound: InboundSetting) {
        var translation = Translation(moa, inbound)
        #expect(translation.isOpen == (inbound == .open))
        _ = translation.observed(own, by: first)
        translation.awaitCheck(start)
        #expect(translation.due == nil && translation.isOpen == (inbound == .open))
        _ = translation.checked()
        #expect(translation.endpoint == (inbound == .open ? nil : own))
        // A private address is first asked about: others may see another.
        #expect(Translation(MobileAddress(ip("10.1.2.3")), .filtered).endpoint == nil)
    }

    @Test("No number of servers makes it grow without bound")
    func bound() {
        var translation = Translation(moa)
        _ = translation.observed(outside, by: first)
        for port in 1...100 { _ = translation.observed(other, by: Endpoint(ip("192.88.9.9"), port: UInt16(port))) }
        #expect(translation.observationsCount == Translation.serversMax)
    }
}

import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("What an event wants done") struct EffectsTests {
    private let own = ip("192.0.2.10")
    private let target = Endpoint(ip("198.18.0.10"), port: SignalPort.node)
    private let change = IMTChange.removePlain(ip("203.0.113.1"))

    @Test("Messages to one place share a datagram up to its bounds; other places and other own addresses have their own")
    func coalescing() {
        var effects = Effects()
        let half = [UInt8](repeating: 1, count: SignalDatagram.octetsMax / 2)
        for _ in 0..<3 { effects.send(half, from: own, to: target, needsRoom: false) }
        effects.send([2], from: ip("192.0.2.11"), to: target, needsRoom: false)
        effects.send([3], from: own, to: target, needsRoom: true)
        #expect(
            effects.end() == [
                .send(half + half, from: own, to: target), .send(half, from: own, to: target), .send([2], from: ip("192.0.2.11"), to: target),
                .sendIfRoom([3], from: own, to: target),
            ])
    }

    @Test("Kernel changes go before what may be answered, in one transaction; nothing joins a datagram before them")
    func changesFirst() {
        var effects = Effects()
        effects.send([1], from: own, to: target, needsRoom: false)
        effects.change(change)
        effects.change(change)
        effects.add(.log(.info, "in between"))
        effects.send([2], from: own, to: target, needsRoom: false)
        effects.change(change)
        #expect(
            effects.end() == [
                .send([1], from: own, to: target), .log(.info, "in between"), .changeIMT([change, change]), .send([2], from: own, to: target),
                .changeIMT([change]),
            ])
        #expect(effects.end() == [])
    }
}

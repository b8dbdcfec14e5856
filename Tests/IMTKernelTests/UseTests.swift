import Foundation
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// Whether the kernel tells of a packet to a peer; see Topology for the drawing.
@Suite("First use of a peer", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct UseTests {
    @Test("While nobody looks at the counts, a packet to a peer is told of, a plain one is not", arguments: HoldTests.cases)
    func told(_ c: HoldTests.Case) throws {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        try net.cn.start(Topology.cnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.cn.useLocators(on: "eth0")
        try net.cn.map(c.peer, c.own, over: c.peerMoA, c.ownMoA)
        try net.mn.map(c.own, c.peer, over: c.ownMoA, c.peerMoA)
        let (own, peer) = (try address(c.own), try address(c.peer))
        let receiver = try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: peer.isIPv4)
        try receiver.bind(peer, port: 5000)
        let sender = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: peer.isIPv4)
        try sender.bind(own, port: 5001)
        let plain = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: peer.isIPv4)
        try plain.bind(try address(c.ownMoA), port: 5002)
        func exchange() throws {
            try sender.send([1], to: peer, port: 5000)
            #expect(try receiver.receiveFrom().octets == [1])
        }
        try exchange()
        #expect(net.mn.usesTold == 0)
        #expect(try net.mn.ask { try $0.awaitUse(true) })
        try plain.send([2], to: try address(peer.isIPv4 ? "10.9.0.1" : "2001:db8:9::1"), port: 5000)
        // What was told of the plain one would be told before what this brings.
        try exchange()
        #expect(eventually { net.mn.usesTold > 0 })
        // However many there are before anybody has heard.
        for _ in 0..<50 { try exchange() }
        #expect((1...2).contains(net.mn.usesTold))
        #expect(try net.mn.ask { try $0.awaitUse(false) } == false)
        let before = net.mn.usesTold
        Thread.sleep(forTimeInterval: 1.1)
        try exchange()
        #expect(net.mn.usesTold == before)
        #expect(net.mn.failures.isEmpty)
        // Each was counted once.
        let counts = try net.mn.ask { try $0.peerCounters() }
        #expect(counts[HomePair(own: HomeAddress(own), peer: HomeAddress(peer))]?.packetsOut == 53)
    }
}

import MATSignal
import Testing

@testable import IMTPlan

/// What goes out without waiting for a look-up; see Topology for the drawing.
@Suite("Names, and destinations that are no HoAs", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct NamesTests {
    private func unmapped(exceptions: [String] = []) throws -> Topology {
        let net = try Topology()
        var configuration = Topology.mnConfiguration
        configuration.exceptions = exceptions.compactMap { IPPrefix($0) }
        try net.mn.start(configuration)
        try net.mn.useLocators(on: "wlan", "cell")
        return net
    }

    static let cases = [("10.9.0.1", "10.1.0.2", "10.2.0.2"), ("2001:db8:9::1", "2001:db8:1::2", "2001:db8:2::2")]

    @Test("A question of another process goes on as if nothing had captured it, over the link asked for, and its answer comes back", arguments: cases)
    func passed(_ server: String, _ first: String, _ second: String) throws {
        let net = try unmapped()
        let target = try address(server)
        let listener = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: target.isIPv4)
        try listener.bind(target, port: 53)
        for (link, source) in [(nil, first), ("cell", second), ("gone", first)] as [(String?, String)] {
            let client = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try client.send([1], to: target, port: 53)
            var held: [HeldPacket] = []
            #expect(
                eventually {
                    held += net.mn.takeOutbound(); return !held.isEmpty
                })
            let packet = try #require(held.first)
            try net.mn.ask { $0.passOutbound(packet, by: link) }
            let asked = try listener.receiveFrom()
            #expect(asked.octets == [1] && asked.source.address.description == source)
            try listener.send([2], to: asked.source.address, port: asked.source.port)
            #expect(try client.receiveFrom().octets == [2])
        }
        // The server has not become plain by that.
        let other = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
        try other.send([3], to: target, port: 5010)
        #expect(eventually { net.mn.takeOutbound().contains { $0.destinationPort == 5010 } })
        #expect(net.mn.takeInbound().isEmpty)
    }

    @Test("An excepted prefix is never captured; packets from there are questioned like others, for a peer may move there", arguments: cases)
    func excepted(_ server: String, _ first: String, _ second: String) throws {
        let net = try unmapped(exceptions: ["10.9.0.0/24", "2001:db8:9::/64"])
        let target = try address(server)
        let listener = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: target.isIPv4)
        try listener.bind(target, port: 5011)
        let client = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
        try client.send([1], to: target, port: 5011)
        #expect(try listener.receiveFrom().source.address.description == first)
        #expect(net.mn.takeOutbound().isEmpty)
        // To no socket of the node: the stack must not answer.
        try listener.send([2], to: try address(first), port: 5012)
        #expect(eventually { !net.mn.takeInbound().isEmpty })
    }

    @Test("A route of its own is told from the default route")
    func ownRoute() throws {
        let net = try unmapped()
        for (own, far) in [("10.1.0.1", "10.9.0.1"), ("2001:db8:2::1", "2001:db8:9::1")] {
            let (near, distant) = (try address(own), try address(far))
            #expect(try net.mn.ask { $0.hasOwnRoute(to: near) })
            #expect(try !net.mn.ask { $0.hasOwnRoute(to: distant) })
        }
    }
}

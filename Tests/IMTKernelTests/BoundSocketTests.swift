import Foundation
import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Programs that bind their sockets to our device (`curl --interface mat0`, `ping -I mat0`); see Topology and TranslatedTopology for the drawings.
@Suite("Sockets that are bound to the device", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct BoundSocketTests {
    /// SO_BINDTODEVICE of SOL_SOCKET.
    private func bound(_ host: Host, _ type: Int32, _ family: Family) throws -> TestSocket {
        let socket = try TestSocket(host.namespace, type, family)
        try socket.set(1, 25, octets: Array("mat0".utf8))
        return socket
    }

    @Test("In datagrams their packets go and their answers come", arguments: Family.both, TranslatedTopology.Places.both)
    func encapsulated(_ family: Family, _ places: TranslatedTopology.Places) throws {
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let client = try bound(net.mn, TestSocket.stream, family)
        try expect(client, toReceive: pattern(100_000), from: try connect(client, net.cn, family, port: 4620).server)
        let ping = net.mn.namespace.attempt("ping -n -c 2 -i 0.1 -W 1 -I mat0 \(family.peer)")
        #expect(ping.status == 0, "\(ping.output)")
        try net.net.expectClean()
    }

    @Test(
        "Where addresses are rewritten they hear at once that they can't have answers, others are as ever, and people are told once",
        arguments: Family.both)
    func rewritten(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let listener = try TestSocket(net.cn.namespace, TestSocket.stream, family)
        try listener.bind(family.peer, port: 4621)
        try listener.listen()
        let client = try bound(net.mn, TestSocket.stream, family)
        let refused = #expect(throws: ShellError.self) { try client.connect(family.peer, port: 4621) }
        #expect(["unreachable", "No route"].contains { refused?.description.contains($0) == true }, "\(String(describing: refused))")
        // Of what is neither TCP nor UDP only what was surely sent after its route was written is refused.
        Thread.sleep(forTimeInterval: 1.1)
        let ping = net.mn.namespace.attempt("ping -n -c 2 -i 0.2 -W 1 -I mat0 \(family.peer)")
        #expect(ping.status != 0 && ping.output.contains("+2 errors"), "\(ping.output)")
        let (other, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4622)
        try expect(other, toReceive: pattern(10_000), from: server)
        #expect(net.mn.warnings.filter { $0.contains("binds its socket to mat0") }.count == 1, "\(net.mn.warnings)")
        try net.expectClean()
    }

    @Test("What was sent while there was no other way goes on when there is one, whatever its protocol", arguments: Family.both)
    func queued(_ family: Family) throws {
        let net = try Topology()
        try net.start()
        let home = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        let mobile = MobilePair(own: MobileAddress(family.wlan), peer: MobileAddress(family.far))
        let namespace = net.mn.namespace
        // Nobody reads the device's queue while this runs.
        try net.mn.ask { kernel in
            let ping = namespace.attempt("ping -n -c 1 -W 0.1 \(family.peer)")
            #expect(ping.output.contains("100% packet loss") && !ping.output.contains("error"), "\(ping.output)")
            try kernel.commit([.setOutbound(home, .rewritten(mobile)), .setOwn(mobile.own, home.own), .setInbound(peer: mobile.peer, home)])
        }
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        #expect(held.count == 1 && held.allSatisfy { $0.destination == family.peer && $0.opensConnection }, "\(held)")
        #expect(net.mn.warnings.isEmpty, "\(net.mn.warnings)")
    }
}

import Glibc
import MATSignal
import Namespaces
import Testing

/// Paths narrower than the links at their ends; see Topology for the drawing.
@Suite("Path MTU", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct PathMTUTests {
    private func mapped() throws -> Topology {
        let net = try Topology()
        try net.mapBoth()
        return net
    }

    /// What the router lets through to one of the three links; 1 and 2 lead to mn, 9 to cn.
    private func narrow(_ net: Topology, link: Int, to mtu: Int) throws {
        try net.router.run("ip route replace 10.\(link).0.0/24 dev r\(link) src 10.\(link).0.1 mtu lock \(mtu)")
        // The kernel's own route has metric 256; a lower one wins.
        try net.router.run("ip -6 route replace 2001:db8:\(link)::/64 dev r\(link) metric 10 mtu lock \(mtu)")
    }

    /// Sends in both directions at once, and calls `during` when a part has arrived.
    private func transfer(
        _ client: TestSocket, _ server: TestSocket, octets: Int, during: () throws -> Void = {}
    ) throws {
        let (up, down) = (pattern(octets), pattern(octets, seed: 99))
        let work = [
            BackgroundWork { try client.send(up) }, BackgroundWork { try server.send(down) },
            BackgroundWork { try expect(client, toReceive: down) },
        ]
        let first = try server.receive(octets / 4)
        try during()
        #expect(first + (try server.receive(octets - octets / 4)) == up)
        for each in work { try each.wait() }
    }

    private func routeMTU(_ host: Host, _ family: Family, to peer: IPAddress) throws -> String {
        try host.namespace.run("\(family.ip) route get \(peer)")
    }

    @Test("A narrow link beyond the router is found out by both ends, and TCP goes on in both directions", arguments: Family.both)
    func narrowPath(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        let (client, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4400)
        try narrow(net, link: 9, to: 1300)
        try narrow(net, link: 1, to: 1300)
        try transfer(client, server, octets: 400_000)
        for (host, peer) in [(net.mn, family.peer), (net.cn, family.own)] {
            let route = try routeMTU(host, family, to: peer)
            #expect(route.contains("mtu 1300"), "\(route)")
        }
        try net.expectClean(tap.take())
    }

    @Test("A transfer goes on through a handover to a narrower path and back, in both directions", arguments: Family.both)
    func handOverToNarrow(_ family: Family) throws {
        let net = try mapped()
        try narrow(net, link: 2, to: 1300)
        // Out of mn by `cell`, what goes to cn is narrow too.
        try net.router.run("ip rule add iif r2 lookup 100")
        try net.router.run("ip -6 rule add iif r2 lookup 100")
        try net.router.run("ip route add 10.9.0.0/24 dev r9 table 100 mtu lock 1280")
        try net.router.run("ip -6 route add 2001:db8:9::/64 dev r9 table 100 mtu lock 1280")
        let (client, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4401)
        try transfer(client, server, octets: 1_000_000) { try net.handOver(family, to: family.cell) }
        // What is in flight at the switch may all have gone the wide way.
        try transfer(client, server, octets: 1_000_000)
        for (host, peer, mtu) in [(net.mn, family.peer, 1280), (net.cn, family.own, 1300)] {
            let route = try routeMTU(host, family, to: peer)
            #expect(route.contains("mtu \(mtu)"), "\(route)")
        }
        // Back: nothing is remembered of the narrow path.
        try transfer(client, server, octets: 1_000_000) { try net.handOver(family, to: family.wlan) }
        let route = try routeMTU(net.mn, family, to: family.peer)
        #expect(!route.contains("mtu"), "\(route)")
        try net.expectClean()
    }

    @Test("A path found to be narrow before a handover does not hinder the wide one after it", arguments: Family.both)
    func handOverFromNarrow(_ family: Family) throws {
        let net = try mapped()
        try narrow(net, link: 1, to: 1300)
        try net.router.run("ip rule add iif r1 lookup 100")
        try net.router.run("ip -6 rule add iif r1 lookup 100")
        try net.router.run("ip route add 10.9.0.0/24 dev r9 table 100 mtu lock 1290")
        try net.router.run("ip -6 route add 2001:db8:9::/64 dev r9 table 100 mtu lock 1290")
        let (client, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4402)
        try transfer(client, server, octets: 400_000)
        #expect(try routeMTU(net.mn, family, to: family.peer).contains("mtu 1290"))
        #expect(try routeMTU(net.cn, family, to: family.own).contains("mtu 1300"))
        try transfer(client, server, octets: 1_000_000) { try net.handOver(family, to: family.cell) }
        #expect(try !routeMTU(net.mn, family, to: family.peer).contains("mtu"))
        try net.expectClean()
    }

    @Test(
        "UDP that must not be fragmented is refused once the path is known, and the socket can ask what fits",
        arguments: Family.both)
    func messageTooLong(_ family: Family) throws {
        let net = try mapped()
        try narrow(net, link: 9, to: 1300)
        let headers = family.isIPv4 ? 28 : 48
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4403)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        // IP_PMTUDISC_DO
        try sender.set(family.level, family.mtuDiscoverOption, 2)
        try sender.connect(family.peer, port: 4403)
        #expect(try sender.get(family.level, family.mtuOption) == 1500)
        // The first meets the router, whose answer is for the next.
        try sender.send(pattern(1500 - headers))
        #expect(eventually { (try? sender.get(family.level, family.mtuOption)) == 1300 })
        #expect(try sender.get(SOL_SOCKET, SO_ERROR) == EMSGSIZE)
        let tooLong = #expect(throws: ShellError.self) { try sender.send(pattern(1301 - headers)) }
        #expect(tooLong?.description.contains("too long") == true, "\(tooLong?.description ?? "")")
        let fitting = pattern(1300 - headers)
        try sender.send(fitting)
        #expect(try receiver.receiveFrom().octets == fitting)
        try net.expectClean()
    }
}

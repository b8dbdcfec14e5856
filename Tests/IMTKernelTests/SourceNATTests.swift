import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel

/// From a HoA to hosts that know nothing of MAT, and back. Here cn is such a host: mn alone runs the kernel side, see Topology
/// for the drawing.
@Suite("Source NAT", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct SourceNATTests {
    /// mn has found out that cn's MoA is a plain address.
    private func plain(_ family: Family, before start: (Host) throws -> Void = { _ in }) throws -> Topology {
        let net = try Topology()
        try start(net.mn)
        try net.setOffloads(false)
        try net.unlimitErrors()
        try net.mn.start(Topology.mnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.mn.ask { try $0.commit([.setPlain(family.far, lifetime: .seconds(60))]) }
        return net
    }

    private func narrow(_ net: Topology) throws {
        try net.router.run("ip route replace 10.9.0.0/24 dev r9 src 10.9.0.1 mtu lock 1300")
        try net.router.run("ip -6 route replace 2001:db8:9::/64 dev r9 metric 10 mtu lock 1300")
    }

    @Test("TCP from the HoA reaches a plain host from the MoA, both ways, also over a narrow path", arguments: Family.both)
    func tcp(_ family: Family) throws {
        let net = try plain(family)
        try narrow(net)
        let tap = try WireTap(net.router)
        let listener = try TestSocket(net.cn.namespace, TestSocket.stream, family)
        try listener.bind(family.unspecified, port: 4600)
        try listener.listen()
        let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        try client.bind(family.own, port: 0)
        try client.connect(family.far, port: 4600)
        let server = try listener.accept()
        let (up, down) = (pattern(200_000), pattern(200_000, seed: 5))
        let work = [BackgroundWork { try client.send(up) }, BackgroundWork { try server.send(down) }]
        let reader = BackgroundWork { try expect(client, toReceive: down) }
        #expect(try server.receive(up.count) == up)
        for each in work + [reader] { try each.wait() }
        #expect(try net.cn.namespace.run("ss -Htn state established").contains("\(family.wlan)"))
        // The narrow link's complaint reached the socket behind the NAT.
        #expect(try client.get(family.level, family.mtuOption) == 1300)
        try net.expectClean(tap.take())
    }

    @Test(
        "Where the host's own firewall tracks connections, the very first flow from a HoA to a plain host leaves from the MoA, and is answered",
        arguments: Family.both)
    func firstBehindFirewall(_ family: Family) throws {
        let net = try plain(family) { host in
            for rule in [
                "table inet filter", "chain inet filter output '{ type filter hook output priority 0; policy drop; }'",
                "rule inet filter output meta l4proto icmpv6 accept", "rule inet filter output ct state new,established accept",
            ] { try host.namespace.run("nft add \(rule)") }
        }
        let tap = try WireTap(net.router)
        let server = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try server.bind(family.far, port: 4605)
        let listener = try TestSocket(net.cn.namespace, TestSocket.stream, family)
        try listener.bind(family.far, port: 4606)
        try listener.listen()
        let client = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try client.bind(family.own, port: 4607)
        for octet in [UInt8(1), 2] {
            try client.send([octet], to: family.far, port: 4605)
            let got = try server.receiveFrom()
            #expect(got.octets == [octet] && got.source.address == family.wlan)
            try server.send([octet, octet], to: got.source.address, port: got.source.port)
            #expect(try client.receive(2) == [octet, octet])
        }
        let connection = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        try connection.bind(family.own, port: 0)
        try connection.connect(family.far, port: 4606)
        try connection.send([3])
        #expect(try listener.accept().receive(1) == [3])
        try net.expectClean(tap.take())
    }

    @Test(
        "A first datagram that is larger than the link waits for source NAT and arrives whole", arguments: Family.both,
        [1453, 1473, 5000, 60_000])
    func largeFirst(_ family: Family, count: Int) throws {
        let net = try plain(family)
        let tap = try WireTap(net.router)
        let server = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try server.bind(family.far, port: 4601)
        let client = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try client.bind(family.own, port: 4602)
        let data = pattern(count)
        try client.send(data, to: family.far, port: 4601)
        let got = try server.receiveFrom()
        #expect(got.octets == data && got.source.address == family.wlan)
        try net.expectClean(tap.take())
    }

    @Test(
        "UDP and ping from the HoA are answered, and a connected socket hears of a closed port and of what doesn't fit",
        arguments: Family.both)
    func udpAndPing(_ family: Family) throws {
        let net = try plain(family)
        let tap = try WireTap(net.router)
        let server = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try server.bind(family.far, port: 4601)
        let client = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try client.bind(family.own, port: 4602)
        for data in [pattern(10), pattern(5000)] {
            try client.send(data, to: family.far, port: 4601)
            let got = try server.receiveFrom()
            #expect(got.octets == data && got.source.address == family.wlan)
            try server.send(data, to: got.source.address, port: got.source.port)
            #expect(try client.receiveFrom().octets == data)
        }
        for size in [56, 3000] {
            let ping = net.mn.namespace.attempt("ping -n -c 2 -i 0.05 -W 1 -s \(size) -I \(family.own) \(family.far)")
            #expect(ping.status == 0, "\(ping.output)")
        }
        try client.connect(family.far, port: 4603)
        try client.send([1])
        let refused = #expect(throws: ShellError.self) { try client.receive(1) }
        #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")

        try narrow(net)
        try client.set(family.level, family.mtuDiscoverOption, 2)
        try client.connect(family.far, port: 4601)
        try client.send(pattern(1400))
        #expect(eventually { (try? client.get(family.level, family.mtuOption)) == 1300 })
        #expect(try client.get(SOL_SOCKET, SO_ERROR) == EMSGSIZE)
        try net.expectClean(tap.take())
    }

    @Test("A trace of the route from the HoA shows each hop, and quotes the HoA", arguments: Family.both)
    func trace(_ family: Family) throws {
        let net = try plain(family)
        let errors = try TestSocket(net.mn.namespace, TestSocket.raw, family, protocolNumber: family.icmp)
        for hops in [Int32(1), 2] {
            let probe = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            try probe.bind(family.own, port: 0)
            try probe.set(family.level, family.hopLimitOption, hops)
            try probe.send(pattern(40), to: family.far, port: 33_434)
            let answer = try receiveError(errors, family)
            #expect(answer.from == (hops == 1 ? family.nearRouter : family.far))
            #expect(answer.quote.source == family.own && answer.quote.destination == family.far)
        }
        let refused = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        try refused.bind(family.own, port: 0)
        let failed = #expect(throws: ShellError.self) { try refused.connect(family.far, port: 4604) }
        #expect(failed?.description.contains("refused") == true, "\(failed?.description ?? "")")
        try net.expectClean()
    }

    @Test("Raw protocols from the HoA reach a plain host from the MoA", arguments: Family.both)
    func rawProtocol(_ family: Family) throws {
        let net = try plain(family)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.raw, family, protocolNumber: 253)
        let sender = try TestSocket(net.mn.namespace, TestSocket.raw, family, protocolNumber: 253)
        try sender.bind(family.own, port: 0)
        try sender.send(pattern(40), to: family.far, port: 0)
        let got = try receiver.receiveFrom()
        #expect(got.source.address == family.wlan && got.octets.suffix(40).elementsEqual(pattern(40)))
        try receiver.send(pattern(41), to: family.wlan, port: 0)
        #expect(try sender.receiveFrom().octets.suffix(41).elementsEqual(pattern(41)))
        try net.expectClean()
    }
}

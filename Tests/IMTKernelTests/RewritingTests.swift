import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Direct peers' packets rewritten by programs at the links (`data-plane: bpf`), beside nftables: see Topology for the drawing. All other suites run
/// with this data plane too: MAT_TEST_DATA_PLANE=bpf.
@Suite("Rewriting by programs", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct RewritingTests {
    private let programs: ProgramMount
    private let net: Topology

    init() throws {
        programs = try ProgramMount()
        net = try Topology()
    }

    private func placed(_ configuration: IMTConfiguration) -> IMTConfiguration {
        var configuration = configuration
        configuration.dataPlane = .bpf
        configuration.programDirectory = programs.path + "/mat"
        return configuration
    }

    private func startMobile() throws {
        try net.mn.start(placed(Topology.mnConfiguration))
        try net.mn.useLocators(on: "wlan", "cell")
        #expect(try net.mn.ask { $0.rewritesInPrograms }, "\(net.mn.warnings)")
    }

    private func startBoth() throws {
        try startMobile()
        try net.cn.start(placed(Topology.cnConfiguration))
        try net.cn.useLocators(on: "eth0")
        try net.mapEachOther()
    }

    /// What the programs alone have rewritten at mn.
    private func rewritten(_ family: Family) throws -> PeerCounters {
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        return try net.mn.ask { $0.forwarding?.rewriting?.counts(of: pair) } ?? PeerCounters()
    }

    private func talk(_ client: TestSocket, _ server: TestSocket, _ data: [UInt8] = pattern(60_000)) throws {
        for (from, to) in [(client, server), (server, client)] {
            try expect(to, toReceive: data, from: from)
        }
    }

    @Test("TCP and datagrams of each size arrive through a handover, a crash and its successor, and are counted", arguments: Family.both)
    func handover(_ family: Family) throws {
        try startBoth()
        let (client, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4800)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4801)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        func all() throws {
            try talk(client, server)
            for count in [1, 1400, 5000, 60_000] {
                let data = pattern(count)
                try sender.send(data, to: family.peer, port: 4801)
                let got = try receiver.receiveFrom()
                #expect(got.octets == data && got.source.address == family.own)
                try receiver.send(data, to: got.source.address, port: got.source.port)
                #expect(try sender.receive(count) == data)
            }
        }
        let tap = try WireTap(net.router)
        try all()
        let first = try rewritten(family)
        // What comes in pieces is nftables'.
        #expect(first.octetsOut > 120_000 && first.octetsIn > 60_000, "\(first)")
        try net.handOver(family, to: family.cell)
        try all()
        net.mn.finish(leaving: true)
        try all()
        let adopted = try net.mn.start(placed(Topology.mnConfiguration))
        #expect(adopted.adopted)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.handOver(family, to: family.wlan)
        try all()
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        let (last, told) = (try rewritten(family), try net.mn.ask { try $0.peerCounters() }[pair])
        #expect(last.octetsOut > 4 * 120_000 && told.map { $0.octetsOut >= last.octetsOut } == true, "\(last) \(String(describing: told))")
        // Nobody listens there: the error finds the socket that it is about, though it quotes a packet that a program has rewritten.
        let refused = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try refused.connect(family.peer, port: 4802)
        try refused.send([1])
        let failure = #expect(throws: ShellError.self) { try refused.receive(1) }
        #expect(failure?.description.contains("refused") == true, "\(failure?.description ?? "")")
        try net.expectClean(tap.take())
    }

    @Test("The first packet from a HoA to a plain host leaves from the MoA, by source NAT that is not there before", arguments: Family.both)
    func plain(_ family: Family) throws {
        // cn is a host that knows nothing of MAT.
        try startMobile()
        try net.mn.ask { try $0.commit([.setPlain(family.far, lifetime: .seconds(60))]) }
        let tap = try WireTap(net.router)
        let server = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try server.bind(family.far, port: 4803)
        let client = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try client.bind(family.own, port: 4804)
        for data in [pattern(10), pattern(5000)] {
            try client.send(data, to: family.far, port: 4803)
            let got = try server.receiveFrom()
            #expect(got.octets == data && got.source.address == family.wlan)
            try server.send(data, to: got.source.address, port: got.source.port)
            #expect(try client.receive(data.count) == data)
        }
        #expect(try rewritten(family) == PeerCounters())
        try net.expectClean(tap.take())
    }

    @Test("A node at home whose address is gone is not reached by strangers past the agent, before and after that has heard", arguments: Family.both)
    func awayFromHome(_ family: Family) throws {
        try startMobile()
        let home = HomeAddress(family.far)
        try net.cn.start(placed(IMTConfiguration(homeAddresses: [home])))
        try net.cn.useLocators(on: "eth0")
        try net.mapAtHome(family)
        let (client, server, _) = try connectTCP(net, to: "\(family.far)", port: 4805)
        try talk(client, server)
        let listener = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try listener.bind(family.unspecified, port: 4806)
        listener.setTimeout(seconds: 0.3)
        try net.cn.namespace.run("ip addr del \(family.far)/\(family.isIPv4 ? 24 : 64) dev eth0")
        #expect(eventually { (try? net.cn.ask { $0.tables.model.homes.contains(family.far) }) == true })
        let stranger = try TestSocket(net.router, TestSocket.datagram, family)
        try stranger.bind(family.farRouter, port: 4807)
        for hasHeard in [false, true] {
            if hasHeard { try net.cn.ask { try $0.commit([.removeOwn(MobileAddress(family.far))]) } }
            #expect(try net.cn.ask { $0.tables.model.homesAway.isEmpty })
            _ = net.cn.takeInbound()
            try stranger.send([9], to: family.far, port: 4806)
            #expect(eventually { !net.cn.takeInbound().isEmpty }, "asked about, heard: \(hasHeard)")
            #expect(throws: ShellError.self, "not seen by the socket") { try listener.receive(1) }
        }
    }

    @Test("Where the kernel takes no programs nftables does it all, and the log says why")
    func refused() throws {
        var configuration = placed(Topology.mnConfiguration)
        configuration.programDirectory = "/tmp/imtk-none"
        try net.mn.start(configuration)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.cn.start(Topology.cnConfiguration)
        try net.cn.useLocators(on: "eth0")
        try net.mapEachOther()
        #expect(net.mn.warnings.filter { $0.contains("nftables rewrites them") && $0.contains("mount -t bpf") }.count == 1, "\(net.mn.warnings)")
        #expect(try net.mn.ask { !$0.rewritesInPrograms })
        let (client, server, _) = try connectTCP(net, to: "\(Family.both[0].peer)", port: 4808)
        try talk(client, server)
        try net.expectClean()
    }
}

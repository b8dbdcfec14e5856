import MATControl
import MATSignal
import Testing

@testable import MATCommand

/// What `mat explain` reads and prints.
@Suite("mat explain") struct ExplainTests {
    private func end(_ text: String, _ port: UInt16) throws -> Endpoint { Endpoint(try #require(IPAddress(text)), port: port) }

    @Test("Addresses, processes, sockets as people and as ss write them, and names are told apart; the rest is refused")
    func targets() throws {
        #expect(ExplainTarget.parse(["192.0.2.10"]) == .address(try #require(IPAddress("192.0.2.10"))))
        #expect(ExplainTarget.parse(["2001:db8::10"]) == .address(try #require(IPAddress("2001:db8::10"))))
        #expect(ExplainTarget.parse(["1234"]) == .process(1234))
        #expect(ExplainTarget.parse(["srv-1.example.net"]) == .name("srv-1.example.net"))
        #expect(ExplainTarget.parse(["[2001:db8::1]:22"]) == .end(try end("2001:db8::1", 22)))
        let socket = ExplainTarget.socket(local: try end("192.0.2.10", 22), remote: try end("198.51.100.20", 51234))
        #expect(ExplainTarget.parse(["192.0.2.10:22-198.51.100.20:51234"]) == socket)
        #expect(ExplainTarget.parse(["tcp ESTAB 0 36 192.0.2.10%wlan0:22 198.51.100.20:51234 users:((\"sshd\",pid=7,fd=4))"]) == socket)
        #expect(ExplainTarget.parse(["ESTAB", "0", "0", "[::ffff:192.0.2.10]:22", "[::ffff:198.51.100.20]:51234"]) == socket)
        #expect(ExplainTarget.parse(["LISTEN", "0", "128", "0.0.0.0:22", "0.0.0.0:*"]) == .end(try end("0.0.0.0", 22)))
        let six = ExplainTarget.socket(local: try end("2001:db8::1", 22), remote: try end("2001:db8::2", 5))
        #expect(ExplainTarget.parse(["[2001:db8::1]:22-[2001:db8::2]:5"]) == six)
        for words in [[], ["0"], ["-5"], ["192.0.2.300/24"], ["192.0.2.10:22", "x"], ["ESTAB 0 0 192.0.2.10:ssh 198.51.100.20:51234"], ["a b"]] {
            #expect(ExplainTarget.parse(words) == nil, "\(words)")
        }
        #expect(throws: (any Error).self) { try MatCommand.parseAsRoot(["explain", "192.0.2.1/24"]) }
    }

    @Test("Rows of /proc/net are read in both families, mapped addresses as IPv4, and what is no row is passed over")
    func table() throws {
        let four = """
              sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
               0: 0A0200C0:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
               1: 0A0200C0:0016 146433C6:C822 01 00000000:00000000 02:000A7214 00000000     0        0 4712 4 0000000000000000 20 4 30 10 -1
               2: nonsense
            """
        let sockets = HostSocket.parse(four, .tcp)
        #expect(
            sockets == [
                HostSocket(transport: .tcp, state: "LISTEN", local: try end("192.0.2.10", 22), remote: nil, inode: 4711),
                HostSocket(transport: .tcp, state: "ESTAB", local: try end("192.0.2.10", 22), remote: try end("198.51.100.20", 51234), inode: 4712),
            ])
        let six = """
               0: 0000000000000000FFFF00000A0200C0:0016 0000000000000000FFFF0000146433C6:C822 01 0:0 02:0 0 0 0 4713 4
               1: B80D0120000000000000000010000000:0016 B80D0120000000000000000020000000:0050 08 0:0 02:0 0 0 0 4714 4
            """
        let others = HostSocket.parse(six, .tcp)
        #expect(others.map(\.local) == [try end("192.0.2.10", 22), try end("2001:db8::10", 22)])
        #expect(others.map(\.state) == ["ESTAB", "CLOSE-WAIT"])
        #expect(try others.map(\.remote) == [end("198.51.100.20", 51234), end("2001:db8::20", 80)])
    }

    private static func traffic(_ way: TrafficReport.Way, _ cause: TrafficReport.Cause, _ survives: TrafficReport.Survival, _ text: String)
        -> TrafficReport
    {
        TrafficReport(
            local: "192.0.2.10", remote: "198.51.100.20", way: way, cause: cause, text: text, survives: survives,
            survivalReason: survives == .perhaps ? "192.0.2.10 is not registered yet" : nil, remedy: way == .plain ? "do this" : nil, peer: nil)
    }

    private static let peer = PeerReport(
        home: "198.51.100.20", ownHome: "192.0.2.10", path: .direct, locator: "203.0.113.20", ownLocator: "203.0.113.10", interface: "wlan0",
        locators: ["203.0.113.20"], confirmed: true, proven: true, ageMilliseconds: 9_000, refreshedAgoMilliseconds: 1_000, switches: 0,
        detourMilliseconds: nil,
        chosenInterface: nil, packetsOut: 1, packetsIn: 1, octetsOut: 1, octetsIn: 1, problem: nil, standing: .mapped, standingReason: nil)

    private func report(_ traffic: [TrafficReport]) throws -> ExplainReport {
        let socket = HostSocket(
            transport: .tcp, state: "ESTAB", local: try end("192.0.2.10", 22), remote: try end("198.51.100.20", 51234), inode: 1)
        return ExplainReport(
            process: nil, homes: ["192.0.2.10"],
            conversations: traffic.map { ExplainReport.Conversation(socket: ExplainReport.Socket(socket), traffic: $0) }, waiting: [], note: nil)
    }

    @Test("One conversation is told in full: mapped or plain, by which path, whether it survives, what to do")
    func one() throws {
        var mapped = Self.traffic(.mapped, .peer, .yes, "it is a MAT node, and each end knows where the other is")
        mapped.peer = Self.peer
        let good = try report([mapped])
        #expect(
            ExplainText.text(good) == """
                192.0.2.10:22 <-> 198.51.100.20:51234 (tcp, ESTAB)
                  mapped    it is a MAT node, and each end knows where the other is
                  path      direct to 203.0.113.20 from 203.0.113.10 (wlan0)
                  survives  yes: it goes on when either end moves

                """)
        #expect(good.survives)
        let bad = try report([Self.traffic(.plain, .ownAddress, .no, "its own address is 203.0.113.10 of wlan0, which is not a home address")])
        let text = ExplainText.text(bad)
        #expect(
            text.contains("  plain     its own address is 203.0.113.10") && text.contains("survives  no: it ends when this host loses 192.0.2.10"))
        #expect(text.contains("remedy    do this") && !bad.survives)
        #expect(ExplainText.text(try report([Self.traffic(.mapped, .peer, .perhaps, "x")])).contains("perhaps not: 192.0.2.10 is not registered yet"))
    }

    @Test("A process's sockets are a table of at most 80 columns with the reasons below, each once, and those that wait say what comes")
    func several() throws {
        var report = try report([
            Self.traffic(.mapped, .peer, .yes, "x"), Self.traffic(.plain, .noServers, .no, "it is a plain host"),
            Self.traffic(.plain, .noServers, .no, "it is a plain host"),
        ])
        report.process = ExplainReport.Process(id: 7, name: "sshd")
        let homes = [try #require(IPPrefix("192.0.2.10/32"))]
        for address in ["0.0.0.0", "192.0.2.10", "127.0.0.1", "203.0.113.10"] {
            let socket = HostSocket(transport: .tcp, state: "LISTEN", local: try end(address, 22), remote: nil, inode: 2)
            report.waiting.append(ExplainReport.Waiting(socket, homes: homes))
        }
        #expect(report.waiting.map(\.reach) == [.all, .homes, .thisHost, .plain])
        let text = ExplainText.text(report)
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines[0] == "Process 7 (sshd)" && lines.allSatisfy { $0.count <= 80 }, "\(text)")
        #expect(lines.count { $0 == "198.51.100.20: it is a plain host" } == 1 && lines.count { $0 == "remedy: do this" } == 1)
        #expect(text.contains("mapped to 192.0.2.10, else plain") && text.contains("that is no home address"))
        #expect(!report.survives)
    }
}

import Foundation
import Testing

/// The main job, with real daemons: conversations between HoAs survive that the node moves.
@Suite("Handover in network namespaces", .serialized, .lab("hand"))
struct HandoverTests {
    static let families: [(String, String, String)] = [("-4", "198.51.100.20", "192.0.2.10"), ("-6", "2001:db8:20::20", "2001:db8:10::10")]

    @Test("The first packet to a name is not lost, in both families and directions")
    func firstContact() throws {
        let lab = try Lab.shared
        for (family, cn, mn) in Self.families {
            let there = try lab.on("mn", "ping", family, "-c", "3", "-i", "0.2", "-W", "2", "cn.mat.example")
            #expect(there.text.contains(" 0% packet loss"), "\(there.text)")
            let back = try lab.on("cn", "ping", family, "-c", "3", "-i", "0.2", "-W", "2", mn)
            #expect(back.text.contains(" 0% packet loss"), "\(back.text)")
            let peers = try lab.peers("mn")
            let peer = try #require(peers.first { $0["home"] as? String == cn })
            #expect(peer["ownHome"] as? String == mn)
            #expect(peer["locator"] as? String == cn, "the CN is at home: its MoA is its HoA")
            #expect(peer["ownLocator"] as? String != mn)
        }
    }

    @Test("A plain host is reached from the HoA's owner, and reaches a public service of the CN")
    func plainHosts() throws {
        let lab = try Lab.shared
        for (family, address) in [("-4", "203.0.113.200"), ("-6", "2001:db8:99::200")] {
            let out = try lab.on("mn", "ping", family, "-c", "3", "-i", "0.2", "-W", "2", address)
            #expect(out.text.contains(" 0% packet loss"), "\(out.text)")
            let service = try lab.on("plain", "ping", family, "-c", "3", "-i", "0.2", "-W", "2", "cn.mat.example")
            #expect(service.text.contains(" 0% packet loss"), "\(service.text)")
        }
    }

    @Test("Ping, TCP, UDP and an interactive session go on through 20 handovers with overlap: nothing lost, reset or stalled")
    func twentyHandoversWithOverlap() throws {
        let lab = try Lab.shared
        let session = try Session(lab)
        var pings: [Background] = []
        var transfers: [Background] = []
        for (index, (family, cn, mn)) in Self.families.enumerated() {
            _ = try lab.start("cn", "iperf3", "-s", "-p", "\(5300 + index)")
            _ = try lab.start("cn", "iperf3", "-s", "-p", "\(5310 + index)")
            try lab.wait("iperf3 listens") { try lab.shell("cn", "ss -ltn").text.contains(":\(5310 + index)") }
            transfers.append(
                try lab.start("mn", "iperf3", family, "-c", cn, "-p", "\(5300 + index)", "-t", "600", "-b", "20M", "-i", "1", "--forceflush"))
            transfers.append(
                try lab.start("mn", "iperf3", family, "-c", cn, "-p", "\(5310 + index)", "-t", "600", "-b", "5M", "-R", "-i", "1", "--forceflush"))
            pings.append(try lab.start("mn", "ping", "-D", family, "-i", "0.01", cn))
            pings.append(try lab.start("cn", "ping", "-D", family, "-i", "0.01", mn))
        }
        try lab.wait("all transfers run") { transfers.allSatisfy { $0.text.contains("sec") } }
        for round in 0..<20 {
            try lab.handOverWithOverlap("mn", to: round.isMultiple(of: 2) ? "cellular" : "wlan")
            try session.check()
        }
        for ping in pings {
            let echoes = Echoes(try ping.interrupt().text)
            #expect(echoes.isWhole && echoes.sentCount > 500, "\(echoes)\n\(lab.log("mn"))\n\(lab.log("cn"))")
        }
        for transfer in transfers { try transfer.endFlowing() }
        try session.end()
    }

    @Test("1 ms probes, both directions and families, lose nothing and see no gap over 20 ms through handovers with overlap")
    func probes() throws {
        let lab = try Lab.shared
        var ends: [(String, Background)] = []
        for (family, cn, _) in Self.families {
            // Known to each other first: what starting to communicate costs is another test's subject.
            _ = try lab.on("mn", "ping", family, "-c", "1", cn)
            let port = "700\(family.dropFirst())"
            let log = "/run/\(lab.name)/probe\(family)"
            ends.append(("mn -> cn \(family)", try lab.start("cn", "mat-probe", "stream", "--listen", port, family, "--log", log + "-cn.log")))
            try lab.wait("mat-probe listens") { try lab.shell("cn", "ss -lun").text.contains(":\(port)") }
            ends.append(
                (
                    "cn -> mn \(family)",
                    try lab.start("mn", "mat-probe", "stream", "--connect", cn, port, family, "--seconds", "14", "--log", log + "-mn.log")
                ))
        }
        for round in 0..<4 { try lab.handOverWithOverlap("mn", to: round.isMultiple(of: 2) ? "cellular" : "wlan") }
        for (direction, end) in ends {
            let output = try end.wait(seconds: 60)
            let line = try #require(output.text.split(separator: "\n").last { $0.hasPrefix("{") }, "\(direction): \(output.text)")
            let summary = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            let inbound = try #require(summary?["inbound"] as? [String: Any], "\(direction): \(line)")
            #expect(inbound["received"] as? Int ?? 0 > 10_000, "\(direction): \(line)")
            #expect(inbound["lost"] as? Int == 0, "\(direction): \(line)")
            #expect(inbound["largestNetworkGapMilliseconds"] as? Double ?? .infinity <= 20, "\(direction): \(line)")
        }
    }

    @Test("Without overlap connections survive, and go on from the new address")
    func withoutOverlap() throws {
        let lab = try Lab.shared
        let session = try Session(lab)
        for round in 0..<4 {
            try lab.handOverWithoutOverlap("mn", to: round.isMultiple(of: 2) ? "cellular" : "wlan")
            try session.check()
            for (family, cn, _) in Self.families {
                let ping = try lab.on("mn", "ping", family, "-c", "2", "-i", "0.2", "-W", "1", cn)
                #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
            }
        }
        try session.end()
    }

    @Test("Both nodes move at once, and still find each other")
    func simultaneous() throws {
        let lab = try Lab.shared
        for (family, _, _) in Self.families {
            let ping = try lab.on("mn", "ping", family, "-c", "2", "-i", "0.2", "-W", "2", "mn2.mat.example")
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        }
        for network in ["cellular", "wlan"] {
            let other = network == "wlan" ? "cellular" : "wlan"
            for node in ["mn", "mn2"] { try lab.lab("detach", node, other) }
            for node in ["mn", "mn2"] { try lab.lab("attach", node, network) }
            for (family, _, _) in Self.families {
                try lab.wait("\(family) works again after both moved to \(network)", seconds: 10) {
                    try lab.on("mn", "ping", family, "-c", "1", "-W", "1", "mn2.mat.example").status == 0
                }
            }
        }
    }
}

/// An interactive session over TCP between HoAs, in both families: each line is echoed by the other end.
final class Session {
    private let lab: Lab
    private let server: Background
    private var clients: [Background] = []
    private let directory: URL
    private var lines = 0

    init(_ lab: Lab) throws {
        self.lab = lab
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("mat-session-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        server = try lab.start("cn", "socat", "TCP6-LISTEN:7007,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        try lab.wait("the session's server listens") { try lab.shell("cn", "ss -ltn").text.contains(":7007") }
        for address in ["198.51.100.20", "[2001:db8:20::20]"] {
            let input = directory.appendingPathComponent("in\(clients.count)").path
            guard mkfifo(input, 0o600) == 0 else { throw Lab.Failure(description: "mkfifo \(input)") }
            // A writer that stays keeps the session open between lines.
            clients.append(try lab.start("mn", "/bin/bash", "-c", "exec 3<>\(input); exec socat -t 60 - TCP:\(address):7007 <&3"))
        }
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    /// Types a line and waits for its echo.
    func check() throws {
        lines += 1
        for (index, client) in clients.enumerated() {
            let handle = try FileHandle(forWritingTo: directory.appendingPathComponent("in\(index)"))
            try handle.write(contentsOf: Data("line \(lines)\n".utf8))
            try handle.close()
            try lab.wait("session \(index) echoes line \(lines) (it said: \(client.text))", seconds: 5) { client.text.contains("line \(lines)\n") }
        }
    }

    func end() throws {
        for client in clients {
            #expect(client.isRunning, "the session ended: \(client.text)")
            client.terminate()
        }
        server.terminate()
    }
}

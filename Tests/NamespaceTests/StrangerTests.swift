import Foundation
import Glibc
import Testing

/// Packets from addresses that the CN does not know, with real daemons: plain clients notice nothing, and a peer that moved unheard of
/// is never answered by a reset, whatever is lost, stopped or flooded.
@Suite("Unknown sources in network namespaces", .serialized, .lab("strange"))
struct StrangerTests {
    static let families: [(isIPv4: Bool, cn: String, mn: String)] = [
        (true, "198.51.100.20", "192.0.2.10"), (false, "2001:db8:20::20", "2001:db8:10::10"),
    ]

    private func meet(_ lab: Lab) throws {
        for (isIPv4, cn, _) in Self.families {
            let ping = try lab.on("mn", "ping", isIPv4 ? "-4" : "-6", "-c", "2", "-i", "0.2", "-W", "2", cn)
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        }
    }

    private func counter(_ lab: Lab, _ name: String) throws -> Int {
        try #require((lab.status("cn")["counters"] as? [String: Any])?[name] as? Int, "no counter \(name)")
    }

    /// Milliseconds of connecting, and of a datagram's way there and back.
    private func times(_ lab: Lab, _ isIPv4: Bool, _ cn: String, port: UInt16, dataMax: Double = 1000) throws -> (tcp: Double, udp: Double) {
        let stream = try HostSocket(lab, "plain", SOCK_STREAM, isIPv4: isIPv4)
        let tcp = try milliseconds { try stream.connect(cn, port: port) }
        // Data in both directions: the handshake's end and what follows it pass as well.
        let echo = try milliseconds {
            try stream.send([7])
            _ = try stream.receive()
        }
        #expect(echo < dataMax, "the first data took \(echo) ms")
        let datagram = try HostSocket(lab, "plain", SOCK_DGRAM, isIPv4: isIPv4)
        try datagram.connect(cn, port: port)
        let udp = try milliseconds {
            try datagram.send([1, 2])
            #expect(try datagram.receive() == [1, 2])
        }
        return (tcp, udp)
    }

    /// A public server on the CN, on this port of TCP and UDP, in both families.
    private func serve(_ lab: Lab, _ port: UInt16, _ body: () throws -> Void) throws {
        let tcp = try lab.start("cn", "socat", "TCP6-LISTEN:\(port),ipv6only=0,reuseaddr,fork", "PIPE")
        let udp = try HostSocket(lab, "cn", SOCK_DGRAM, isIPv4: false)
        try udp.bindAll(port: port)
        udp.echo()
        defer {
            udp.endEcho("::1", port: port)
            tcp.terminate()
        }
        try lab.wait("the server listens") { try lab.shell("cn", "ss -ltn").text.contains(":\(port)") }
        try body()
    }

    @Test("A plain client of a public server waits for a round trip to the IMS, at most once in 5 s, with and without active peers")
    func plainClient() throws {
        let lab = try Lab.shared
        func expectSmooth(_ what: String, port: UInt16) throws {
            try serve(lab, port) {
                for (isIPv4, cn, _) in Self.families {
                    var lines: [(Double, Double)] = []
                    for _ in 0..<4 { lines.append(try times(lab, isIPv4, cn, port: port)) }
                    let shown = lines.map { String(format: "%.2f/%.2f", $0.0, $0.1) }.joined(separator: ", ")
                    print("plain client, \(what), \(isIPv4 ? "IPv4" : "IPv6"): TCP connect/UDP answer in ms, first and later: \(shown)")
                    // Far under the 300 ms and the second of a retransmission that it is about, with room for a loaded machine.
                    #expect(lines.allSatisfy { $0.0 < 150 && $0.1 < 150 }, "\(what): \(shown)")
                }
            }
        }
        try expectSmooth("no peers", port: 7101)
        try lab.lab("stop", "cn")
        try expectSmooth("without MAT", port: 7102)
        try lab.lab("start", "cn")
        try lab.wait("cn is registered") { (try? lab.status("cn"))?["registered"] as? Bool == true }
        try meet(lab)
        try expectSmooth("active peers", port: 7103)
        // Not found is remembered for 5 s. After that it is asked about again, as the address may be anybody's by then.
        Thread.sleep(forTimeInterval: 6)
        let before = try counter(lab, "unknownSourcesAsked")
        try expectSmooth("active peers, 5 s later", port: 7104)
        #expect(try counter(lab, "unknownSourcesAsked") > before)
    }

    /// Drops signalling messages of these types in the router.
    private func losing(_ types: [Int], _ lab: Lab, _ body: () throws -> Void) throws {
        let rules = types.flatMap { type in
            ["ip", "ip6"].map { "meta nfproto \($0 == "ip" ? "ipv4" : "ipv6") udp dport { 6288, 6289 } @th,64,8 \(type) counter drop" }
        }
        let lines =
            ["add table inet lose", "add chain inet lose forward { type filter hook forward priority 0; }"]
            + rules.map { "add rule inet lose forward \($0)" }
        let made = try lab.shell("r", "nft '\(lines.joined(separator: "; "))'")
        guard made.status == 0 else { throw Lab.Failure(description: made.text) }
        defer { _ = try? lab.shell("r", "nft delete table inet lose") }
        try body()
        let counted = try lab.shell("r", "nft list table inet lose").text
        #expect(counted.contains(/packets [1-9]/), "nothing was lost: \(counted)")
    }

    /// Connected at both ends, with no other socket on the CN: unidentified, its datagrams would find none and be refused.
    private struct Conversation {
        let mn: HostSocket, cn: HostSocket

        init(_ lab: Lab, _ family: (isIPv4: Bool, cn: String, mn: String), port: UInt16) throws {
            mn = try HostSocket(lab, "mn", SOCK_DGRAM, isIPv4: family.isIPv4)
            cn = try HostSocket(lab, "cn", SOCK_DGRAM, isIPv4: family.isIPv4)
            try mn.bindAll(port: port)
            try cn.bindAll(port: port)
            try mn.connect(family.cn, port: port)
            try cn.connect(family.mn, port: port)
            for socket in [mn, cn] { socket.setTimeout(0.3) }
        }

        /// Whether a datagram of this number comes through in each direction within the time. A refusal throws.
        func works(_ number: UInt8, seconds: Double) throws -> Bool {
            for (from, to) in [(mn, cn), (cn, mn)] {
                let end = Date().addingTimeInterval(seconds)
                var arrived = false
                while !arrived, Date() < end {
                    try from.send([number])
                    do {
                        while try to.receive() != [number] {}
                        arrived = true
                    } catch  where errno == EAGAIN || errno == EWOULDBLOCK {}
                }
                if !arrived { return false }
            }
            return true
        }
    }

    @Test("TCP and connected UDP survive handovers whose pushes are all lost, and those of which the CN's IMS hears nothing either")
    func pushesLost() throws {
        let lab = try Lab.shared
        try meet(lab)
        let session = try Session(lab)
        try session.check()
        let conversations = try Self.families.map { try Conversation(lab, $0, port: 7200) }
        for conversation in conversations { #expect(try conversation.works(0, seconds: 3)) }
        // MA Notify 9, HA Notify 5.
        for (round, types) in [[9], [9, 5], [9], [9, 5]].enumerated() {
            try losing(types, lab) {
                try lab.handOverWithoutOverlap("mn", to: round.isMultiple(of: 2) ? "cellular" : "wlan")
                for conversation in conversations { #expect(try conversation.works(UInt8(round + 1), seconds: 8), "round \(round)") }
                try session.check()
            }
        }
        try session.end()
    }

    @Test("With the CN's agent stopped for 5 s during a handover nothing is reset or refused, and plain clients get through")
    func agentStopped() throws {
        let lab = try Lab.shared
        try meet(lab)
        let session = try Session(lab)
        try session.check()
        let conversations = try Self.families.map { try Conversation(lab, $0, port: 7210) }
        for conversation in conversations { #expect(try conversation.works(0, seconds: 3)) }
        let stopped = try lab.agent("cn")
        try serve(lab, 7211) {
            kill(stopped, SIGSTOP)
            defer { kill(stopped, SIGCONT) }
            let since = Date()
            try lab.lab("detach", "mn", "wlan")
            try lab.lab("attach", "mn", "cellular")
            for (isIPv4, cn, _) in Self.families {
                // From the router, which nobody asked about yet: the first SYN is held, its repetition passes.
                let client = try HostSocket(lab, "r", SOCK_STREAM, isIPv4: isIPv4)
                let time = try milliseconds { try client.connect(cn, port: 7211) }
                print("plain client while the agent is stopped, \(isIPv4 ? "IPv4" : "IPv6"): connected after \(Int(time)) ms")
                #expect(time < 2500)
                try client.send([1])
                #expect(try client.receive() == [1])
            }
            while Date().timeIntervalSince(since) < 5 {
                // Sent into the void, and answered by nobody: a refusal would throw.
                for conversation in conversations { _ = try conversation.works(1, seconds: 0.1) }
            }
        }
        for conversation in conversations { #expect(try conversation.works(2, seconds: 8)) }
        try session.check()
        try session.end()
        try lab.handOverWithOverlap("mn", to: "wlan")
    }

    @Test("A flood from made-up sources: bounded agent and queries, mapped flows and plain clients go on, and a handover works")
    func flood() throws {
        let lab = try Lab.shared
        try meet(lab)
        let session = try Session(lab)
        try session.check()
        let pid = try lab.agent("cn")
        func usage() throws -> (seconds: Double, kilobytes: Int) {
            let fields = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8).split(separator: ")").last?.split(separator: " ") ?? []
            let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
            let rss = status.firstMatch(of: /VmRSS:\s+(\d+)/).flatMap { Int($0.1) } ?? 0
            return ((Double(fields[11]) ?? 0) / 100 + (Double(fields[12]) ?? 0) / 100, rss)
        }
        try serve(lab, 7300) {
            let flood = try Flood(lab, from: "plain", openPort: 7300)
            let (before, asked) = (try usage(), try counter(lab, "unknownSourcesAsked"))
            let began = Date()
            let pings = try Self.families.map { try lab.start("mn", "ping", $0.isIPv4 ? "-4" : "-6", "-i", "0.02", "-q", $0.cn) }
            flood.start(seconds: 4)
            try session.check()
            Thread.sleep(forTimeInterval: 1)
            let answered = try milliseconds { _ = try lab.status("cn") }
            for (isIPv4, cn, _) in Self.families {
                // A lost packet is sent again: the listener forgets handshakes, and its last segment shares a limit with the flood's.
                let time = try times(lab, isIPv4, cn, port: 7300, dataMax: 5000)
                print("plain client in the flood, \(isIPv4 ? "IPv4" : "IPv6"): TCP \(Int(time.tcp)) ms, UDP \(Int(time.udp)) ms")
            }
            for ping in pings {
                let output = try ping.interrupt()
                let counts = try #require(output.text.firstMatch(of: /(\d+) packets transmitted, (\d+) received/))
                print("mapped ping in the flood: \(counts.0)")
                // The path itself may drop: sender, router and receiver share the machine with the flood.
                #expect((Int(counts.2) ?? 0) * 100 >= (Int(counts.1) ?? 0) * 95, "\(output.text)")
            }
            try lab.handOverWithOverlap("mn", to: "cellular")
            try session.check()
            flood.wait()
            let seconds = Date().timeIntervalSince(began)
            let (after, askedAfter) = (try usage(), try counter(lab, "unknownSourcesAsked"))
            print(
                "flood: \(flood.sent) packets; matd: \(after.seconds - before.seconds) s of CPU in \(seconds) s, \(before.kilobytes) -> \(after.kilobytes) kB, \(askedAfter - asked) asked, mat status in \(Int(answered)) ms"
            )
            #expect(flood.sent > 50_000)
            #expect(Double(askedAfter - asked) <= 90 * (seconds + 1) + 1)
            #expect(after.kilobytes < before.kilobytes + 30_000)
            // Of a debug build, beside whatever else the machine does.
            #expect(after.seconds - before.seconds < seconds * 0.8)
            // That it does not drown can be seen by whoever asks it something.
            #expect(answered < 3000, "mat status took \(Int(answered)) ms in the flood")
        }
        try session.check()
        try session.end()
        try lab.handOverWithOverlap("mn", to: "wlan")
    }
}

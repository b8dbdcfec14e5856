import Foundation
import Testing

/// Starting, stopping, crashing: what the daemons leave behind, and what goes on without them.
@Suite("Daemons' lives in network namespaces", .serialized, .lab("life"))
struct LifeTests {
    private func state(_ host: String) throws -> String {
        // Addresses' remaining lifetimes change by themselves; so do neighbours.
        try Lab.shared.shell(
            host,
            "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | sed 's/expires [0-9]*sec//'; ip -br link | awk '{print $1}'"
        ).text
    }

    @Test("A clean stop of matd leaves no trace, and a start brings all back")
    func cleanStop() throws {
        let lab = try Lab.shared
        for host in ["cn", "mn"] {
            let running = try state(host)
            #expect(running.contains("mat0"))
            try lab.lab("stop", host)
            let stopped = try state(host)
            for trace in ["mat0", "table ip mat", "table ip6 mat", "6288", "192.0.2."] {
                #expect(!stopped.contains(trace), "\(trace) is left:\n\(stopped)")
            }
            try lab.lab("start", host)
            try lab.wait("\(host) is registered again") { try lab.status(host)["registered"] as? Bool == true }
        }
        let ping = try lab.on("mn", "ping", "-c", "3", "-i", "0.2", "-W", "2", "cn.mat.example")
        #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
    }

    @Test("A killed agent leaves traffic flowing, and its restart loses no packet")
    func crash() throws {
        let lab = try Lab.shared
        for (family, cn) in [("-4", "198.51.100.20"), ("-6", "2001:db8:20::20")] {
            _ = try lab.on("mn", "ping", family, "-c", "2", "-i", "0.2", cn)
            let ping = try lab.start("mn", "ping", family, "-i", "0.02", cn)
            for host in ["mn", "cn"] {
                try lab.lab("stop", host, "KILL")
                Thread.sleep(forTimeInterval: 0.5)
                try lab.lab("start", host)
                try lab.wait("\(host) is registered again") { try lab.status(host)["registered"] as? Bool == true }
                Thread.sleep(forTimeInterval: 0.5)
            }
            let echoes = Echoes(try ping.interrupt().text)
            #expect(echoes.isWhole, "\(echoes)\n\(lab.log("mn"))")
        }
    }

    @Test("An agent whose peers are silent sleeps, and a packet to one wakes it")
    func idle() throws {
        let lab = try Lab.shared
        for cn in ["198.51.100.20", "2001:db8:20::20"] { _ = try lab.on("mn", "ping", "-c", "2", "-i", "0.2", cn) }
        // Each time that a thread went to sleep by itself, of all threads.
        func pauses() throws -> Int {
            let text = try lab.shell("mn", "cat /proc/\(lab.agent("mn"))/task/*/status").text
            return text.split(separator: "\n").filter { $0.hasPrefix("voluntary") }.reduce(0) {
                $0 + (Int($1.split(separator: "\t").last ?? "") ?? 0)
            }
        }
        func isTold() throws -> Bool { try lab.shell("mn", "nft list chain ip mat translate").text.contains("\"used\"") }
        try lab.wait("the counts are left to the kernel", seconds: 20, until: isTold)
        let before = try pauses()
        Thread.sleep(forTimeInterval: 5)
        let count = try pauses() - before
        #expect(count <= 4, "\(count) wake-ups in 5 s")
        _ = try lab.on("mn", "ping", "-c", "1", "198.51.100.20")
        try lab.wait("the counts are read again") { try !isTold() }
    }

    @Test("A reload takes what can change and ends no conversation, names what can't, and takes nothing of a file with a mistake")
    func reload() throws {
        let (lab, cn) = (try Lab.shared, "198.51.100.20")
        let file = lab.control("mn").replacingOccurrences(of: "control.sock", with: "matd.yaml")
        let original = try String(contentsOfFile: file, encoding: .utf8)
        let agent = try lab.agent("mn")
        func reload(_ text: String, until line: String) throws {
            let before = lab.log("mn").components(separatedBy: line).count
            try text.write(toFile: file, atomically: true, encoding: .utf8)
            #expect(kill(agent, SIGHUP) == 0)
            try lab.wait("\"\(line)\": \(lab.log("mn").suffix(2000))") { lab.log("mn").components(separatedBy: line).count > before }
        }
        func interfaces() throws -> [String] {
            (try lab.status("mn")["locators"] as? [[String: Any]] ?? []).compactMap { $0["interface"] as? String }
        }
        _ = try lab.on("mn", "ping", "-4", "-c", "2", "-i", "0.2", cn)
        let ping = try lab.start("mn", "ping", "-4", "-i", "0.02", "-q", cn)
        try lab.lab("attach", "mn", "cellular")
        defer {
            try? original.write(toFile: file, atomically: true, encoding: .utf8)
            kill(agent, SIGHUP)
            _ = try? lab.lab("detach", "mn", "cellular")
        }
        try lab.wait("mn has the second link") { try Set(interfaces()).count == 2 }
        let prefer = try #require(original.split(separator: "\n").first { $0.hasPrefix("  prefer: [") })
        let changed =
            original.replacingOccurrences(of: prefer, with: "  prefer: [wwan0, wlan0]").replacingOccurrences(of: ":9289", with: ":9299")
            + "lifetime: 900s\n"
        try reload(changed, until: "counting only after a restart: lifetime\n")
        try lab.wait("it prefers the other link") { try interfaces().first == "wwan0" }
        let get = #"exec 3<>/dev/tcp/127.0.0.1/9299; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"#
        #expect(try lab.shell("mn", get).text.contains("matd_peers"))
        // A mistake, with its line: the rest of the file is taken as little.
        let wrong = changed.replacingOccurrences(of: ":9299", with: ":9309") + "log-levels: info\n"
        try reload(wrong, until: "is not reloaded, and the one before stays in force")
        let line = wrong.split(separator: "\n", omittingEmptySubsequences: false).count - 1
        #expect(lab.log("mn").contains("matd.yaml:\(line)"), "\(lab.log("mn").suffix(1000))")
        #expect(try lab.shell("mn", get).text.contains("matd_peers"))
        // An interface that is in use is ignored from now on.
        let ignoring = changed.replacingOccurrences(of: "  prefer: [wwan0, wlan0]\n  ignore: []", with: "  ignore: [wwan0]")
        try reload(ignoring, until: "the configuration is reloaded")
        try lab.wait("it leaves the link") { try Set(interfaces()) == ["wlan0"] }
        try lab.wait("the peer's traffic leaves by the other") {
            try lab.peers("mn").contains { ($0["home"] as? String) == cn && ($0["ownLocator"] as? String)?.hasPrefix("203.0.113.") == true }
        }
        try reload(original, until: "the configuration is reloaded")
        let output = try ping.interrupt()
        let counts = try #require(output.text.firstMatch(of: /(\d+) packets transmitted, (\d+) received/))
        #expect((Int(counts.1) ?? 0) - (Int(counts.2) ?? 0) <= 25, "\(output.text)")
        #expect(try lab.agent("mn") == agent && kill(agent, 0) == 0)
    }

    /// What Prometheus reads of an agent, by name and labels.
    private func metrics(_ host: String) throws -> [String: Double] {
        let page = try Lab.shared.shell(host, #"exec 3<>/dev/tcp/127.0.0.1/9289; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"#).text
        #expect(page.hasPrefix("HTTP/1.0 200 OK") || page.hasPrefix("HTTP/1.1 200 OK"), "\(page)")
        var values: [String: Double] = [:]
        for line in page.split(whereSeparator: \.isNewline) where line.hasPrefix("matd_") || line.hasPrefix("process_") {
            let parts = line.split(separator: " ")
            values[parts.dropLast().joined(separator: " ")] = parts.last.flatMap { Double($0) }
        }
        return values
    }

    @Test("Prometheus hears of an agent's registration, networks, peers' traffic and handovers")
    func metrics() throws {
        let lab = try Lab.shared
        let cn = "198.51.100.20"
        _ = try lab.on("mn", "ping", "-4", "-c", "1", "-W", "2", cn)
        // While a record is on its way, as after a reload that changed the order of interfaces, it says 0.
        var before: [String: Double] = [:]
        try lab.wait("both home addresses are registered") {
            before = try metrics("mn")
            return before[#"matd_home_registered{home="192.0.2.10"}"#] == 1 && before[#"matd_home_registered{home="2001:db8:10::10"}"#] == 1
        }
        let certificate = try #require(before[#"matd_home_certificate_not_after_seconds{home="192.0.2.10"}"#])
        #expect(certificate > Date().timeIntervalSince1970)
        #expect(try #require(before[#"matd_locators{state="sound"}"#]) >= 2)
        #expect(before[#"matd_locators{state="dead"}"#] == 0 && before[#"matd_peers_troubled{standing="unreachable"}"#] == 0)
        #expect(try #require(before["matd_peers"]) >= 1 && before[#"matd_peers_shown{path="none"}"#] == 0)

        _ = try lab.on("mn", "ping", "-4", "-c", "20", "-i", "0.05", "-W", "2", cn)
        try lab.handOverWithOverlap("mn", to: "cellular")
        let after = try metrics("mn")
        for (direction, least) in [("out", 20.0), ("in", 20.0)] {
            let name = #"matd_peer_packets_total{direction="\#(direction)"}"#
            #expect(try #require(after[name]) - #require(before[name]) >= least, "\(direction)")
        }
        #expect(try #require(after["matd_handovers_total"]) > #require(before["matd_handovers_total"]))
        for (name, value) in before where name.contains("_total") { #expect(try #require(after[name]) >= value, "\(name) went back") }
        try lab.handOverWithOverlap("mn", to: "wlan")
    }

    @Test("An IMS that is killed and restarted has lost nothing")
    func serverCrash() throws {
        let lab = try Lab.shared
        try lab.lab("stop", "ims1", "KILL")
        try lab.lab("start", "ims1")
        // Asked by a stranger to the node, before the node registers again.
        let lookup = try lab.on("plain", "mat", "lookup", "192.0.2.10", "--resolver", "203.0.113.131")
        #expect(lookup.status == 0, "\(lookup.text)")
        try lab.handOverWithOverlap("mn", to: "cellular")
        try lab.handOverWithOverlap("mn", to: "wlan")
        let ping = try lab.on("mn", "ping", "-c", "3", "-i", "0.2", "-W", "2", "cn.mat.example")
        #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
    }
}

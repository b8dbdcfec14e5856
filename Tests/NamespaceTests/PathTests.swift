import Foundation
import Testing

/// Links that are up but dead, with real daemons: the router swallows what a node sends and gets over one of its links.
///
/// ```
///   mn ---- wlan0 --X-- wlan ------+
///    +----- wwan0 ----- cellular --r---- cn, at home            X: blocked, while the link stays up
///   mn2 --- wlan0 ----- wlan ------+
///    +----- wwan0 ----- cellular --+
/// ```
@Suite("Dead paths in network namespaces", .serialized, .lab("path"))
struct PathTests {
    static let families: [(String, String)] = [("-4", "198.51.100.20"), ("-6", "2001:db8:20::20")]

    /// When each echo came back, in seconds.
    private func replies(_ text: String) -> [Double] {
        text.split(separator: "\n").compactMap { line in
            guard line.contains("bytes from"), let match = line.firstMatch(of: /^\[(\d+\.\d+)\]/) else { return nil }
            return Double(match.1)
        }
    }

    private func longestGap(_ text: String) -> Double {
        let times = replies(text)
        return zip(times, times.dropFirst()).map { $1 - $0 }.max() ?? .infinity
    }

    private func locators(_ node: String) throws -> [(interface: String, state: String)] {
        try (Lab.shared.status(node)["locators"] as? [[String: Any]] ?? []).map { ($0["interface"] as? String ?? "", $0["state"] as? String ?? "") }
    }

    /// Both families' traffic of a node leaves over this interface, and both registrations begin with it.
    private func isUsing(_ node: String, _ interface: String) throws -> Bool {
        let status = try Lab.shared.status(node)
        guard status["registered"] as? Bool == true else { return false }
        let peers = status["peers"] as? [[String: Any]] ?? []
        let first = (status["locators"] as? [[String: Any]] ?? []).first?["interface"] as? String
        return !peers.isEmpty && first == interface && peers.allSatisfy { $0["interface"] as? String == interface }
    }

    @Test("Ping and TCP of both families go on within 3 s when the preferred uplink dies, and go back after the hold-down")
    func deadUplink() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "cellular")
        var pings: [Background] = []
        var transfers: [Background] = []
        for (index, (family, cn)) in Self.families.enumerated() {
            let port = "\(5400 + index)"
            _ = try lab.start("cn", "iperf3", "-s", "-p", port)
            try lab.wait("iperf3 listens") { try lab.shell("cn", "ss -ltn").text.contains(":\(port)") }
            pings.append(try lab.start("mn", "ping", family, "-D", "-i", "0.05", cn))
            transfers.append(try lab.start("mn", "iperf3", family, "-c", cn, "-p", port, "-t", "600", "-b", "5M", "-i", "1", "--forceflush"))
        }
        try lab.wait("the second uplink is registered, and all run") {
            // Of both families: the address of IPv6 may need a second solicitation, 4 s later.
            try lab.status("mn")["registered"] as? Bool == true && locators("mn").map(\.interface).sorted() == ["wlan0", "wlan0", "wwan0", "wwan0"]
                && isUsing("mn", "wlan0")
                && transfers.allSatisfy { $0.text.contains("sec") }
        }
        Thread.sleep(forTimeInterval: 1)
        try lab.lab("block", "mn", "wlan")
        try lab.wait("all goes over wwan0", seconds: 5) { try isUsing("mn", "wwan0") }
        Thread.sleep(forTimeInterval: 1)
        #expect(try locators("mn").filter { $0.interface == "wlan0" }.allSatisfy { $0.state == "dead" })
        for ping in pings { #expect(longestGap(ping.text) <= 3, "\(longestGap(ping.text)) s\n\(lab.log("mn"))") }
        let text = try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text
        #expect(text.contains("dead since") && text.contains("checked again in"), "\(text)")

        let before = pings.map { replies($0.text).count }
        try lab.lab("unblock", "mn", "wlan")
        let unblocked = Date()
        try lab.wait("all is back at wlan0", seconds: 15) { try isUsing("mn", "wlan0") }
        #expect(Date().timeIntervalSince(unblocked) >= 3)
        Thread.sleep(forTimeInterval: 0.5)
        for (ping, count) in zip(pings, before) {
            let output = try ping.interrupt()
            let times = replies(output.text).dropFirst(count)
            let gap = zip(times, times.dropFirst()).map { $1 - $0 }.max() ?? .infinity
            #expect(gap <= 0.5, "going back is a handover with overlap: \(gap) s")
        }
        for transfer in transfers {
            let isRunning = transfer.isRunning
            let output = try transfer.interrupt()
            #expect(isRunning, "a connection ended: \(output.text)")
        }
        try lab.lab("detach", "mn", "cellular")
    }

    @Test("When only the way to a peer's first locator is dead, both ends take its second within 3 s, and go back")
    func deadLocator() throws {
        let lab = try Lab.shared
        // From the other network, so that the router is between them.
        try lab.handOverWithOverlap("mn", to: "cellular")
        try lab.lab("attach", "mn2", "cellular")
        let pings = try [("-4", "192.0.2.11"), ("-6", "2001:db8:10::11")].map { try lab.start("mn", "ping", $0.0, "-D", "-i", "0.05", $0.1) }
        func interfaces(_ node: String, _ key: String) throws -> Set<String> {
            try Set(
                lab.peers(node).filter { ["192.0.2.10", "192.0.2.11", "2001:db8:10::10", "2001:db8:10::11"].contains($0["home"] as? String ?? "") }
                    .compactMap { $0[key] as? String })
        }
        try lab.wait("both know each other's places, mn2 at wlan0 first") {
            try Set(locators("mn2").map(\.interface)) == ["wlan0", "wwan0"] && lab.status("mn2")["registered"] as? Bool == true
                && interfaces("mn2", "interface") == ["wlan0"] && lab.peers("mn").filter { ($0["locators"] as? [Any])?.count == 2 }.count == 2
        }
        Thread.sleep(forTimeInterval: 1.5)
        let usual = try interfaces("mn", "locator")
        let block =
            "nft add table inet cut; nft add chain inet cut forward '{ type filter hook forward priority 0; }';"
            + usual.map {
                "nft add rule inet cut forward \($0.contains(":") ? "ip6" : "ip") daddr \($0) drop; nft add rule inet cut forward \($0.contains(":") ? "ip6" : "ip") saddr \($0) meta l4proto != udp drop; nft add rule inet cut forward \($0.contains(":") ? "ip6" : "ip") saddr \($0) udp dport 6289 drop"
            }.joined(separator: ";")
        #expect(try lab.shell("r", block).status == 0)
        try lab.wait("mn sends to the other places", seconds: 5) { try interfaces("mn", "locator").isDisjoint(with: usual) }
        Thread.sleep(forTimeInterval: 1)
        for ping in pings { #expect(longestGap(ping.text) <= 3, "\(longestGap(ping.text)) s\n\(lab.log("mn"))\n\(lab.log("mn2"))") }
        _ = try lab.shell("r", "nft delete table inet cut")
        try lab.wait("mn sends to the usual places again", seconds: 20) { try interfaces("mn", "locator") == usual }
        for ping in pings { _ = try ping.interrupt() }
        try lab.lab("detach", "mn2", "cellular")
        try lab.handOverWithOverlap("mn", to: "wlan")
    }

    @Test("A peer whose agent stands still loses nothing when this node moves with overlap, and follows when the agent goes on")
    func silentAgent() throws {
        let lab = try Lab.shared
        // Segments, which the peer's kernel holds when they come from nowhere it knows; an echo request passes.
        var transfers: [Background] = []
        for (index, (family, cn)) in Self.families.enumerated() {
            let port = "\(5420 + index)"
            _ = try lab.start("cn", "iperf3", "-s", "-p", port)
            try lab.wait("iperf3 listens") { try lab.shell("cn", "ss -ltn").text.contains(":\(port)") }
            transfers.append(try lab.start("mn", "iperf3", family, "-c", cn, "-p", port, "-t", "600", "-b", "5M", "-i", "0.5", "--forceflush"))
        }
        func intervals(_ transfer: Background) -> Int { transfer.text.matches(of: /\d+\.\d+-\d+\.\d+ +sec/).count }
        try lab.wait("cn is reached over wlan0") { try isUsing("mn", "wlan0") && transfers.allSatisfy { intervals($0) > 1 } }
        let agent = try lab.agent("cn")
        kill(agent, SIGSTOP)
        defer { kill(agent, SIGCONT) }
        try lab.lab("attach", "mn", "cellular")
        try lab.wait("both uplinks are listed") {
            try Set(locators("mn").map(\.interface)) == ["wlan0", "wwan0"] && lab.status("mn")["registered"] as? Bool == true
        }
        let before = lab.log("mn").count
        _ = try lab.on("mn", "mat", "handover", "wwan0", "--control", lab.control("mn"))
        try lab.wait("mn is registered at wwan0 first, and cn has acked nothing") {
            let news = lab.log("mn").dropFirst(before)
            return try locators("mn").first?.interface == "wwan0" && Self.families.allSatisfy { news.contains("peer \($0.1) did not ack") }
        }
        let counts = transfers.map(intervals)
        try lab.wait("three seconds pass") { zip(transfers, counts).allSatisfy { intervals($0) >= $1 + 6 } }
        kill(agent, SIGCONT)
        try lab.wait("cn's agent is told again, and traffic follows", seconds: 40) { try isUsing("mn", "wwan0") }
        for transfer in transfers {
            let isRunning = transfer.isRunning
            let output = try transfer.interrupt()
            #expect(isRunning, "a connection ended: \(output.text)")
            // Half seconds after the first; one may be a busy machine's.
            let stalls = output.text.matches(of: /[ ][1-9]\d*\.[05]0-\d+\.[05]0 +sec +0\.00 Bytes/)
            #expect(stalls.count <= 1, "a connection stood still: \(output.text)\n\(lab.log("mn"))")
        }
        _ = try lab.on("mn", "mat", "handover", "--auto", "--control", lab.control("mn"))
        try lab.wait("all is back") { try isUsing("mn", "wlan0") }
        try lab.lab("detach", "mn", "cellular")
    }

    @Test("A preferred uplink before which a translator appears is used, with packets encapsulated, and rewritten again when the translator is gone")
    func translatedUplink() throws {
        let lab = try Lab.shared
        try lab.handOverWithOverlap("mn", to: "cellular")
        let ping = try lab.start("mn", "ping", "-4", "-D", "-i", "0.05", "198.51.100.20")
        let translate =
            "nft 'table ip translate { chain post { type nat hook postrouting priority 100; ip saddr 203.0.113.0/26 ip daddr 203.0.113.132/31 snat to 203.0.113.129; }; }'"
        #expect(try lab.shell("r", translate).status == 0)
        defer { _ = try? lab.shell("r", "nft delete table ip translate") }
        _ = try lab.on("mn", "mat", "handover", "--auto", "--control", lab.control("mn"))
        try lab.lab("attach", "mn", "wlan")
        func path(_ kind: String) throws -> Bool {
            let status = try lab.status("mn")
            let peers = status["peers"] as? [[String: Any]] ?? []
            let homes = status["homes"] as? [[String: Any]] ?? []
            return homes.first { $0["address"] as? String == "192.0.2.10" }?["state"] as? String == "registered"
                && peers.contains {
                    $0["home"] as? String == "198.51.100.20" && $0["interface"] as? String == "wlan0" && $0["path"] as? String == kind
                }
        }
        try lab.wait("packets go encapsulated over wlan0") { try path("encapsulated") }
        let text = try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text
        #expect(text.contains("translated by 203.0.113.129"), "\(text)")
        #expect(try lab.shell("r", "nft delete table ip translate").status == 0)
        // The next refresh of the binding shows it.
        try lab.wait("packets are rewritten again", seconds: 45) { try path("direct") }
        let count = replies(ping.text).count
        try lab.wait("traffic goes on") { replies(ping.text).count > count + 10 }
        let output = try ping.interrupt()
        #expect(longestGap(output.text) < 0.5, "\(longestGap(output.text)) s\n\(lab.log("mn"))")
        try lab.lab("detach", "mn", "cellular")
    }

    @Test(
        "A full tunnel's routing rules take plain traffic, and neither connections with peers nor the registration; a link without default route is shown"
    )
    func fullTunnel() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "cellular")
        // Otherwise the link's end below is no news, and nothing is to be registered.
        try lab.wait("both uplinks are registered in both families") {
            try locators("mn").filter { $0.interface == "wwan0" }.count == 2 && lab.status("mn")["registered"] as? Bool == true
        }
        let pings = try Self.families.map { try lab.start("mn", "ping", $0.0, "-D", "-i", "0.05", $0.1) }
        try lab.wait("cn is reached") { pings.allSatisfy { replies($0.text).count > 5 } }
        let tunnel =
            "ip link add wg0 type veth peer name wg1 && ip link set wg0 up && ip link set wg1 up"
            + ["-4", "-6"].map {
                " && ip \($0) route add default dev wg0 table 51820 && ip \($0) rule add not fwmark 51820 table 51820 && ip \($0) rule add table main suppress_prefixlength 0"
            }.joined()
        #expect(try lab.shell("mn", tunnel).status == 0)
        #expect(try lab.shell("mn", "ip route del default dev wwan0").status == 0)
        try lab.wait("status tells of both") {
            let text = try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text
            return text.contains("not fwmark 51820 lookup 51820") && text.contains("wwan0 has no IPv4 default route")
        }
        let counts = pings.map { replies($0.text).count }
        let registrations = try (lab.status("mn")["counters"] as? [String: Any])?["registrations"] as? Int ?? 0
        try lab.wait("traffic goes on") { zip(pings, counts).allSatisfy { replies($0.text).count > $1 + 20 } }
        // A link goes, which is to be registered.
        try lab.lab("detach", "mn", "cellular")
        try lab.wait("the registration goes on") {
            let status = try lab.status("mn")
            return try isUsing("mn", "wlan0") && (status["counters"] as? [String: Any])?["registrations"] as? Int ?? 0 > registrations
        }
        #expect(try lab.shell("mn", "ip route get 203.0.113.131").text.contains("dev wg0"), "always plain: the tunnel's")
        for ping in pings {
            let output = try ping.interrupt()
            #expect(longestGap(output.text) < 0.5, "\(longestGap(output.text)) s\n\(lab.log("mn"))")
        }
        _ = try lab.shell(
            "mn",
            "for f in -4 -6; do ip $f rule del not fwmark 51820 table 51820; ip $f rule del table main suppress_prefixlength 0; done; ip link del wg0"
        )
    }

    @Test("One peer's traffic can be sent over another interface than the rest, by hand, and back")
    func perPeer() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "cellular")
        for name in ["cn", "plain"] { _ = try lab.on("mn", "ping", "-4", "-c", "1", "-W", "2", "\(name).mat.example") }
        _ = try lab.on("mn", "ping", "-4", "-c", "1", "-W", "2", "mn2.mat.example")
        try lab.wait("the second uplink is registered") {
            try Set(locators("mn").map(\.interface)) == ["wlan0", "wwan0"] && lab.status("mn")["registered"] as? Bool == true
        }
        func interface(_ peer: String) throws -> String? { try lab.peers("mn").first { $0["home"] as? String == peer }?["interface"] as? String }
        let ping = try lab.start("mn", "ping", "-4", "-i", "0.05", "198.51.100.20")
        Thread.sleep(forTimeInterval: 0.5)
        let chosen = try lab.on("mn", "mat", "handover", "wwan0", "--peer", "198.51.100.20", "--control", lab.control("mn"))
        #expect(chosen.status == 0, "\(chosen.text)")
        try lab.wait("cn is reached over wwan0") { try interface("198.51.100.20") == "wwan0" }
        #expect(try interface("192.0.2.11") == "wlan0")
        Thread.sleep(forTimeInterval: 0.5)
        _ = try lab.on("mn", "mat", "handover", "--auto", "--peer", "198.51.100.20", "--control", lab.control("mn"))
        try lab.wait("cn is reached over wlan0 again") { try interface("198.51.100.20") == "wlan0" }
        Thread.sleep(forTimeInterval: 0.3)
        let echoes = Echoes(try ping.interrupt().text)
        #expect(echoes.isWhole, "\(echoes)")
        try lab.lab("detach", "mn", "cellular")
    }
}

import Foundation
import Testing

/// Names that come late, from a process of the node itself, over another link, or not at all; with real daemons and real resolvers.
///
/// ```
///   mn: matd, and dnsmasq at 127.0.0.53 ---- r ---- resolver 203.0.113.131 ---- ns
///                                            X: port 53 dropped here when the DNS is to be silent
/// ```
@Suite("Names in network namespaces", .serialized, .lab("names"))
struct NamesTests {
    /// The node's own /etc/resolv.conf. It is mounted there, so it must stay the same file.
    private func write(_ text: String) throws {
        let path = "/etc/netns/\(try Lab.shared.name)-mn/resolv.conf"
        let handle = try #require(FileHandle(forWritingAtPath: path))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }

    static let remote = "nameserver 203.0.113.131\nnameserver 2001:db8:53::131\n"

    /// Starts mn's agent with the system's resolvers instead of those of its configuration.
    private func restart(resolvConf: String) throws {
        let lab = try Lab.shared
        let path = "/run/\(lab.name)/mn/matd.yaml"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        try text.replacing(/dns:\n  resolvers: .*\n/, with: "").write(toFile: path, atomically: false, encoding: .utf8)
        try lab.lab("stop", "mn")
        try write(resolvConf)
        try lab.lab("start", "mn")
    }

    private func isRegistered() throws -> Bool { try Lab.shared.status("mn")["registered"] as? Bool == true }

    private func statusText() throws -> String { try Lab.shared.on("mn", "mat", "status", "--control", Lab.shared.control("mn")).text }

    private func whileSilent(_ body: (Lab) throws -> Void) throws {
        let lab = try Lab.shared
        let output = try lab.shell(
            "r", "nft 'table inet silence { chain f { type filter hook forward priority 0; udp dport 53 drop; tcp dport 53 drop; }; }'")
        #expect(output.status == 0, "\(output.text)")
        defer { _ = try? lab.shell("r", "nft delete table inet silence") }
        try body(lab)
    }

    @Test(
        "With a resolver on the node itself names resolve, the node registers, and new peers are found",
        arguments: ["203.0.113.131", "2001:db8:53::131"])
    func localResolver(upstream: String) throws {
        let lab = try Lab.shared
        let stub = try lab.start(
            "mn", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
            "--listen-address=127.0.0.53", "--server=\(upstream)", "--pid-file=")
        defer {
            stub.terminate()
            _ = try? stub.wait(seconds: 5)
        }
        try restart(resolvConf: "nameserver 127.0.0.53\n")
        try lab.wait("mn is registered by way of its own resolver", seconds: 5) { try isRegistered() }
        // Within the 2 s after which anything unanswered would be plain.
        let took = try milliseconds {
            let ping = try lab.on("mn", "ping", "-c", "1", "-W", "2", "cn.mat.example")
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)\n\(stub.text)\n\(lab.log("mn"))")
        }
        #expect(took < 1900, "\(took) ms\n\(lab.log("mn"))")
        #expect(try lab.peers("mn").contains { ["198.51.100.20", "2001:db8:20::20"].contains($0["home"] as? String) })
        #expect(try statusText().contains("127.0.0.53"))
        // Ordinary programs' DNS works, over TCP too.
        for option in ["+notcp", "+tcp"] {
            let dig = try lab.on("mn", "dig", "+short", "+time=2", "+tries=1", option, "plain.mat.example", "A")
            #expect(dig.text.contains("203.0.113.200"), "\(dig.text)")
        }
    }

    @Test("resolv.conf that is written a second after the start is taken up at once")
    func lateFile() throws {
        let lab = try Lab.shared
        try restart(resolvConf: "")
        try lab.wait("mn has asked nobody in vain") {
            try (lab.status("mn")["homes"] as? [[String: Any]] ?? []).contains { ($0["problem"] as? String)?.contains("looking up") == true }
        }
        Thread.sleep(forTimeInterval: 1)
        #expect(try !isRegistered())
        try write(Self.remote)
        try lab.wait("mn is registered", seconds: 2) { try isRegistered() }
        #expect(try statusText().contains("203.0.113.131"))
        let dig = try lab.on("mn", "dig", "+short", "+time=1", "+tries=1", "plain.mat.example", "A")
        #expect(dig.text.contains("203.0.113.200"), "\(dig.text)")
    }

    @Test(
        "While the DNS is silent a plain destination is reached after 2 s, once, and shown; one that the configuration names as MAT waits; peers go on"
    )
    func silentDNS() throws {
        let lab = try Lab.shared
        try restart(resolvConf: Self.remote)
        try lab.wait("mn is registered") { try isRegistered() }
        _ = try lab.on("mn", "ping", "-c", "1", "-W", "2", "198.51.100.20")
        try whileSilent { lab in
            for (family, plain) in [("-4", "203.0.113.200"), ("-6", "2001:db8:99::200")] {
                let first = try lab.on("mn", "ping", family, "-c", "1", "-W", "4", plain)
                let times = try #require(first.text.firstMatch(of: /time=(\d+(\.\d+)?) ms/), "\(first.text)\n\(lab.log("mn"))")
                #expect((1900...3900).contains(Double(times.1) ?? 0), "\(first.text)")
                let next = try lab.on("mn", "ping", family, "-c", "2", "-i", "0.2", "-W", "1", plain)
                #expect(next.text.contains(" 0% packet loss"), "\(next.text)")
            }
            let text = try statusText()
            for part in ["203.0.113.200", "2001:db8:99::200", "plain", "except"] { #expect(text.contains(part), "\(text)") }
            let peer = try lab.on("mn", "ping", "-c", "1", "-W", "1", "198.51.100.20")
            #expect(peer.text.contains(" 0% packet loss"), "\(peer.text)")
            // `traffic` of cn lists this one's prefix.
            _ = try lab.on("cn", "ping", "-c", "1", "-W", "3", "192.0.2.99")
            try lab.wait("cn has asked both resolvers, and shows that it knows nothing") {
                let undecided = (try lab.status("cn")["undecided"] as? [String: Any])?["destinations"] as? [[String: Any]] ?? []
                return undecided.contains { $0["address"] as? String == "192.0.2.99" && $0["isPlain"] as? Bool == false }
            }
        }
    }

    @Test("When the preferred uplink is dead but up, names and new peers are found over the one that works")
    func deadDefaultRoute() throws {
        let lab = try Lab.shared
        try restart(resolvConf: Self.remote)
        try lab.lab("attach", "mn", "cellular")
        try lab.wait("mn is registered at both uplinks") {
            let status = try lab.status("mn")
            let links = Set((status["locators"] as? [[String: Any]] ?? []).compactMap { $0["interface"] as? String })
            return status["registered"] as? Bool == true && links == ["wlan0", "wwan0"]
        }
        let ping = try lab.start("mn", "ping", "-i", "0.2", "198.51.100.20")
        try lab.wait("cn is a peer") { try !lab.peers("mn").isEmpty }
        try lab.lab("block", "mn", "wlan")
        defer { _ = try? lab.lab("unblock", "mn", "wlan") }
        try lab.wait("all goes over wwan0", seconds: 8) {
            try (lab.status("mn")["locators"] as? [[String: Any]] ?? []).first?["interface"] as? String == "wwan0"
        }
        // The main table still sends everything to the dead router.
        #expect(try lab.shell("mn", "ip route get 203.0.113.131 mark 0x6288").text.contains("wlan0"))
        // Plain, which it would be after 2 s, nobody would answer: no network routes this address.
        let new = try lab.on("mn", "ping", "-c", "1", "-W", "3", "192.0.2.11")
        #expect(new.text.contains(" 0% packet loss"), "\(new.text)\n\(lab.log("mn"))")
        #expect(try lab.peers("mn").contains { $0["home"] as? String == "192.0.2.11" })
        _ = try ping.interrupt()
    }
}

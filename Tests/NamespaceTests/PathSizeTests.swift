import Foundation
import Testing

/// How large packets in datagrams are, where the path is wide, narrow, or becomes so within a connection. Real links, real TCP.
///
/// ```
///   mn ── home's gateway (NAT) ── r ── cn        the link between gateway and r is made narrow
/// ```
@Suite("The size of packets in datagrams", .serialized, .lab("size"))
struct PathSizeTests {
    static let cn = "198.51.100.20"

    private func mtu(_ lab: Lab, _ host: String, to peer: String) throws -> Int? {
        let route = try lab.on(host, "ip", "route", "get", peer)
        let words = route.text.split(whereSeparator: \.isWhitespace)
        return words.firstIndex(of: "mtu").flatMap { words.indices.contains($0 + 1) ? Int(words[$0 + 1]) : nil }
    }

    /// Makes the link between the home's gateway and the internet carry so much each way.
    private func narrow(_ lab: Lab, to octets: Int, tells: Bool = true) throws {
        let link = try lab.shell("home", "ip -o -4 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'").text.trimmingCharacters(
            in: .whitespacesAndNewlines)
        let far = try lab.shell("r", "ip -o link | grep -o '^[0-9]*: [^:@]*home[^:@]*' | sed 's/.*: //' | head -1").text.trimmingCharacters(
            in: .whitespacesAndNewlines)
        for (host, device) in [("home", link), ("r", far)] {
            let done = try lab.on(host, "ip", "link", "set", device, "mtu", "\(octets)")
            #expect(done.status == 0, "\(host) \(device): \(done.text)")
            let rule =
                tells
                ? "true"
                : "nft 'add table ip silent; add chain ip silent out { type filter hook output priority 0; }; add rule ip silent out icmp type destination-unreachable drop'"
            #expect(try lab.shell(host, rule).status == 0)
        }
    }

    /// Sends for some seconds in both directions, and tells what arrives in each of them in bits a second.
    private func transfer(_ lab: Lab, seconds: Int, during: () throws -> Void = {}) throws -> (up: [Double], down: [Double]) {
        let server = try lab.start("cn", "iperf3", "-s", "-1", "-p", "5301")
        defer { server.terminate() }
        try lab.wait("the server listens") { try lab.shell("cn", "ss -ltn | grep -q :5301").status == 0 }
        // What debug programs on a machine with other work bear, so that it does not measure the machine.
        let client = try lab.start(
            "mn", "iperf3", "-c", Self.cn, "-p", "5301", "-t", "\(seconds)", "-i", "1", "-J", "--bidir", "-b", "5M")
        Thread.sleep(forTimeInterval: 2)
        try during()
        let output = try client.wait(seconds: Double(seconds) + 20)
        let json = try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any]
        let intervals = try #require(json?["intervals"] as? [[String: Any]], "\(output.text.prefix(2000))")
        func rates(_ key: String) -> [Double] { intervals.map { ($0[key] as? [String: Any])?["bits_per_second"] as? Double ?? 0 } }
        return (rates("sum"), rates("sum_bidir_reverse"))
    }

    @Test("On an open path packets have 1472 octets after seconds, and connections that began before use them")
    func open() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        let rates = try transfer(lab, seconds: 6) {
            for (host, peer) in [("mn", Self.cn), ("cn", TranslatedTests.mn)] {
                try lab.wait("\(host)'s packets may have 1472 octets") { try mtu(lab, host, to: peer) == 1472 }
                // 12 octets of the 1432 are TCP's time stamps.
                try lab.wait("TCP of \(host) uses them") { try lab.shell(host, "ss -tin dst \(peer) | grep -q 'mss:1420 '").status == 0 }
            }
        }
        #expect(rates.up.dropFirst(2).allSatisfy { $0 > 1e6 } && rates.down.dropFirst(2).allSatisfy { $0 > 1e6 }, "\(rates)")
        let why = try lab.on("mn", "mat", "why", Self.cn, "--control", lab.control("mn"))
        #expect(why.text.contains("1472 octets"), "\(why.text)")
        // Applications that want no fragments are told.
        let fits = try lab.on("mn", "ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1444", Self.cn)
        #expect(fits.text.contains(" 0% packet loss"), "\(fits.text)")
        let larger = try lab.on("mn", "ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1445", Self.cn)
        #expect(larger.text.contains("mtu=1472") || larger.text.contains("mtu 1472"), "\(larger.text)")
    }

    @Test("A link that becomes narrow under TCP in both directions stops it for a moment only, told by ICMP or by nobody", arguments: [true, false])
    func narrowing(tells: Bool) throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        try lab.wait("the way is there") { try lab.on("mn", "ping", "-c", "1", "-W", "1", Self.cn).status == 0 }
        // Where nobody tells, the sender finds it out by what does not come.
        let rates = try transfer(lab, seconds: tells ? 14 : 24) {
            try lab.wait("packets may have 1472 octets") { try mtu(lab, "mn", to: Self.cn) == 1472 && mtu(lab, "cn", to: TranslatedTests.mn) == 1472 }
            try narrow(lab, to: 1400, tells: tells)
        }
        for (way, rates) in [("up", rates.up), ("down", rates.down)] {
            #expect(rates.suffix(4).allSatisfy { $0 > 1e6 }, "\(way): \(rates)")
        }
        #expect(try mtu(lab, "mn", to: Self.cn) == 1372 && mtu(lab, "cn", to: TranslatedTests.mn) == 1372)
        try narrow(lab, to: 1500)
        try lab.lab("move", "mn", "wlan")
        for host in ["home", "r"] where !tells { _ = try lab.on(host, "nft", "delete", "table", "ip", "silent") }
    }

    @Test("At a path of 1124 octets everything passes, cut up by its sender")
    func hotel() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        try narrow(lab, to: 1124)
        // As above, where the ends have known the path as a wider one.
        let rates = try transfer(lab, seconds: 14)
        #expect(rates.up.suffix(3).allSatisfy { $0 > 1e6 } && rates.down.suffix(3).allSatisfy { $0 > 1e6 }, "\(rates)")
        let ping = try lab.on("mn", "ping", "-c", "3", "-i", "0.3", "-W", "2", "-s", "1252", "-M", "do", Self.cn)
        #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        try narrow(lab, to: 1500)
    }
}

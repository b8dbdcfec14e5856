import Foundation
import Testing

// Relays without the kernel's help, nodes that only relays know the place of, and ports that a translator has forgotten.

extension TranslatedTests {
    /// Puts a line into a daemon's configuration, after another one or at its end, and gives back how it was.
    private func configure(_ lab: Lab, _ host: String, _ program: String, _ line: String, after place: String? = nil) throws -> () throws -> Void {
        let path = "/run/\(lab.name)/\(host)/\(program).yaml"
        let before = try String(contentsOfFile: path, encoding: .utf8)
        let after = place.map { before.replacingOccurrences(of: "\n\($0)\n", with: "\n\($0)\n\(line)\n") } ?? before + "\n\(line)\n"
        try #require(after != before)
        try after.write(toFile: path, atomically: false, encoding: .utf8)
        return { try before.write(toFile: path, atomically: false, encoding: .utf8) }
    }

    private func peerPath(_ lab: Lab, _ node: String, to peer: String) throws -> String? {
        try lab.peers(node).first { $0["home"] as? String == peer }?["path"] as? String
    }

    private func isRegistered(_ lab: Lab, _ node: String) throws -> Bool {
        let homes = try lab.status(node)["homes"] as? [[String: Any]] ?? []
        return homes.contains { $0["state"] as? String == "registered" && !($0["address"] as? String ?? ":").contains(":") }
    }

    @Test("Bulk TCP of kernels on the relay's host goes by a relay that forwards by itself: what they leave to a card is cut and summed up there")
    func bulkByRelayAlone() throws {
        let lab = try Lab.shared
        var restore: [() throws -> Void] = []
        for relay in ["relay", "relay2"] {
            restore.append(try configure(lab, relay, "mat-relay", "forwarding: agent"))
            try lab.lab("restart", relay)
        }
        defer {
            for each in restore { try? each() }
            for relay in ["relay", "relay2"] { _ = try? lab.lab("restart", relay) }
        }
        try lab.lab("move", "mn", "symmetric")
        try lab.lab("move", "mn2", "symmetric-host")
        try lab.wait("both are registered") { try isRegistered(lab, "mn") && isRegistered(lab, "mn2") }
        try lab.wait("they talk by a relay", seconds: 20) {
            _ = try lab.on("mn", "ping", "-c", "1", "-W", "1", Self.mn2)
            return try peerPath(lab, "mn", to: Self.mn2) == "relayed" && peerPath(lab, "mn2", to: Self.mn) == "relayed"
        }
        let server = try lab.start("mn2", "iperf3", "-s", "-1", "-B", Self.mn2, "-p", "5299")
        defer { server.terminate() }
        try lab.wait("iperf3 listens") { try lab.shell("mn2", "ss -Hltn 'sport = 5299'").text.contains("5299") }
        let client = try lab.on("mn", "iperf3", "-c", Self.mn2, "-B", Self.mn, "-p", "5299", "-t", "3", "-J", seconds: 40)
        let report = try JSONSerialization.jsonObject(with: Data(client.text.utf8)) as? [String: Any]
        let received = (report?["end"] as? [String: Any])?["sum_received"] as? [String: Any]
        let rate = try #require(received?["bits_per_second"] as? Double, "\(client.text.suffix(2000))")
        // A relay lets 20 Mbit/s of each home address through.
        #expect(rate > 5_000_000, "\(rate) bit/s; \(lab.log("relay", "mat-relay").suffix(2000))")
    }

    @Test("A node with paths: relay-only is reached by relays alone, and nothing that leaves its link goes to where peers are")
    func relayOnly() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "cellular")
        try lab.lab("move", "mn2", "wlan")
        let restore = try configure(lab, "mn", "matd", "  use: relay-only", after: "paths:")
        try lab.lab("stop", "mn")
        // cn is at home, mn2 in wlan. What comes in is no matter: a peer may still ask at the place of the record before.
        let watch = try lab.start("mn", "tcpdump", "-n", "-l", "-Q", "out", "-i", "wwan0", "host \(Self.cn) or net 203.0.113.0/26")
        defer {
            watch.terminate()
            try? restore()
            _ = try? lab.lab("stop", "mn")
            _ = try? lab.lab("start", "mn")
        }
        try lab.wait("tcpdump listens") { watch.text.contains("listening on") }
        try lab.lab("start", "mn")
        try lab.wait("it is registered", seconds: 20) { try isRegistered(lab, "mn") }
        for peer in [Self.mn2, Self.cn] {
            try lab.wait("\(peer) answers", seconds: 20) { try lab.on("mn", "ping", "-c", "1", "-W", "1", peer).status == 0 }
        }
        // What peers begin as well.
        for node in ["mn2", "cn"] {
            try lab.wait("\(node) reaches it", seconds: 20) { try lab.on(node, "ping", "-c", "1", "-W", "1", Self.mn).status == 0 }
            #expect(try peerPath(lab, node, to: Self.mn) == "relayed")
        }
        let status = try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text
        #expect(status.contains("by relays alone") && status.contains("bound"), "\(status)")
        let why = try lab.on("mn", "mat", "why", Self.mn2, "--control", lab.control("mn")).text
        #expect(why.hasPrefix("\(Self.mn2): relayed, by ") && why.contains("relay-only"), "\(why)")
        let theirs = try lab.on("mn2", "mat", "why", Self.mn, "--control", lab.control("mn2")).text
        #expect(!theirs.contains("203.0.113.69") && !theirs.contains("203.0.113.7"), "\(theirs)")
        let seen = watch.text.split(separator: "\n").filter { $0.contains(" > ") }
        #expect(seen.isEmpty, "\(seen.prefix(5))")
    }

    /// Why each end's packets go as they go, for who reads a failure.
    private func paths(_ lab: Lab) -> String {
        [("mn", Self.cn), ("cn", Self.mn)].map { host, peer in
            (try? lab.on(host, "mat", "why", peer, "--control", lab.control(host)).text) ?? ""
        }.joined(separator: "\n")
    }

    @Test("A port that a translator does not pass any more, however much is sent, is left for another, and conversations go on")
    func forgottenPort() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        try lab.wait("mn is registered") { try isRegistered(lab, "mn") }
        let traffic = try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "cn", address: Self.cn, home: Self.mn)])
        defer { traffic.end() }
        #expect(traffic.goesOn(within: 15), "\(traffic.report)")
        let chain = "add table ip lost; add chain ip lost forward { type filter hook forward priority 0; }"
        let made = try lab.on("home", "nft", "\(chain); add rule ip lost forward udp sport 6289 drop")
        #expect(made.status == 0, "\(made.text)")
        defer { _ = try? lab.on("home", "nft", "delete table ip lost") }
        try lab.wait("another port is used", seconds: 60) {
            try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text.contains("from port 6")
        }
        #expect(traffic.goesOn(within: 30), "\(traffic.report)\n\(lab.log("mn").suffix(6000))\n\(lab.log("cn").suffix(6000))\n\(paths(lab))")
        #expect(traffic.ends.isEmpty)
        // Elsewhere the usual one is used again.
        try lab.lab("move", "mn", "carrier")
        #expect(traffic.goesOn(within: 20), "\(traffic.report)")
        #expect(try !lab.on("mn", "mat", "status", "--control", lab.control("mn")).text.contains("from port 6"))
    }
}

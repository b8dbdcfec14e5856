import Foundation
import Testing

/// A node with two home addresses of each family, which has two mobile addresses of each on its links.
@Suite("Several home addresses in network namespaces", .serialized, .lab("homes"))
struct FurtherHomesTests {
    static let further = [("-4", "192.0.2.12", "198.51.100.20", "TCP"), ("-6", "2001:db8:10::12", "2001:db8:20::20", "TCP6")]

    /// Gives mn a second home address of each family, and what they need: certificates, and one more address of each family on the link.
    private func configure(_ lab: Lab) throws {
        let directory = "/run/\(lab.name)/mn"
        let key = try lab.on("mn", "mat", "keygen", "--show", "\(directory)/node.key").text.trimmingCharacters(in: .whitespacesAndNewlines)
        var entries = ""
        for (_, hoa, _, _) in Self.further {
            let enrolled = try lab.shell(
                "ims1", "mat enrol --control \(lab.control("ims1")) \(hoa) --public-key '\(key)' >'\(directory)/\(hoa).certificate'")
            #expect(enrolled.status == 0, "\(enrolled.text)")
            entries += "  - address: \"\(hoa)\"\n    key: \(directory)/node.key\n    certificate: \"\(directory)/\(hoa).certificate\"\n"
        }
        let file = "\(directory)/matd.yaml"
        var text = try String(contentsOfFile: file, encoding: .utf8)
        let traffic = try #require(text.range(of: "traffic:"))
        text.insert(contentsOf: entries, at: traffic.lowerBound)
        try text.write(toFile: file, atomically: true, encoding: .utf8)
    }

    private func addresses(_ lab: Lab, _ interface: String, _ ipv4: String, _ ipv6: String) throws {
        let output = try lab.shell("mn", "ip address add \(ipv4)/26 dev \(interface) && ip address add \(ipv6)/64 dev \(interface) nodad")
        #expect(output.status == 0, "\(output.text)")
    }

    /// Each home address has its own place on this interface, and nothing else first.
    private func places(_ lab: Lab, _ interface: String) throws -> [String: String]? {
        let status = try lab.status("mn")
        let here = Set(
            (status["locators"] as? [[String: Any]] ?? []).filter { $0["interface"] as? String == interface }.compactMap { $0["address"] as? String })
        var result: [String: String] = [:]
        for home in status["homes"] as? [[String: Any]] ?? [] {
            guard home["state"] as? String == "registered", let hoa = home["address"] as? String, let first = (home["locators"] as? [String])?.first,
                here.contains(first)
            else { return nil }
            result[hoa] = first
        }
        return result.count == 4 && Set(result.values).count == 4 ? result : nil
    }

    @Test(
        "Programs bound to a second home address of a family talk from it, and go on through a handover; without an address for it, the status says so"
    )
    func bound() throws {
        let lab = try Lab.shared
        try configure(lab)
        try lab.lab("restart", "mn")
        try lab.wait("the first home addresses are registered") {
            (try lab.status("mn")["homes"] as? [[String: Any]] ?? []).filter { $0["state"] as? String == "registered" }.count == 2
        }
        let text = try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text
        #expect(text.contains("no mobile address is left for 192.0.2.12") && text.contains("`use`"), "\(text)")
        try addresses(lab, "wlan0", "203.0.113.61", "2001:db8:a::99")
        try lab.wait("all four are registered, each at a place of its own") { try places(lab, "wlan0") != nil }
        let before = try #require(try places(lab, "wlan0"))

        _ = try lab.start("cn", "socat", "TCP6-LISTEN:7010,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        try lab.wait("the echo server listens") { try lab.shell("cn", "ss -ltn").text.contains(":7010") }
        var pings: [Background] = []
        var clients: [Background] = []
        let inputs = FileManager.default.temporaryDirectory.appendingPathComponent("mat-homes-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: inputs, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: inputs) }
        for (family, hoa, cn, kind) in Self.further {
            pings.append(try lab.start("mn", "ping", family, "-i", "0.02", "-I", hoa, cn))
            pings.append(try lab.start("mn", "ping", family, "-i", "0.02", cn))
            let input = inputs.appendingPathComponent(family).path
            guard mkfifo(input, 0o600) == 0 else { throw Lab.Failure(description: "mkfifo \(input)") }
            let quoted = family == "-6" ? "[\(cn)]" : cn
            let source = family == "-6" ? "[\(hoa)]" : hoa
            clients.append(try lab.start("mn", "/bin/bash", "-c", "exec 3<>\(input); exec socat -t 60 - \(kind):\(quoted):7010,bind=\(source) <&3"))
        }
        func say(_ line: String) throws {
            for (index, client) in clients.enumerated() {
                let handle = try FileHandle(forWritingTo: inputs.appendingPathComponent(Self.further[index].0))
                try handle.write(contentsOf: Data("\(line)\n".utf8))
                try handle.close()
                try lab.wait("\(line) is echoed to \(Self.further[index].1) (\(client.text))\n\(lab.log("mn"))", seconds: 5) {
                    client.text.contains("\(line)\n")
                }
            }
        }
        try say("before")
        let peers = try lab.peers("mn")
        for (_, hoa, cn, _) in Self.further {
            let pair = try #require(peers.first { $0["home"] as? String == cn && $0["ownHome"] as? String == hoa })
            #expect(pair["ownLocator"] as? String == before[hoa])
        }
        let seen = try lab.on("cn", "ss", "-tn").text
        for (_, hoa, _, _) in Self.further { #expect(seen.contains(hoa), "the CN sees the second home address: \(seen)") }

        try lab.lab("attach", "mn", "cellular")
        // By DHCP, too, whose client takes away what was there before.
        try lab.wait("wwan0 is configured") {
            let text = try lab.shell("mn", "ip -4 address show dev wwan0; ip -6 address show dev wwan0 scope global").text
            return text.contains("inet 203.0.113.") && text.contains("2001:db8:b:")
        }
        try addresses(lab, "wwan0", "203.0.113.125", "2001:db8:b::99")
        let output = try lab.on("mn", "mat", "handover", "wwan0", "--control", lab.control("mn"))
        #expect(output.status == 0, "\(output.text)")
        try lab.wait("all four are at wwan0") { try places(lab, "wwan0") != nil }
        try lab.wait("all peers follow") { try lab.peers("mn").allSatisfy { $0["interface"] as? String == "wwan0" } }
        try lab.lab("detach", "mn", "wlan")
        try say("after")
        Thread.sleep(forTimeInterval: 0.5)
        for ping in pings {
            let echoes = Echoes(try ping.interrupt().text)
            #expect(echoes.isWhole && echoes.sentCount > 20, "\(echoes)\n\(lab.log("mn"))")
        }
        for client in clients { #expect(client.isRunning, "\(client.text)") }
    }
}

import Foundation
import MATSignal
import Testing

/// The dissector for Wireshark and tshark (deploy/wireshark/mat.lua): on the protocol's test vectors, on damaged messages, and on a real handover.
@Suite("Dissector for Wireshark", .serialized, .lab("shark"))
struct DissectorTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    private static var script: String { root.appendingPathComponent("deploy/wireshark/mat.lua").path }

    /// One line for each packet that the filter lets through: the fields, each with all its values joined by commas.
    private func dissect(_ file: String, _ fields: [String], filter: String = "mat") throws -> [[String]] {
        let arguments = (["_ws.col.Info"] + fields).flatMap { ["-e", $0] }.joined(separator: " ")
        let line = "tshark -n -X lua_script:\(Self.script) -r \(file) -Y '\(filter)' -T fields -E separator='\t' \(arguments) 2>\(file).errors"
        let output = try Lab.shared.shell("r", line, seconds: 60)
        let errors = (try? String(contentsOfFile: file + ".errors", encoding: .utf8)) ?? ""
        #expect(!errors.contains("mat.lua") && !errors.contains("Lua"), "\(errors)")
        return output.text.split(separator: "\n").map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
    }

    /// A capture file of datagrams from a node's port to its IMS's, a millisecond between them.
    private func capture(_ payloads: [[UInt8]]) throws -> String {
        func little(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.littleEndian, Array.init) }
        // Link type 101: packets begin with their IP header.
        var file = little(0xa1b2_c3d4) + [2, 0, 4, 0] + little(0) + little(0) + little(65535) + little(101)
        for (number, payload) in payloads.enumerated() {
            let udp = UInt16(8 + payload.count)
            let whole = udp + 20
            let ip: [UInt8] = [
                0x45, 0, UInt8(whole >> 8), UInt8(whole & 0xff), 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7, 198, 51, 100, 53,
                0x18, 0x91, 0x18, 0x90, UInt8(udp >> 8), UInt8(udp & 0xff), 0, 0,
            ]
            file += little(1_790_000_000) + little(UInt32(number) * 1000) + little(UInt32(whole)) + little(UInt32(whole)) + ip + payload
        }
        let path = "/run/\(try Lab.shared.name)/vectors.pcap"
        try Data(file).write(to: URL(fileURLWithPath: path))
        return path
    }

    @Test("All sixteen messages are shown whole, and nothing in them is malformed or unknown")
    func vectors() throws {
        let file = Self.root.appendingPathComponent("Tests/MATSignalTests/Vectors/protocol-vectors.json")
        let object = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any]
        let all = try #require(object?["vectors"] as? [String: String])
        let names = all.keys.filter { !$0.hasSuffix(".value") && !$0.hasPrefix("dns.") && !$0.hasSuffix(".text") }.sorted()
        let messages = try names.map { name in
            let text = Array(try #require(all[name]).utf8)
            return try stride(from: 0, to: text.count, by: 2).map {
                try #require(UInt8(String(decoding: text[$0..<$0 + 2], as: UTF8.self), radix: 16))
            }
        }
        let lines = try dissect(
            try capture(messages),
            ["mat.type", "mat.hoa", "mat.locator", "mat.observed", "mat.candidate", "mat.malformed", "mat.unknown", "mat.option.kind"])
        try #require(lines.count == messages.count)
        #expect(Set(lines.map { $0[1] }) == Set((1...16).map(String.init)))
        for (name, line) in zip(names, lines) { #expect(line[6].isEmpty && line[7].isEmpty, "\(name): \(line)") }
        let shown = Dictionary(uniqueKeysWithValues: zip(names, lines))
        #expect(shown["v4.maAnswer.ok"]?[0] == "MA Answer ok: 192.0.2.1 at 198.51.100.7, 203.0.113.9; subscribe 300 s")
        #expect(shown["v6.haNotify"]?[0] == "HA Notify: 2001:db8:1::1; peer 2001:db8:1::2")
        #expect(shown["path4.imsUpdate.endpoints"]?[3] == "198.51.100.7:41000,[2001:db8:aa::7]:6289,relay 203.0.113.53:6290")
        #expect(shown["path4.bindAck.granted"]?[4] == "198.51.100.7:41000" && shown["path6.bindAck.granted"]?[4] == "[2001:db8:aa::7]:41000")
        #expect(shown["path6.pathProbe.inPath"]?[5] == "192.168.7.5:6289")
        #expect(
            ["bind", "bind.ask", "bind.refresh", "bind.end"].map { shown["path4." + $0]?[0] }
                == ["Bind: 192.0.2.1", "Bind (ask)", "Bind (refresh): 192.0.2.1", "Bind (end): 192.0.2.1"])
    }

    @Test("A message that is cut, lies about its length or has options of nobody is shown as far as it goes, and named malformed or unknown")
    func damaged() throws {
        let query: [UInt8] = [3, 0, 1, 4, 1, 2, 3, 4, 0, 2, 0, 4, 1, 2, 3, 4]
        let unknown: [UInt8] = [3, 0, 1, 4, 1, 2, 3, 4, 0xff, 0, 0, 4, 1, 2, 3, 4]
        let cases: [[UInt8]] = [
            [3, 0, 1], [3, 0, 1, 200, 1, 2, 3, 4], [3, 0, 1, 1, 0, 0, 0, 0], query, [3, 0, 1, 3, 1, 2, 3, 4, 0, 3, 0, 200], unknown,
            [17, 0, 1, 2, 0, 0, 0, 0], [5, 0, 1, 4, 0, 0, 0, 0, 0, 6, 0, 4, 0, 0, 0, 0],
        ]
        let lines = try dissect(try capture(cases), ["mat.malformed", "mat.unknown"])
        try #require(lines.count == cases.count)
        for index in [0, 1, 2, 3, 4, 7] { #expect(!lines[index][1].isEmpty, "\(lines[index])") }
        for index in [5, 6] { #expect(lines[index][1].isEmpty && !lines[index][2].isEmpty, "\(lines[index])") }
    }

    @Test("A move behind a NAT is followed from the node's interface: signalling with its answers' times, and what is inside encapsulated packets")
    func handover() throws {
        let lab = try Lab.shared
        let file = "/run/\(lab.name)/handover.pcap"
        _ = try lab.on("mn", "ping", "-c", "1", "-W", "5", "198.51.100.20")
        let tcpdump = try lab.start("mn", "tcpdump", "-i", "any", "-U", "-w", file, "udp portrange 6288-6290")
        try lab.wait("tcpdump listens") { tcpdump.text.contains("listening") }
        try lab.lab("move", "mn", "home")
        try lab.wait("packets go encapsulated") {
            _ = try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "1", "-s", "333", "198.51.100.20")
            return try lab.peers("mn").contains { $0["home"] as? String == "198.51.100.20" && $0["path"] as? String == "encapsulated" }
        }
        let ping = try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "1", "-s", "333", "198.51.100.20")
        #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        // The kernel hands packets over in blocks; the last block's time must come.
        Thread.sleep(forTimeInterval: 1.5)
        _ = try tcpdump.interrupt()
        let inner = try dissect(file, ["ip.src", "ip.dst"], filter: "mat.encapsulated && icmp && frame.len > 333")
        #expect(inner.contains { $0[1].hasSuffix(",192.0.2.10") && $0[2].hasSuffix(",198.51.100.20") }, "\(inner.prefix(3))")
        #expect(inner.contains { $0[1].hasSuffix(",198.51.100.20") && $0[2].hasSuffix(",192.0.2.10") }, "\(inner.prefix(3))")
        #expect(inner.allSatisfy { $0[0].contains("[encapsulated, ") }, "\(inner.prefix(3))")
        let answers = try dissect(file, ["mat.type", "mat.time"], filter: "mat.response_to")
        for type in ["2", "12", "14"] {
            #expect(answers.contains { $0[1].split(separator: ",").contains(Substring(type)) }, "no answer of type \(type)")
        }
        #expect(answers.allSatisfy { $0[2].split(separator: ",").allSatisfy { (Double($0) ?? 99) < 5 } })
        #expect(try dissect(file, ["mat.malformed", "mat.unknown"], filter: "mat.malformed || mat.unknown").isEmpty)
    }
}

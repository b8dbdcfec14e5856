import Foundation
import Testing

/// `mat capture` on a node that talks and moves, judged by tshark with the dissector.
extension OperatorTests {
    private static let dissector = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("deploy/wireshark/mat.lua").path

    /// A line for each packet that the filter lets through: interface, comment, fields.
    private func dissect(_ lab: Lab, _ file: String, _ filter: String, _ fields: String...) throws -> [[String]] {
        let all = (["frame.interface_name", "frame.comment"] + fields).map { "-e \($0)" }.joined(separator: " ")
        let line = "tshark -n -X lua_script:\(Self.dissector) -r \(file) -Y '\(filter)' -T fields -E separator='\t' \(all) 2>\(file).errors"
        let output = try lab.shell("r", line, seconds: 60)
        return output.text.split(separator: "\n").map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
    }

    @Test(
        "mat capture: signalling, and each packet of both families as programs and as the link see it, through a move behind a NAT; nothing stays behind"
    )
    func capture() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        let file = "/run/\(lab.name)/mn/capture.pcapng"
        // Where others filter, matd has connections tracked, and rules for that.
        let rules = "nft list table ip mat | grep -c 'chain held'"
        let before = try lab.shell("mn", rules).text
        let capture = try lab.start("mn", "mat", "capture", "--out", file, "--control", lab.control("mn"))
        try lab.wait("it captures") { capture.text.contains("capturing to") }
        #expect(try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "5", "-s", "321", "198.51.100.20").status == 0)
        #expect(try lab.on("mn", "ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", "-s", "322", "2001:db8:20::20").status == 0)
        // The table counts as no filter.
        #expect(try lab.shell("mn", rules).text == before)
        try lab.lab("move", "mn", "home")
        defer { _ = try? lab.lab("move", "mn", "wlan") }
        try lab.wait("packets go encapsulated") {
            _ = try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "1", "-s", "333", "198.51.100.20")
            return try lab.peers("mn").contains { $0["home"] as? String == "198.51.100.20" && $0["path"] as? String == "encapsulated" }
        }
        // matd's word on where the peer is now.
        Thread.sleep(forTimeInterval: 1.2)
        #expect(try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "5", "-s", "334", "198.51.100.20").status == 0)
        #expect(try lab.shell("mn", "nft list tables").text.contains("mat_capture"))
        Thread.sleep(forTimeInterval: 0.3)
        let end = try capture.interrupt()
        #expect(end.status == 0 && end.text.contains(" of signalling, ") && !end.text.contains("too fast"), "\(end.text)")
        #expect(!(try lab.shell("mn", "nft list tables").text.contains("mat_capture")))
        #expect((try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int) == 0o600)

        for (filter, inside, protocolName) in [
            ("icmp && ip.len == 349", "198.51.100.20", "ip"),
            ("icmpv6.type >= 128 && icmpv6.type <= 129 && ipv6.plen == 330", "2001:db8:20::20", "ipv6"),
        ] {
            let lines = try dissect(lab, file, filter, "\(protocolName).src", "\(protocolName).dst")
            // Two there and two back, on both sides, and in order.
            #expect(lines.count >= 8, "\(lines)")
            #expect(lines.first?[0] == "inside" && lines.contains { $0[0] != "inside" }, "\(lines)")
            for line in lines where line[0] == "inside" {
                #expect(line[2] == inside || line[3] == inside, "\(line)")
                #expect(line[1].hasPrefix("inside, as programs see it"), "\(line)")
            }
            #expect(
                lines.contains { $0[0] != "inside" && $0[1].hasPrefix("outside, rewritten; inside it is ") && $0[1].contains(inside) }, "\(lines)")
        }
        let encapsulated = try dissect(lab, file, "mat.encapsulated && icmp && frame.len > 334", "ip.src", "ip.dst")
        #expect(
            encapsulated.contains { $0[0] != "inside" && $0[1] == "outside, in a datagram; inside it is 192.0.2.10 -> 198.51.100.20" },
            "\(encapsulated)")
        let signalling = try dissect(lab, file, "mat.type && !mat.encapsulated", "mat.type")
        #expect(
            signalling.contains { $0[1] == "signalling: IMS Update" } && signalling.allSatisfy { $0[1].hasPrefix("signalling: ") }, "\(signalling)")
        #expect(try dissect(lab, file, "mat.malformed || mat.unknown").isEmpty)
    }
}

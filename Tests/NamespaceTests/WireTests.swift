import Foundation
import MATSignal
import Testing

/// What is to be seen on the wire: no HoA, no extra octet, and the signalling of the paper's figures in order.
@Suite("On the wire", .serialized, .lab("wire"))
struct WireTests {
    /// A capture in the router, where every packet passes; the text is one line a packet.
    private func capture(_ filter: String, fields: [String], during body: () throws -> Void) throws -> [[String]] {
        let lab = try Lab.shared
        let file = "/run/\(lab.name)/capture.pcap"
        let tcpdump = try lab.start("r", "tcpdump", "-i", "any", "-U", "-s", "2048", "-B", "8192", "-w", file, filter)
        try lab.wait("tcpdump listens") { tcpdump.text.contains("listening") }
        try body()
        // The kernel hands packets over in blocks; the last block's time must come.
        Thread.sleep(forTimeInterval: 1.5)
        _ = try tcpdump.interrupt()
        let arguments = fields.flatMap { ["-e", $0] }.joined(separator: " ")
        let output = try lab.shell(
            "r", "reordercap \(file) \(file).sorted >/dev/null && tshark -n -r \(file).sorted -T fields -E separator=';' \(arguments) 2>/dev/null",
            seconds: 60)
        return output.text.split(separator: "\n").map { $0.split(separator: ";", omittingEmptySubsequences: false).map(String.init) }
    }

    @Test("Between the nodes only MoAs are in the headers, and packets are as long as without MAT")
    func onlyMoAs() throws {
        let lab = try Lab.shared
        // Known to each other first, so that the capture holds user data only.
        for family in ["-4", "-6"] { _ = try lab.on("mn", "ping", family, "-c", "1", "cn.mat.example") }
        let packets = try capture(
            "icmp or icmp6 and ip6[40] >= 128 and ip6[40] <= 129", fields: ["ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.len", "ipv6.plen"]
        ) {
            for family in ["-4", "-6"] {
                let ping = try lab.on("mn", "ping", family, "-c", "5", "-i", "0.1", "-s", "100", "cn.mat.example")
                #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
            }
        }
        let locators = try Set((lab.status("mn")["locators"] as? [[String: Any]] ?? []).compactMap { $0["address"] as? String })
        // The CN is at home: its HoA is its MoA. The MN's HoAs must not be seen.
        let allowed = locators.union(["198.51.100.20", "2001:db8:20::20"])
        // "any" sees each packet on two interfaces.
        #expect(packets.count >= 20)
        for packet in packets {
            let addresses = packet.prefix(4).filter { !$0.isEmpty }
            #expect(addresses.allSatisfy { allowed.contains($0) }, "\(packet)")
            // 100 octets of data, 8 of ICMP, 20 of IPv4; IPv6 counts what follows its header.
            #expect(packet[4] == "128" || packet[5] == "108", "\(packet)")
        }
    }

    /// One signalling message as captured: its type, sender and receiver.
    private struct Seen: Equatable, CustomStringConvertible {
        let type: MessageType
        let code: UInt8
        let source: String
        let destination: String
        var description: String { "\(source) -> \(destination): \(type) (\(code))" }
    }

    private func signalling(during body: () throws -> Void) throws -> [Seen] {
        let packets = try capture("udp port 6288", fields: ["ip.src", "ip.dst", "udp.payload", "ipv6.src", "ipv6.dst"], during: body)
        var seen: [Seen] = []
        for packet in packets {
            let octets = stride(from: 0, to: packet[2].count - 1, by: 2).compactMap { offset -> UInt8? in
                let start = packet[2].index(packet[2].startIndex, offsetBy: offset)
                return UInt8(packet[2][start..<packet[2].index(start, offsetBy: 2)], radix: 16)
            }
            for part in SignalDatagram.decode(octets) {
                guard case .message(let message, _) = part else {
                    Issue.record("what can't be decoded was sent: \(part) in \(packet)")
                    continue
                }
                let next = Seen(type: message.type, code: message.code.rawValue, source: packet[0] + packet[3], destination: packet[1] + packet[4])
                // Each packet is seen when it comes and when it goes.
                if seen.last != next { seen.append(next) }
            }
        }
        return seen
    }

    /// Whether the messages stand in this order, others between them.
    private func expectOrder(_ wanted: [(MessageType, String, String)], in seen: [Seen]) {
        var rest = seen[...]
        for (type, source, destination) in wanted {
            guard let index = rest.firstIndex(where: { $0.type == type && $0.code == 0 && $0.source == source && $0.destination == destination })
            else {
                Issue.record("no \(type) \(source) -> \(destination) after that in:\n\(seen.map(\.description).joined(separator: "\n"))")
                return
            }
            rest = rest[(index + 1)...]
        }
    }

    private let ims1 = "203.0.113.132", ims2 = "203.0.113.133", cn = "198.51.100.20"

    private func moa(_ node: String) throws -> String {
        let locators = try Lab.shared.status(node)["locators"] as? [[String: Any]] ?? []
        return try #require(locators.compactMap { $0["address"] as? String }.first { !$0.contains(":") })
    }

    @Test("Starting communication is figure 2 of the paper, in order")
    func figure2() throws {
        let lab = try Lab.shared
        let mn2 = try moa("mn2")
        let seen = try signalling {
            let ping = try lab.on("mn2", "ping", "-4", "-c", "1", "-W", "3", "cn.mat.example")
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        }
        // (1) MA Query and its answer.
        expectOrder([(.maQuery, mn2, ims2), (.maAnswer, ims2, mn2)], in: seen)
        // (2) HA Notify, (3) MA Query to IMS_MN and its answer, or the Ack before it since the notify's record was verified, (4) Ack.
        expectOrder([(.haNotify, mn2, ims2), (.haNotifyAck, ims2, mn2)], in: seen)
        expectOrder([(.haNotify, mn2, ims2), (.maQuery, ims2, ims1), (.maAnswer, ims1, ims2)], in: seen)
        // (6), by push instead of HA Query, and (7).
        expectOrder([(.haNotify, mn2, ims2), (.maNotify, ims2, cn), (.maNotifyAck, cn, ims2)], in: seen)
        expectOrder([(.maQuery, cn, ims1), (.maAnswer, ims1, cn)], in: seen)
    }

    @Test("A handover is figure 3 of the paper, in order")
    func figure3() throws {
        let lab = try Lab.shared
        _ = try lab.on("mn", "ping", "-4", "-c", "1", "cn.mat.example")
        var new = ""
        let seen = try signalling {
            try lab.handOverWithOverlap("mn", to: "cellular")
            new = try moa("mn")
        }
        // (1) IMS Update and its reply, (2) HA Notify, (4) Ack; (3) between the servers.
        expectOrder([(.imsUpdate, new, ims1), (.imsUpdateReply, ims1, new), (.haNotify, new, ims2), (.haNotifyAck, ims2, new)], in: seen)
        expectOrder([(.imsUpdate, new, ims1), (.haNotify, new, ims2), (.maQuery, ims2, ims1), (.maAnswer, ims1, ims2)], in: seen)
        try lab.handOverWithOverlap("mn", to: "wlan")
    }
}

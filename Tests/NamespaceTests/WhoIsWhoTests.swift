import Foundation
import Glibc
import Testing

/// Who is taken for whom, with real daemons (docs/decisions/0001-a-locator-counts-while-proven.md), and what strangers of the own link may keep
/// an agent from (0007-own-requests-first.md).
@Suite("Who is who in network namespaces", .serialized, .lab("who"))
struct WhoIsWhoTests {
    private func ping(_ lab: Lab, _ host: String, from own: String? = nil, _ peer: String, count: Int = 4) throws -> Lab.Output {
        let source = own.map { "-I \($0) " } ?? ""
        return try lab.shell(host, "ping \(source)-c \(count) -i 0.2 -W 2 \(peer)")
    }

    private func locator(_ lab: Lab, of peer: String, at host: String) throws -> String? {
        try lab.peers(host).first { $0["home"] as? String == peer }?["locator"] as? String
    }

    @Test("Checks from made-up neighbours of the own link keep back nothing that the agent asks itself")
    func ownRequestsFirst() throws {
        let lab = try Lab.shared
        let before = try #require(lab.status("cn")["counters"] as? [String: Any])["answersWithheld"] as? Int ?? 0
        let flood = try CheckFlood(lab, from: "r")
        flood.start(perSecond: 400, seconds: 6)
        // Until the buffer would be full: the kernel looks for each neighbour for three seconds.
        try lab.wait("answers are withheld") {
            ((try lab.status("cn")["counters"] as? [String: Any])?["answersWithheld"] as? Int ?? 0) > before + 300
        }
        // A destination that nobody has asked about: its IMS must be asked, and it must be checked.
        let output = try ping(lab, "cn", "192.0.2.11", count: 2)
        #expect(output.text.contains(" 0% packet loss"), "\(output.text)")
        flood.wait()
        print("\(flood.sent) checks from made-up neighbours; first packets in the meantime:\n\(output.text)")
        #expect(flood.sent > 1500)
    }

    @Test("A node that starts at the same address with another home address is taken for what it is, and for nothing else")
    func otherIdentity() throws {
        let lab = try Lab.shared
        #expect(try ping(lab, "mn", "198.51.100.20").text.contains(" 0% packet loss"))
        try lab.wait("cn has mn as a peer") { try locator(lab, of: "192.0.2.10", at: "cn") != nil }
        let place = try #require(try locator(lab, of: "192.0.2.10", at: "cn"))
        try lab.lab("stop", "mn")
        try lab.lab("stop", "mn2")
        // mn2's identity, where mn is.
        let other = try lab.start("mn", "matd", "--config", "/run/\(lab.name)/mn2/matd.yaml")
        try lab.wait("mn2 is registered from mn's address") { (try? lab.status("mn2")["registered"] as? Bool) == true }
        let output = try ping(lab, "mn", "198.51.100.20")
        #expect(output.text.contains(" 0% packet loss"), "\(output.text)")
        #expect(try locator(lab, of: "192.0.2.11", at: "cn") == place)
        #expect(try locator(lab, of: "192.0.2.10", at: "cn") == nil, "\(lab.log("cn").suffix(2000))")
        let table = try lab.shell("cn", "nft list table ip mat").text
        #expect(!table.contains("\(place) : 192.0.2.10"), "\(table)")
        _ = try other.interrupt()
        try lab.lab("start", "mn")
        try lab.lab("start", "mn2")
    }
}

/// MA Queries (locator checks) to cn's agent from made-up neighbours of its link, in both families.
private final class CheckFlood: @unchecked Sendable {
    private let way: MadeUpPackets
    private let done = DispatchSemaphore(value: 0)
    private(set) var sent = 0

    init(_ lab: Lab, from host: String) throws {
        way = try MadeUpPackets(lab, from: host)
    }

    private static func packet(isIPv4: Bool, number: Int) -> [UInt8] {
        let (high, low) = (UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF))
        let source: [UInt8] =
            isIPv4 ? [198, 51, 100, UInt8(30 + number % 90)] : [0x20, 0x01, 0x0D, 0xB8, 0, 0x20] + [UInt8](repeating: 0, count: 7) + [1, high, low]
        let target: [UInt8] = isIPv4 ? [198, 51, 100, 20] : [0x20, 0x01, 0x0D, 0xB8, 0, 0x20] + [UInt8](repeating: 0, count: 9) + [0x20]
        let hoa = isIPv4 ? [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF] + target : target
        // MA Query {COOKIE, HOA}: type 3, code 0, X, 10 words, sequence; kind 2 of 8 octets; kind 3 of 16.
        let message: [UInt8] = [3, 0, 1, 10, 0, 0, high, low, 0, 2, 0, 8, 1, 2, 3, 4, 5, 6, high, low, 0, 3, 0, 16] + hoa
        let datagram: [UInt8] = [0x18, 0x91, 0x18, 0x91, 0, UInt8(8 + message.count), 0, 0] + message
        return MadeUpPackets.packet(from: source, to: target, protocolNumber: 17, datagram, checksumAt: 6)
    }

    func start(perSecond: Int, seconds: Double) {
        let thread = Thread { [self] in
            let began = Date()
            var number = 0
            while Date().timeIntervalSince(began) < seconds {
                while number < Int(Date().timeIntervalSince(began) * Double(perSecond)) {
                    number += 1
                    let isIPv4 = number % 4 == 0
                    let packet = Self.packet(isIPv4: isIPv4, number: number)
                    sent += way.send([packet], to: isIPv4 ? "198.51.100.20" : "2001:db8:20::20")
                }
                usleep(5000)
            }
            done.signal()
        }
        thread.start()
    }

    func wait() { done.wait() }
}

import Foundation
import Testing

/// `mat trace` with real daemons, the real kernel and a real network: it follows a packet as far as it gets.
extension OperatorTests {
    private func trace(_ lab: Lab, _ hoa: String) throws -> Lab.Output {
        try lab.shell("mn", "mat trace \(hoa) --control \(lab.control("mn")) 2>&1", seconds: 60)
    }

    @Test("mat trace follows a packet to a peer through all stages, in both families, and says of others where it stops: DNS, mapping server")
    func traceStages() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        for peer in ["198.51.100.20", "2001:db8:20::20"] {
            var good = try trace(lab, peer)
            // After a move, records may still be on their way.
            try lab.wait("packets arrive: \(good.text)") {
                good = try trace(lab, peer)
                return good.status == 0 && good.text.hasSuffix("packets to \(peer) arrive, and answers come back\n")
            }
            for stage in ["node", "DNS", "IMS", "cache", "IMT", "routes", "path"] {
                #expect(good.text.contains(try Regex("(?m)^\(stage) +ok ")), "\(stage): \(good.text)")
            }
        }
        let plain = try trace(lab, "203.0.113.200")
        #expect(plain.status == 1 && plain.text.contains("stop at DNS: 203.0.113.200 is no MAT address"), "\(plain.text)")
        let nobody = try trace(lab, "192.0.2.177")
        #expect(nobody.status == 1 && nobody.text.contains("stop at IMS: 192.0.2.177 is not registered"), "\(nobody.text)")
    }

    @Test("mat trace names the rule that keeps packets from leaving, and the last router before a firewall that drops them")
    func traceObstacles() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        let peer = "198.51.100.20"
        try lab.wait("packets arrive") { try trace(lab, peer).status == 0 }
        _ = try lab.shell("mn", "ip rule add pref 50 to \(peer) unreachable")
        let refused = try trace(lab, peer)
        _ = try lab.shell("mn", "ip rule del pref 50")
        #expect(refused.status == 1 && refused.text.contains("stop at routes: ") && refused.text.contains("`ip rule`"), "\(refused.text)")

        try lab.wait("packets arrive again") { try trace(lab, peer).status == 0 }
        let table = "nft add table ip dropped; nft add chain ip dropped forward '{ type filter hook forward priority 0; }'"
        _ = try lab.shell("r", "\(table); nft add rule ip dropped forward ip daddr \(peer) drop")
        defer { _ = try? lab.shell("r", "nft delete table ip dropped") }
        let dropped = try trace(lab, peer)
        #expect(dropped.status == 1 && dropped.text.contains("stop at path: "), "\(dropped.text)")
        #expect(dropped.text.contains("hop 1: ") || dropped.text.contains("no path to it"), "\(dropped.text)")

        try lab.lab("detach", "mn", "wlan")
        try lab.wait("matd sees it") { try mat(lab, "mn", "status").text.contains("none: no interface has a usable address") }
        let offline = try trace(lab, peer)
        try lab.lab("attach", "mn", "wlan")
        #expect(offline.status == 1 && offline.text.contains("stop at node: this host has no usable mobile address"), "\(offline.text)")
    }
}

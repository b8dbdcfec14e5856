import Foundation
import Testing

/// Faults of the network that `mat doctor` finds on a real node, each made with the tool that an operator would make it with.
extension OperatorTests {
    @Test("mat doctor names rules of nftables and iptables-legacy that drop MAT's packets, and a link whose MTU its network does not take")
    func networkFaults() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        func doctor() throws -> String {
            try lab.shell(
                "mn", "mat doctor --node --node-config /run/\(lab.name)/mn/matd.yaml --control \(lab.control("mn")) 2>&1", seconds: 60
            ).text
        }
        let sound = try doctor()
        #expect(sound.contains("firewall") && sound.contains("packets of 1500 octets get to the router"), "\(sound)")
        #expect(!sound.contains("dropped by") && !sound.contains("vanish"), "\(sound)")
        // All at once: each is found beside the others.
        let made = try lab.shell(
            "mn",
            "nft add table inet fw && nft 'add chain inet fw input { type filter hook input priority 0; policy accept; }' && nft add rule inet fw input ct state new udp dport 6289 drop && nft add rule inet fw input ip daddr 192.0.2.10 drop && ip link set wlan0 mtu 9000"
        )
        #expect(made.status == 0, "\(made.text)")
        let legacy = try lab.shell("mn", "iptables-legacy -A OUTPUT -p udp --dport 6290 -j DROP").status == 0
        defer {
            _ = try? lab.shell("mn", "nft delete table inet fw; ip link set wlan0 mtu 1500; iptables-legacy -F OUTPUT")
        }
        let found = try doctor()
        #expect(found.contains("dropped by `ct state new udp dport 6289 drop` (nftables, table inet fw, chain input)"), "\(found)")
        #expect(found.contains("packets to 192.0.2.10 over wlan0 are dropped by `ip daddr 192.0.2.10 drop`"), "\(found)")
        if legacy { #expect(found.contains("`-A OUTPUT -p udp -m udp --dport 6290 -j DROP` (iptables-legacy"), "\(found)") }
        #expect(found.contains("vanish on wlan0, 1500 get there") && found.contains("`ip link set wlan0 mtu 1500`"), "\(found)")
    }
}

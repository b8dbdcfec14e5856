import Foundation
import Glibc
import Testing

/// What happens to a node in a day: its address goes and comes back, its network restarts, somebody flushes the firewall, the agent is
/// upgraded. Conversations of both families go on meanwhile, in both directions all the time, and none may end.
@Suite("What a connection survives, in network namespaces", .serialized, .lab("bounce"))
struct BounceTests {
    private static let families: [(isIPv4: Bool, mn: String, cn: String)] = [
        (true, "192.0.2.10", "198.51.100.20"), (false, "2001:db8:10::10", "2001:db8:20::20"),
    ]

    /// Makes things happen to conversations, and waits after each until all of them go on.
    private func survive(
        _ what: String, rounds: Int, withPlain: Bool = false, seconds: Double = 15, _ lab: Lab, _ happen: (Int) throws -> Void
    ) throws {
        let traffic = try Traffic(lab, Self.families.map { .init(isIPv4: $0.isIPv4, near: "mn", far: "cn", address: $0.cn, home: $0.mn) })
        // Without MAT, from mn's mobile address, by the same link: what any connection survives.
        let control = withPlain ? try Traffic(lab, try Self.plain(lab)) : nil
        defer {
            traffic.end()
            control?.end()
        }
        let began = Date()
        for round in 0..<rounds {
            try happen(round)
            let isAlive = traffic.goesOn(within: seconds)
            #expect(isAlive, "\(what), round \(round): \(traffic.report)\n\(lab.log("mn").suffix(1500))\n--- cn\n\(lab.log("cn").suffix(1500))")
            if !isAlive || !traffic.ends.isEmpty { break }
        }
        print(
            "\(what): \(rounds) rounds in \(Int(Date().timeIntervalSince(began))) s, ended: \(traffic.ends.count), \(traffic.report)\(control.map { "; without MAT: \($0.report)" } ?? "")"
        )
        #expect(traffic.ends.isEmpty, "\(traffic.ends)")
        if let control { #expect(control.ends.isEmpty, "without MAT: \(control.ends)") }
    }

    private static func plain(_ lab: Lab) throws -> [Traffic.Way] {
        let output = try lab.shell("mn", "ip -br addr show dev wlan0 scope global")
        let own = output.text.split(separator: " ").dropFirst(2).compactMap { $0.split(separator: "/").first.map(String.init) }
        return [(true, "203.0.113.200"), (false, "2001:db8:99::200")].compactMap { isIPv4, address in
            own.first { $0.contains(":") != isIPv4 }.map { .init(isIPv4: isIPv4, near: "mn", far: "plain", address: address, home: $0) }
        }
    }

    private func script(_ lab: Lab, _ host: String, _ line: String) throws {
        let output = try lab.shell(host, line)
        guard output.status == 0 else { throw Lab.Failure(description: "\(line): \(output.text)") }
    }

    @Test("40 times a mobile node's address goes and comes back the same, for a moment or longer, alone or with its link: no connection ends")
    func bounces() throws {
        let lab = try Lab.shared
        try survive("address away and back", rounds: 40, withPlain: true, lab) { round in
            // Both addresses with their routes, as a DHCP client and the kernel have set them.
            let read =
                "d=wlan0; a4=$(ip -4 -o addr show dev $d scope global | awk '{print $4}'); a6=$(ip -6 -o addr show dev $d scope global | awk '{print $4; exit}');"
                + " g4=$(ip -4 route show default dev $d | awk '{print $3; exit}'); g6=$(ip -6 route show default dev $d | awk '{print $3; exit}');"
                + " m4=$(ip -4 route show default dev $d | sed -n 's/.*metric \\([0-9]*\\).*/\\1/p' | head -1);"
            let pause = [0.011, 0.021, 0.05, 0.3][round % 4]
            let back =
                "ip -4 addr replace $a4 dev $d; ip -4 route replace default via $g4 dev $d ${m4:+metric $m4}; ip -6 addr replace $a6 dev $d nodad;"
                + " ip -6 route show default dev $d | grep -q . || ip -6 route add default via $g6 dev $d metric 1024 2>&1 | grep -v exists; true;"
            switch round % 8 {
            case 0..<4: try script(lab, "mn", "\(read) ip -4 addr del $a4 dev $d; ip -6 addr del $a6 dev $d; sleep \(pause); \(back)")
            case 4, 5: try script(lab, "mn", "\(read) ip link set $d down; sleep \(pause); ip link set $d up; \(back)")
            case 6:
                try script(lab, "mn", "\(read) ip link set $d down; ip link set $d name wlan9; ip link set wlan9 name $d; ip link set $d up; \(back)")
            // One after the other, as two programs do.
            default:
                try script(
                    lab, "mn", "\(read) ip -4 addr flush dev $d scope global; \(back) sleep 0.02; ip -6 addr del $a6 dev $d; sleep 0.02; \(back)")
            }
        }
    }

    @Test("20 renewals that delete the address and add it again, right after each other, on both links: no connection ends")
    func renewals() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "cellular")
        defer { _ = try? lab.lab("detach", "mn", "cellular") }
        try survive("renewals", rounds: 20, lab) { round in
            let device = round.isMultiple(of: 2) ? "wlan0" : "wwan0"
            try script(
                lab, "mn",
                "d=\(device); a=$(ip -4 -o addr show dev $d scope global | awk '{print $4}'); r=$(ip -4 route show dev $d | grep -v 'scope link' | sed 's/ linkdown//');"
                    + "ip addr del $a dev $d; ip addr add $a dev $d; echo \"$r\" | while read -r line; do [ -z \"$line\" ] || ip route replace $line dev $d; done"
            )
        }
    }

    @Test("8 restarts of a stationary server's network: no connection of a peer ends")
    func serverNetwork() throws {
        let lab = try Lab.shared
        try survive("server's network", rounds: 8, lab) { round in
            let read =
                "d=$(ip -o route get 203.0.113.200 from 198.51.100.20 | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p'); a4=$(ip -4 -o addr show dev $d scope global | awk '{print $4; exit}');"
                + " a6=$(ip -6 -o addr show dev $d scope global | awk '{print $4; exit}'); g4=$(ip -4 route show default dev $d | awk '{print $3; exit}'); g6=$(ip -6 route show default dev $d | awk '{print $3; exit}');"
            let back =
                "ip -4 addr replace $a4 dev $d; ip -4 route replace default via $g4 dev $d; ip -6 addr replace $a6 dev $d nodad; ip -6 route replace default via $g6 dev $d;"
            if round.isMultiple(of: 2) {
                try script(lab, "cn", "\(read) ip -4 addr del $a4 dev $d; ip -6 addr del $a6 dev $d; sleep 0.3; \(back)")
            } else {
                try script(lab, "cn", "\(read) ip link set $d down; sleep 0.3; ip link set $d up; \(back)")
            }
        }
    }

    @Test("6 flushed rulesets, on either end: no connection ends where the kernel has tables that outlive their owner")
    func flushes() throws {
        let lab = try Lab.shared
        let version = try lab.shell("mn", "uname -r").text.split(whereSeparator: { !$0.isNumber }).prefix(2).compactMap { Int($0) }
        guard version.lexicographicallyPrecedes([6, 9]) == false else {
            return print("skipped: Linux \(version) has no tables that outlive their owner (6.9 has), and a flush ends connections")
        }
        try survive("flushed rulesets", rounds: 6, lab) { round in
            try script(lab, round.isMultiple(of: 2) ? "mn" : "cn", "nft flush ruleset")
            Thread.sleep(forTimeInterval: 0.1)
        }
    }

    @Test("6 restarts of the agents, as for an upgrade, crashes of each and of both at once with a move: no connection ends")
    func restarts() throws {
        let lab = try Lab.shared
        try survive("restarted agents", rounds: 8, seconds: 20, lab) { round in
            let host = round.isMultiple(of: 2) ? "mn" : "cn"
            if round < 6 {
                try lab.lab("restart", host)
            } else {
                try lab.lab("stop", host, "KILL")
                Thread.sleep(forTimeInterval: 0.3)
                try lab.lab("start", host)
            }
        }
        // Both at once, with a move between.
        try survive("both ends at once", rounds: 2, seconds: 20, lab) { round in
            for host in ["mn", "cn"] { try lab.lab("stop", host, "KILL") }
            for host in ["mn", "cn"] { try lab.lab("start", host) }
            try lab.handOverWithoutOverlap("mn", to: round == 0 ? "cellular" : "wlan")
        }
    }
}

import BenchSupport
import Foundation
import Glibc
import MATSignal
import Namespaces

/// What else could carry packets between fixed addresses, as everybody would set it up.
enum Others {
    /// Both addresses rewritten on both hosts by NAT, which binds a connection at its first packet.
    static func nat(_ network: BenchNetwork, isIPv4: Bool) throws -> any Installed {
        let family = isIPv4 ? "ip" : "ip6"
        let length = isIPv4 ? 32 : 128
        let home = (mn: Plan.mnHoA(isIPv4), cn: Plan.cnHoA(isIPv4))
        let mobile = (mn: Plan.mnMoA(isIPv4), cn: Plan.cnMoA(isIPv4))
        let undo = {
            for (host, own, peer) in [(network.mn, home.mn, home.cn), (network.cn, home.cn, home.mn)] {
                _ = try? host.run("nft delete table \(family) bench_nat")
                _ = try? host.ip("route del \(peer)/\(length)")
                _ = try? host.ip("addr del \(own)/\(length) dev lo")
            }
        }
        return try undoing(undo, .between(home.mn, home.cn)) {
            for (host, own, ownMoA, peer, peerMoA, number) in [
                (network.mn, home.mn, mobile.mn, home.cn, mobile.cn, 1), (network.cn, home.cn, mobile.cn, home.mn, mobile.mn, 2),
            ] {
                try host.ip("addr add \(own)/\(length) dev lo")
                try host.ip("route add \(peer)/\(length) via \(isIPv4 ? "10.71.\(number).1" : "2001:db8:71:\(number)::1") src \(own)")
                try host.run(
                    "nft -f -",
                    input: """
                        table \(family) bench_nat {
                            chain output { type nat hook output priority -100; \(family) daddr \(peer) dnat to \(peerMoA); }
                            chain postrouting { type nat hook postrouting priority 100; \(family) saddr \(own) snat to \(ownMoA); }
                            chain prerouting { type nat hook prerouting priority -100; \(family) saddr \(peerMoA) dnat to \(own); }
                            chain input { type nat hook input priority 100; \(family) saddr \(peerMoA) snat to \(peer); }
                        }

                        """)
            }
        }
    }

    static func vxlan(_ network: BenchNetwork, isIPv4: Bool) throws -> any Installed {
        let ends = tunnelEnds(isIPv4)
        let undo = { for host in [network.mn, network.cn] { _ = try? host.ip("link del tunnel0") } }
        return try undoing(undo, ends) {
            for (host, own, far, address) in [
                (network.mn, Plan.mnMoA(isIPv4), Plan.cnMoA(isIPv4), ends.mn.local),
                (network.cn, Plan.cnMoA(isIPv4), Plan.mnMoA(isIPv4), ends.cn.local),
            ] {
                try host.ip("link add tunnel0 type vxlan id 42 local \(own) remote \(far) dstport 4789 dev eth0")
                try host.ip("addr add \(address)/\(isIPv4 ? 24 : 64) dev tunnel0\(isIPv4 ? "" : " nodad")")
                try host.ip("link set tunnel0 up")
            }
        }
    }

    /// Debian's userspace WireGuard, both processes on the measured core like everything else.
    ///
    /// - Parameter seen: where CN sees MN, if not at its own address.
    static func wireguard(_ network: BenchNetwork, _ cores: Cores, isIPv4: Bool, seen: IPAddress? = nil) throws -> any Installed {
        let ends = tunnelEnds(isIPv4)
        let processes = Processes()
        let undo = {
            processes.end()
            for (host, letter) in [(network.mn, "m"), (network.cn, "c")] {
                _ = try? host.ip("link del wgb\(getpid())\(letter)")
                unlink("/var/run/wireguard/wgb\(getpid())\(letter).sock")
            }
        }
        return try undoing(undo, ends, elsewhere: { processes.processorNanoseconds() }) {
            let keys = try [network.mn, network.cn].map { _ in try shell("wg genkey").trimmingCharacters(in: .whitespacesAndNewlines) }
            let publicKeys = try keys.map { try shell("wg pubkey", input: $0).trimmingCharacters(in: .whitespacesAndNewlines) }
            let hosts = [
                (network.mn, Plan.cnMoA(isIPv4), ends.mn.local, 0), (network.cn, seen ?? Plan.mnMoA(isIPv4), ends.cn.local, 1),
            ]
            for (host, far, address, index) in hosts {
                // The name is the host's, yet the control socket in /var/run/wireguard is everybody's.
                let device = "wgb\(getpid())\(index == 0 ? "m" : "c")"
                try processes.start("ip netns exec \(host.name) taskset -c \(cores.measured) wireguard-go -f \(device)")
                for attempt in 0... {
                    if (try? shell("test -S /var/run/wireguard/\(device).sock")) != nil { break }
                    guard attempt < 200 else { throw BenchError("wireguard-go does not start") }
                    usleep(10_000)
                }
                let remote = isIPv4 ? "\(far)" : "[\(far)]"
                try host.run(
                    "sh -c 'umask 077; cat >/tmp/\(device).key; wg set \(device) listen-port 51820 private-key /tmp/\(device).key "
                        + "peer \(publicKeys[1 - index]) endpoint \(remote):51820 allowed-ips 0.0.0.0/0,::/0; rm -f /tmp/\(device).key'",
                    input: keys[index])
                try host.ip("addr add \(address)/\(isIPv4 ? 24 : 64) dev \(device)\(isIPv4 ? "" : " nodad")")
                try host.ip("link set \(device) up")
            }
        }
    }

    /// A host's usual stateful rules on both hosts, for `inner` to be measured with.
    static func firewall(_ network: BenchNetwork, around inner: any Installed) throws -> any Installed {
        let undo = {
            for host in [network.mn, network.cn] { _ = try? host.run("nft delete table inet bench_firewall") }
            inner.remove()
        }
        return try undoing(undo, inner.ends) {
            for host in [network.mn, network.cn] {
                try host.run(
                    "nft -f -",
                    input: """
                        table inet bench_firewall {
                            chain input {
                                type filter hook input priority 0; policy drop;
                                ct state established,related accept
                                iif lo accept
                                meta l4proto { icmp, icmpv6 } accept
                                meta l4proto { tcp, udp } th dport \(Runner.ports.lowerBound)-\(Runner.ports.upperBound) accept
                            }
                            chain output {
                                type filter hook output priority 0; policy drop;
                                ct state established,related accept
                                ct state new accept
                            }
                        }

                        """)
            }
        }
    }

    private static func tunnelEnds(_ isIPv4: Bool) -> Ends {
        .between(Plan.address(isIPv4 ? "10.72.0.1" : "2001:db8:72::1"), Plan.address(isIPv4 ? "10.72.0.2" : "2001:db8:72::2"))
    }

    private static func undoing(
        _ undo: @escaping () -> Void, _ ends: Ends, elsewhere: @escaping () -> Double = { 0 }, _ body: () throws -> Void
    ) throws -> any Installed {
        do { try body() } catch {
            undo()
            throw error
        }
        return Simple(ends, elsewhere: elsewhere, undo: undo)
    }
}

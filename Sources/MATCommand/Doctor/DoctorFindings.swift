import MATControl
import MATCore
import MATRuntime
import MATSignal

/// What facts amount to. Pure: `DoctorSurvey` gathers them.
enum DoctorFindings {
    // MARK: The host

    static func of(_ host: HostFacts, forNode isNode: Bool) -> [DoctorFinding] {
        clock(host) + (isNode ? kernel(host) + links(host) : [])
    }

    private static func clock(_ host: HostFacts) -> [DoctorFinding] {
        switch host.clock {
        case .synchronized: [DoctorFinding(.ok, "clock", "the kernel's clock is synchronised")]
        case .free:
            [
                DoctorFinding(
                    .warning, "clock", "no NTP client holds the clock; records more than 5 minutes off are refused by everybody",
                    remedy: "`timedatectl set-ntp true`, or install chrony")
            ]
        }
    }

    private static func kernel(_ host: HostFacts) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        switch host.tunnelDevice {
        case .usable: findings.append(DoctorFinding(.ok, "kernel", "/dev/net/tun can be opened"))
        case .missing:
            findings.append(
                DoctorFinding(
                    .problem, "kernel", "there is no /dev/net/tun, which matd needs for packets that wait",
                    remedy: "`modprobe tun`; in a container, give it the device (`--device /dev/net/tun`)"))
        case .refused(let reason):
            findings.append(
                DoctorFinding(
                    host.isRoot ? .problem : .note, "kernel", "/dev/net/tun can't be opened: \(reason)",
                    remedy: host.isRoot ? "in a container, allow the device in its device rules" : "run `mat doctor` as root to see what matd can"))
        }
        if !host.hasPrograms {
            findings.append(
                DoctorFinding(
                    .note, "kernel", "/sys/fs/bpf is not mounted, so packets in datagrams go through the agent, which takes more processor time",
                    remedy: "`mount -t bpf bpf /sys/fs/bpf`; systemd does it at boot"))
        }
        return findings
    }

    /// Addresses that matd can't use for want of a default route: it does not list them, since they are none of its own.
    private static func links(_ host: HostFacts) -> [DoctorFinding] {
        guard !host.interfaces.isEmpty else {
            return [
                DoctorFinding(
                    .problem, "network", "no interface has an address that others could reach", remedy: "connect this host to a network: `ip addr`")
            ]
        }
        var findings: [DoctorFinding] = []
        for interface in host.interfaces {
            let idle = AddressFamily.allCases.filter { family in
                !interface.hasDefaultRoute.contains(family) && interface.addresses.contains { $0.isIPv4 == (family == .ipv4) }
            }
            for family in idle {
                let addresses = interface.addresses.filter { $0.isIPv4 == (family == .ipv4) }.map(\.description).joined(separator: ", ")
                let others = host.interfaces.contains { $0.name != interface.name && $0.hasDefaultRoute.contains(family) }
                findings.append(
                    DoctorFinding(
                        others ? .warning : .note, "network",
                        "\(interface.name) (\(addresses)) has no \(family) default route, so nothing can leave over it to elsewhere: it is no mobile address",
                        remedy: others
                            ? "if it should be one, have its DHCP client set a route of its own: a metric for each interface (dhclient can't; systemd-networkd `RouteMetric`, NetworkManager `ipv4.route-metric`), or `ip route add default via ROUTER dev \(interface.name) metric 200`"
                            : "if it should be one, `ip route add default via ROUTER dev \(interface.name)`; or `interfaces: need-default-route: no` in matd.yaml"
                    ))
            }
            if interface.reversePathFilter == 1, host.interfaces.count > 1 {
                findings.append(
                    DoctorFinding(
                        .note, "network",
                        "\(interface.name) has the strict reverse path filter: packets that come over a link other than the default route's are dropped",
                        remedy: "`reverse-path: loosen` in matd.yaml, or net.ipv4.conf.*.rp_filter = 2 with sysctl"))
            }
        }
        if findings.isEmpty {
            findings.append(DoctorFinding(.ok, "network", "\(host.interfaces.map(\.name).joined(separator: ", ")) can be left by a default route"))
        }
        return findings
    }

    // MARK: A daemon

    /// What `matd --check`, `imsd --check` or `mat-relay --check` said.
    static func check(of daemon: String, status: Int32?, output: String) -> DoctorFinding {
        guard let status else {
            return DoctorFinding(
                .problem, "configuration", "\(daemon) is not to be found beside mat or in the PATH, so its configuration was not checked",
                remedy: "install \(daemon)")
        }
        let text = output.split(separator: "\n").map(String.init).joined(separator: "; ")
        if status == 0 { return DoctorFinding(.ok, "configuration", text.isEmpty ? "\(daemon) --check finds nothing wrong" : text) }
        return DoctorFinding(
            .problem, "configuration", text.isEmpty ? "\(daemon) --check ended with \(status)" : text,
            remedy: "mend the file, then `\(daemon) --check` again")
    }

    /// - Parameter failure: why the program could not be asked about the file.
    static func uncheckable(_ program: String, _ configuration: String, _ failure: String) -> DoctorFinding {
        DoctorFinding(
            .problem, "configuration", "\(configuration) was not checked: \(program): \(failure)",
            remedy: "try `\(program) --check --config \(configuration)`: a file that it names may be where nothing answers")
    }

    /// As reports have it: 192.0.2.1:6290, [2001:db8::1]:6290.
    static func endpoint(_ text: String) -> Endpoint? {
        guard case .value(let endpoint) = ConfigurationKind.endpoint(defaultPort: 0).parse(text), endpoint.port > 0 else { return nil }
        return endpoint
    }

    static func unreachable(_ daemon: String, _ failure: CommandFailure) -> DoctorFinding {
        // The remedy is in the sentence, and it is none of the daemon's.
        if failure.isForbidden {
            return DoctorFinding(.problem, "daemon", failure.description, remedy: "`sudo mat doctor` looks at \(daemon) and all that it does as well")
        }
        return DoctorFinding(
            .problem, "daemon", failure.description,
            remedy: "`systemctl status \(daemon)` and `journalctl -u \(daemon) -n 50`; `systemctl start \(daemon)`")
    }

    // MARK: The node

    static func of(_ node: NodeReport) -> [DoctorFinding] {
        node.homes.flatMap(registration) + addresses(node) + relays(node.relays ?? []) + names(node) + peers(node) + tables(node)
    }

    private static func registration(_ home: HomeReport) -> [DoctorFinding] {
        let name = home.prefix ?? home.address
        var findings: [DoctorFinding] = []
        if let problem = home.problem {
            findings.append(
                DoctorFinding(home.state == "registered" ? .warning : .problem, "registration", "\(name): \(problem)", remedy: home.remedy))
        } else if home.state != "registered" {
            findings.append(
                DoctorFinding(
                    .warning, "registration", "\(name) is not registered yet (\(home.state))", remedy: "wait a moment: `mat status --wait 30`"))
        } else {
            let places = home.locators.isEmpty ? "nowhere" : home.locators.joined(separator: ", ")
            findings.append(DoctorFinding(.ok, "registration", "\(name) is registered at \(places)"))
        }
        if home.certificateEndsSoon {
            findings.append(
                DoctorFinding(
                    .warning, "certificate",
                    "\(name): the certificate ends on \(Quantity.date(unixMilliseconds: home.certificateNotAfterMilliseconds)) and was not renewed",
                    remedy: "have the operator of the mapping server enrol this node's key again: `mat enrol \(home.address)`"))
        }
        return findings
    }

    private static func addresses(_ node: NodeReport) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        if node.locators.isEmpty {
            findings.append(
                DoctorFinding(
                    .problem, "network", "this host has no usable mobile address; packets from home addresses wait",
                    remedy: node.unusedAddresses.isEmpty
                        ? "connect it to a network" : "the addresses that it has are not used, see below; `interfaces` in matd.yaml may exclude them")
            )
        }
        for address in node.unusedAddresses {
            findings.append(
                DoctorFinding(
                    node.locators.isEmpty ? .problem : .note, "network", "\(address.address) on \(address.interface) is not used: \(address.reason)"))
        }
        for locator in node.locators {
            switch locator.state {
            case "dead":
                findings.append(
                    DoctorFinding(
                        .warning, "network", "nothing answers over \(locator.interface) (\(locator.address))",
                        remedy: "see that network; other links are used meanwhile, and it is tried again by itself"))
            case "flapping":
                findings.append(
                    DoctorFinding(
                        .warning, "network", "\(locator.interface) (\(locator.address)) comes and goes", remedy: "see its cable, radio or DHCP lease")
                )
            case "refused":
                findings.append(
                    DoctorFinding(
                        .warning, "network", "\(locator.address) on \(locator.interface) can't be registered: \(locator.reason ?? "refused")"))
            default: break
            }
            if let translation = locator.translation {
                let dependent = translation.mapping == .endpointDependent
                findings.append(
                    DoctorFinding(
                        .note, "NAT", "\(locator.address) on \(locator.interface) is \(translation.text)",
                        remedy: dependent
                            ? "peers behind such translators are reached by a relay only: see that one is bound (below), or forward UDP port 6289 to this host in the router"
                            : nil))
            }
        }
        for router in node.silentRouters {
            findings.append(
                DoctorFinding(
                    .warning, "network", "the router \(router.address) on \(router.interface) does not answer",
                    remedy: router.instead.map { "\($0) is used meanwhile; take the dead one out of the network's advertisements" }
                        ?? "see that network"))
        }
        return findings
    }

    private static func relays(_ relays: [RelayReport]) -> [DoctorFinding] {
        relays.compactMap { relay in
            let name = relay.addresses.first ?? "?"
            switch relay.state {
            case .bound, .notNeeded, .asked: return nil
            case .silent:
                return DoctorFinding(
                    .warning, "relay", "the relay \(name) does not answer",
                    remedy: "UDP port \(endpoint(name)?.port ?? SignalPort.relay) there must be open; `systemctl status mat-relay` on it")
            case .refused:
                return DoctorFinding(
                    .warning, "relay", "the relay \(name) refuses \(relay.home): \(relay.reason ?? "no reason given")",
                    remedy: "see `residents` and `refuse-visitors` in its mat-relay.yaml")
            case .unlisted:
                return DoctorFinding(
                    .warning, "relay", "bound at the relay \(name), but the mapping server takes no record that says so",
                    remedy: "`accept-relays` in imsd.yaml")
            case .unreachable:
                return DoctorFinding(.note, "relay", "the relay \(name) has no address of a family that this host has")
            }
        }
    }

    private static func names(_ node: NodeReport) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        let servers = node.dns?.servers ?? []
        for server in servers where server.failure != nil {
            findings.append(
                DoctorFinding(
                    servers.allSatisfy { $0.failure != nil } ? .problem : .warning, "DNS",
                    "the DNS server \(server.address): \(server.failure ?? "")",
                    remedy: (IPAddress(server.address)?.isLoopback == true
                        ? "it is a program on this host, which asks others: see that it runs and whom it asks (`resolvectl status`, `systemctl status systemd-resolved`, or what has `ss -lun sport = 53`); "
                        : "") + "servers come from \(node.dns?.from ?? "/etc/resolv.conf"); `dns` in matd.yaml names others"))
        }
        for destination in node.undecided.destinations {
            findings.append(
                DoctorFinding(
                    .warning, "DNS",
                    "whether \(destination.address) is a MAT node is unknown, \(destination.isPlain ? "so it is talked to plainly and that survives no move" : "and packets to it wait"): \(destination.reason)",
                    remedy: "`mat lookup \(destination.address)`"))
        }
        return findings
    }

    /// More would hide the rest.
    private static let peersMax = 8

    private static func peers(_ node: NodeReport) -> [DoctorFinding] {
        let bad = node.peers.filter { $0.standing != nil && $0.standing != .mapped || $0.problem != nil }
        var findings = bad.prefix(peersMax).map { peer in
            DoctorFinding(
                .warning, "peer", "\(peer.home): \(peer.standingReason ?? peer.problem ?? "it would not survive a move")",
                remedy: "`mat why \(peer.home)`")
        }
        if bad.count > peersMax {
            findings.append(DoctorFinding(.warning, "peer", "\(bad.count - peersMax) more peers would not survive a move", remedy: "`mat peers`"))
        }
        if bad.isEmpty, node.peersCount > 0 {
            findings.append(DoctorFinding(.ok, "peer", "conversations with \(Quantity.count(Int64(node.peersCount), "peer")) would survive a move"))
        }
        return findings
    }

    private static func tables(_ node: NodeReport) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        if node.repairs > 0 {
            findings.append(
                DoctorFinding(
                    .note, "kernel", "matd's entries in the kernel were mended \(node.repairs) times\(node.lastRepair.map { ": \($0)" } ?? "")",
                    remedy: "something else changes nftables, rules or routes: look at what runs when the log says so"))
        }
        if !node.routingRules.before.isEmpty {
            findings.append(
                DoctorFinding(
                    .warning, "kernel", "routing rules of other programs come before matd's: \(node.routingRules.before.joined(separator: "; "))",
                    remedy: "a VPN that takes all traffic takes home addresses' too; `rules` in matd.yaml"))
        }
        return findings
    }

    /// By whom home addresses are looked up here.
    static func of(_ dns: DNSChoice) -> [DoctorFinding] {
        var findings = [DoctorFinding(.ok, "DNS", "home addresses are looked up by \(dns.asked)")]
        if let doubt = dns.doubt { findings.append(DoctorFinding(.warning, "DNS", doubt, remedy: "run `mat doctor` as root")) }
        return findings
    }

    // MARK: A home address as others find it

    /// - Parameter home: as the node sees it; `nil` on another host.
    static func of(_ findings: LookupFindings, home: HomeReport?) -> [DoctorFinding] {
        var result: [DoctorFinding] = []
        switch findings.verdict {
        case .reachable:
            result.append(DoctorFinding(.ok, "reverse zone", "\(findings.hoa) is found by its reverse name, and its mapping is to be believed"))
        case .not(let what, let remedy):
            result.append(DoctorFinding(.problem, "reverse zone", what, remedy: remedy))
        }
        for query in findings.queries where query.outcome == .silent {
            result.append(
                DoctorFinding(
                    .warning, "mapping server", "\(query.server) does not answer",
                    remedy: "see there `systemctl status imsd`, and that UDP port 6288 is open"))
        }
        if case .found? = findings.dns {
            if let twice = findings.doubledServer {
                result.append(
                    DoctorFinding(
                        .warning, "reverse zone",
                        "the zone lists the server \(twice) more than once at \(findings.name): old lines of `mat zone` are still there",
                        remedy: "take out the older lines; `mat zone --into FILE` replaces its own, and names others"))
            }
            for (server, difference) in findings.clocks where abs(difference) >= 30 {
                result.append(
                    DoctorFinding(
                        abs(difference) > 240 ? .problem : .warning, "clock",
                        "the clock of \(server) is \(Quantity.duration(seconds: abs(difference))) \(difference > 0 ? "ahead of" : "behind") this host's",
                        remedy: "set the wrong one; 5 minutes are the most that anybody takes"))
            }
        }
        if let home, let mapping = findings.mapping, mapping.record.sequence < home.sequence {
            result.append(
                DoctorFinding(
                    .warning, "registration",
                    "others are given an older record of \(findings.hoa) than this node has made (\(mapping.record.sequence) and \(home.sequence))",
                    remedy: "if it stays so for a minute, the servers do not share their store: compare `mat ims show \(findings.hoa)` on each"))
        }
        return result
    }

    // MARK: The mapping server

    static func of(_ server: IMSStatusReport) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        if let reason = server.store.unavailable {
            findings.append(
                DoctorFinding(
                    .problem, "store", "the store takes no change: \(reason)", remedy: "see \(server.store.path); updates are refused until then"))
        } else if let failure = server.store.lastFailure {
            findings.append(
                DoctorFinding(.warning, "store", "the store's last failure: \(failure)", remedy: "see \(server.store.path): space, and rights"))
        } else {
            findings.append(
                DoctorFinding(
                    .ok, "store",
                    "\(server.store.path): \(Quantity.count(Int64(server.mappings), "mapping")), \(Quantity.count(Int64(server.bindings), "binding"))"
                ))
        }
        if server.prefixes.isEmpty {
            findings.append(DoctorFinding(.problem, "configuration", "no prefix is served", remedy: "`prefixes` in imsd.yaml"))
        }
        for prefix in server.prefixes {
            if let most = prefix.mappingsMax, prefix.mappings >= most {
                findings.append(
                    DoctorFinding(
                        .warning, "store", "\(prefix.prefix) is full: \(prefix.mappings) of \(most) mappings", remedy: "raise its limit in imsd.yaml")
                )
            }
        }
        let certificates = server.certificates
        if certificates.endingSoon > 0 {
            findings.append(
                DoctorFinding(
                    .note, "certificates",
                    "\(Quantity.count(Int64(certificates.endingSoon), "certificate")) will end soon and are renewed when their nodes register",
                    remedy: "`mat ims enrolled` shows which nodes have not been seen for long"))
        }
        if server.datagrams.lostBeforeCore > 0 {
            findings.append(
                DoctorFinding(
                    .warning, "load", "\(server.datagrams.lostBeforeCore) datagrams were lost before they were looked at",
                    remedy: "`threads` in imsd.yaml, or a second server"))
        }
        return findings
    }

    /// Whether both forms in which a zone can name servers say the same: who can't get the one reads the other.
    static func forms(_ findings: LookupFindings) -> [DoctorFinding] {
        guard case .found(let record)? = findings.dns, record.form == .record else { return [] }
        let what: String
        switch findings.otherForm {
        case nil, .absent?, .failed?: return []
        case .unusable(let reason)?: what = "can't be used (\(reason))"
        case .found(let service)?:
            let hasOtherServers = !isSame(record.ordered, service.ordered)
            guard hasOtherServers || Set(record.keys) != Set(service.keys) else { return [] }
            what = "name other \(hasOtherServers ? "mapping servers" : "keys") than its records of type IMS"
        }
        return [
            DoctorFinding(
                .warning, "reverse zone",
                "SRV and TXT below \(findings.name) \(what): nodes whose resolver does not pass on records of type IMS read them, and are misled",
                remedy: "replace both by the lines of `mat zone --form both`, or take out SRV and TXT, and raise the serial")
        ]
    }

    /// Whether servers have the same names and ports, and each an address by which it is known in both: a record may have some of them only.
    private static func isSame(_ servers: [IMSHost], _ others: [IMSHost]) -> Bool {
        func places(_ hosts: [IMSHost]) -> [DomainName: Set<Endpoint>] {
            Dictionary(hosts.map { ($0.target, Set($0.endpoints)) }, uniquingKeysWith: { $0.union($1) })
        }
        let (places, otherPlaces) = (places(servers), places(others))
        guard Set(places.keys) == Set(otherPlaces.keys) else { return false }
        return places.allSatisfy { name, endpoints in !endpoints.isDisjoint(with: otherPlaces[name] ?? []) }
    }

    /// Whether the zone names this server for what it serves.
    static func delegation(of prefix: String, _ findings: LookupFindings, keys: [String]) -> DoctorFinding {
        switch findings.dns {
        case .found(let servers)?:
            let published = servers.keys.map { KeyFile.write($0) }
            if published.contains(where: keys.contains) {
                let others = published.filter { !keys.contains($0) }
                if !others.isEmpty {
                    return DoctorFinding(
                        .warning, "reverse zone",
                        "\(prefix): the DNS names keys at \(findings.name) that this server does not know, beside its own: \(others.joined(separator: ", ")); who has them can give these addresses away",
                        remedy:
                            "take lines with keys of before out of the reverse zone, and raise its serial; if another server of yours signs with it, add it to `public-keys` in imsd.yaml"
                    )
                }
                return DoctorFinding(.ok, "reverse zone", "\(prefix): the DNS names this server's key at \(findings.name)")
            }
            return DoctorFinding(
                .problem, "reverse zone",
                "\(prefix): the DNS has other keys at \(findings.name) than this server signs with; no node will be believed",
                remedy: "replace the lines in the reverse zone by those of `mat zone`, and raise its serial")
        case .absent?:
            return DoctorFinding(
                .problem, "reverse zone", "\(prefix): the DNS has no mapping server at \(findings.name), so nobody finds these nodes",
                remedy:
                    "add the lines of `mat zone` to the reverse zone, raise its serial, and see that the zone is delegated: `dig +trace \(findings.name) TYPE65400`"
            )
        case .failed(let reason)?, .unusable(let reason)?:
            return DoctorFinding(
                .problem, "reverse zone", "\(prefix): \(findings.name) can't be looked up: \(reason)",
                remedy: "a zone that is delegated to servers that do not have it is lame: `dig +trace \(findings.name) TYPE65400`")
        case nil:
            return DoctorFinding(.problem, "reverse zone", "\(prefix): nothing was asked")
        }
    }
}

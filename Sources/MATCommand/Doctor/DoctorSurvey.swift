import CLinux
import Foundation
import Glibc
import MATControl
import MATCore
import MATDNS
import MATRuntime
import MATSignal

/// Gathers what `DoctorFindings` judges: files, the kernel's tables, daemons, the DNS and the servers that it names. Changes nothing.
struct DoctorSurvey {
    private(set) var findings: [DoctorFinding] = []
    private let facts = Self.host()
    /// Whom the daemon that is looked at asks.
    private var dns = DNSChoice(configuration: "")
    /// What the DNS said of home addresses, for what is asked of it besides.
    private var lookUps: [LookupFindings] = []

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    // MARK: Roles

    mutating func lookAtHost(isNode: Bool) { findings += DoctorFindings.of(facts, forNode: isNode) }

    mutating func lookAtNode(configuration: String, control: String) {
        check("matd", configuration)
        dns = DNSChoice(configuration: configuration)
        let report: NodeReport
        do throws(CommandFailure) {
            report = try NodeControl.request(.status, as: NodeReport.self, at: control)
        } catch {
            return findings.append(DoctorFindings.unreachable("matd", error))
        }
        findings += DoctorFindings.of(report) + DoctorFindings.port(report)
        let homes = report.homes.compactMap { IPAddress($0.address) }
        findings += DoctorFindings.of(dns)
        for home in report.homes { lookUp(home.address) { DoctorFindings.of($0, home: home) + DoctorFindings.forms($0) } }
        let relays = lookUps.flatMap(\.relays) + (report.relays ?? []).flatMap(\.addresses).compactMap(DoctorFindings.endpoint)
        lookAtFirewall([.node(homes: homes, relays: relays.isEmpty ? [SignalPort.relay] : Set(relays.map(\.port)).sorted())])
        let servers = (report.dns?.servers ?? []).filter { $0.failure == nil }.compactMap { server in
            IPAddress(String(server.address.prefix { $0 != "%" })).map { Endpoint($0, port: server.port) }
        }
        lookAtDNSSEC(of: homes, by: servers)
        lookAtSizes(homes: homes, servers: report.homes.flatMap(\.servers).compactMap { DoctorFindings.endpoint($0)?.address })
        lookAtRelays()
    }

    mutating func lookAtServer(configuration: String, control: String) {
        check("imsd", configuration)
        dns = DNSChoice(configuration: configuration)
        findings += DoctorFindings.kernel(KernelProbe.look(forwards: false), of: .mappingServer)
        let report: IMSStatusReport
        do throws(CommandFailure) {
            report = try IMSControl.request(.status, as: IMSStatusReport.self, at: control)
        } catch {
            return findings.append(DoctorFindings.unreachable("imsd", error))
        }
        findings += DoctorFindings.of(report)
        findings.append(DoctorFindings.heard(report))
        lookAtFirewall([.server(port: report.port)])
        let keys = report.keys.map(\.publicKey)
        findings += DoctorFindings.of(dns)
        // The wildcard of a prefix is seen at any of its addresses; the first is nobody's.
        for (index, prefix) in report.prefixes.enumerated() {
            guard let first = prefix.prefix.split(separator: "/").first else { continue }
            var address = String(first)
            if let known = IPPrefix(prefix.prefix), known.family == .ipv4, (25..<32).contains(known.familyLength), index < Self.addressesMax {
                guard let found = lookAtNames(of: known) else { continue }
                address = "\(found)"
            }
            lookUp(address) { [DoctorFindings.delegation(of: prefix.prefix, $0, keys: keys)] + DoctorFindings.forms($0) }
        }
        let published = lookUps.flatMap(\.servers)
        findings += DoctorFindings.outside("this mapping server", port: report.port, published: published, own: Self.addresses())
        lookAtDNSSEC(of: lookUps.map(\.hoa.address), by: dns.configuration.servers.map(\.endpoint))
    }

    mutating func lookAtRelay(configuration: String) {
        check("mat-relay", configuration)
        let file = try? ConfigurationFile.read(path: configuration)
        let port = file?.section("listen").value("port", .port, default: SignalPort.relay) ?? SignalPort.relay
        let forwarding = file?.value("forwarding", .string, default: "auto") ?? "auto"
        let pins = file?.value("pins", .string, default: Self.relayPins) ?? Self.relayPins
        findings += DoctorFindings.kernel(
            KernelProbe.look(forwards: true, isRoot: facts.isRoot, pins: pins, port: port), of: .relay(forwarding: forwarding))
        findings.append(
            ["/proc/net/udp", "/proc/net/udp6"].flatMap(Self.boundPorts).contains(port)
                ? DoctorFinding(.ok, "relay", "something listens on UDP port \(port)")
                : DoctorFinding(
                    .problem, "relay",
                    "nothing listens on UDP port \(port), the relay's\(file == nil ? " unless a file says otherwise" : " by \(configuration)")",
                    remedy: "`systemctl status mat-relay`, and its journal for why it does not run"))
        lookAtFirewall([.relay(port: port)])
    }

    /// mat-relay.yaml(5), `pins`.
    private static let relayPins = "/sys/fs/bpf/mat-relay"

    // MARK: The host's network

    private mutating func lookAtFirewall(_ roles: [FirewallQuestion.Role]) {
        let isRoot = facts.isRoot
        let (firewall, gaps) = isRoot ? FirewallSurvey.read() : (HostFirewall(), [])
        findings += DoctorFindings.firewall(firewall, gaps: gaps, roles: roles, interfaces: facts.interfaces, isRoot: isRoot)
    }

    /// Of each family one address: the zones of several are mostly of one make.
    private mutating func lookAtDNSSEC(of addresses: [IPAddress], by resolvers: [Endpoint]) {
        guard let resolver = resolvers.first else { return }
        for address in addresses.prefix(Self.addressesMax) {
            let name = DomainName.reverse(HomeAddress(address))
            let facts = DNSSECProbe.ask(resolver, about: name, isRequired: dns.requiresDNSSEC)
            var parts = [facts]
            // Two zones have to be in order then, that of the alias and the one it leads into, and the answer does not tell which is not.
            if let alias = lookUps.first(where: { $0.hoa.address == address })?.alias, facts.answer?.isAuthenticated == false {
                let both = [
                    DNSSECProbe.ask(resolver, about: name, .cname, isRequired: dns.requiresDNSSEC),
                    DNSSECProbe.ask(resolver, about: alias, isRequired: dns.requiresDNSSEC),
                ].filter { $0.answer?.isAuthenticated == false }
                if !both.isEmpty { parts = both }
            }
            findings += parts.compactMap(DoctorFindings.dnssec)
        }
    }

    /// Each of these takes some time.
    private static let addressesMax = 4

    private mutating func lookAtSizes(homes: [IPAddress], servers: [IPAddress]) {
        var paths: [PathSize] = []
        for route in facts.defaultRoutes {
            guard let interface = facts.interfaces.first(where: { $0.name == route.interface }) else { continue }
            let targets = [(PathSize.Target.router, route.router)] + [(.mappingServer, servers.first { $0.family == route.family })]
            for case (let kind, let address?) in targets {
                guard !paths.contains(where: { $0.address == address && $0.interface == interface.name }),
                    let path = PathSizeProbe.measure(kind, address, over: interface.name, mtu: route.mtu ?? interface.mtu)
                else { continue }
                paths.append(path)
                // Beyond a router that takes no large packets nobody gets any.
                if kind == .router, let largest = path.answered.max(), largest < path.mtu { break }
            }
        }
        findings += DoctorFindings.sizes(facts, paths, homes: Set(homes.map(\.family)).sorted())
    }

    private mutating func lookAtRelays() {
        let relays = Set(lookUps.flatMap(\.relays)).sorted()
        let reached = relays.filter { relay in facts.interfaces.contains { $0.hasDefaultRoute.contains(relay.address.family) } }
        findings += DoctorFindings.relays(reached.prefix(Self.addressesMax).map { PortProbe(endpoint: $0, answered: RelayProbe.answers($0)) })
    }

    /// Every name of a prefix that is smaller than a zone.
    ///
    /// - Returns: an address at whose name there is a mapping server.
    private mutating func lookAtNames(of prefix: IPPrefix) -> IPAddress? {
        do throws(CommandFailure) {
            let names = try NameSurvey.look(at: prefix, by: dns)
            findings += DoctorFindings.names(of: prefix, names)
            return names.first { $0.outcome == .found }?.address
        } catch {
            findings.append(DoctorFinding(.problem, "DNS", "the names of \(prefix) can't be looked up: \(error.description)"))
            return nil
        }
    }

    private mutating func lookUp(_ address: String, _ judge: (LookupFindings) -> [DoctorFinding]) {
        guard let address = IPAddress(address) else { return }
        do throws(CommandFailure) {
            let found = try LookupWalk.run(HomeAddress(address), by: dns, comparesForms: true)
            lookUps.append(found)
            findings += judge(found)
        } catch {
            findings.append(DoctorFinding(.problem, "DNS", "\(address) can't be looked up: \(error.description)"))
        }
    }

    // MARK: Programs

    /// Asks a daemon's program what it thinks of its configuration.
    private mutating func check(_ daemon: String, _ configuration: String) {
        guard Self.exists(configuration) else {
            return findings.append(DoctorFinding(.problem, "configuration", "there is no \(configuration)", remedy: "write it: \(daemon).yaml(5)"))
        }
        guard let program = Self.program(daemon) else {
            return findings.append(DoctorFindings.check(of: daemon, status: nil, output: ""))
        }
        let (text, status, failure) = ProgramOutput.run([program, "--check", "--config", configuration], seconds: Self.checkSecondsMax)
        findings.append(
            failure.map { DoctorFindings.uncheckable(program, configuration, $0) }
                ?? DoctorFindings.check(of: daemon, status: status, output: String(text.prefix(4096))))
    }

    /// What a daemon has for looking at its configuration, which names files on file systems that may be far.
    private static let checkSecondsMax = 10

    /// Beside this program, then where the PATH says, then where daemons are.
    static func program(_ name: String) -> String? {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")).map { URL(fileURLWithPath: $0) }
        let path = (getenv("PATH").map { String(cString: $0) } ?? "").split(separator: ":").map(String.init)
        let places = [own?.deletingLastPathComponent().path].compactMap { $0 } + path + ["/usr/sbin", "/usr/local/sbin", "/sbin"]
        return places.map { $0 + "/" + name }.first { access($0, X_OK) == 0 }
    }

    // MARK: The host

    private static func host() -> HostFacts {
        var facts = HostFacts()
        facts.isRoot = geteuid() == 0
        facts.clock = clock()
        facts.tunnelDevice = tunnelDevice()
        facts.hasPrograms = hasPrograms()
        facts.interfaces = interfaces()
        facts.defaultRoutes = AddressFamily.allCases.flatMap(DefaultRoutes.read)
        return facts
    }

    private static func clock() -> HostFacts.Clock { mat_clock_is_synchronized() != 0 ? .synchronized : .free }

    private static func tunnelDevice() -> HostFacts.Device {
        let descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC)
        guard descriptor < 0 else {
            close(descriptor)
            return .usable
        }
        return errno == ENOENT ? .missing : .refused(String(cString: strerror(errno)))
    }

    private static func hasPrograms() -> Bool { mat_is_bpf_file_system("/sys/fs/bpf") != 0 }

    /// All addresses of this host.
    private static func addresses() -> [IPAddress] { listAddresses { _ in true }.values.flatMap { $0 } }

    /// By interface.
    private static func listAddresses(_ isWanted: (ifaddrs) -> Bool) -> [String: [IPAddress]] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [:] }
        defer { freeifaddrs(first) }
        var found: [String: [IPAddress]] = [:]
        var next = first
        while let entry = next?.pointee {
            next = entry.ifa_next
            guard isWanted(entry), let address = entry.ifa_addr.flatMap(SocketAddress.address) else { continue }
            found[String(cString: entry.ifa_name), default: []].append(address)
        }
        return found
    }

    /// Interfaces with addresses that others can reach, and their default routes.
    private static func interfaces() -> [HostFacts.Interface] {
        // Without the agent's own device, and links that are down.
        let found = listAddresses { $0.ifa_flags & UInt32(IFF_LOOPBACK) == 0 && $0.ifa_flags & UInt32(IFF_UP) != 0 }
            .filter { $0.key != "mat0" }.mapValues { $0.filter { $0.scope != .none } }.filter { !$0.value.isEmpty }
        let routes = defaultRoutes()
        return found.sorted { $0.key < $1.key }.map { name, addresses in
            HostFacts.Interface(
                name: name, addresses: addresses.sorted(), hasDefaultRoute: routes[name] ?? [],
                reversePathFilter: ["all", name].compactMap { digit("/proc/sys/net/ipv4/conf/\($0)/rp_filter") }.max(),
                mtu: number("/sys/class/net/\(name)/mtu") ?? 1500)
        }
    }

    /// Families with a default route, by interface: of /proc/net/route and ipv6_route, whose first columns are interface and destination,
    /// or destination and its length.
    private static func defaultRoutes() -> [String: [AddressFamily]] {
        var routes: [String: [AddressFamily]] = [:]
        func add(_ name: Substring, _ family: AddressFamily) {
            if routes[String(name)]?.contains(family) != true { routes[String(name), default: []].append(family) }
        }
        for fields in rows("/proc/net/route") where fields.count > 7 && fields[1] == "00000000" && fields[7] == "00000000" { add(fields[0], .ipv4) }
        for fields in rows("/proc/net/ipv6_route") where fields.count > 9 && fields[1] == "00" && fields[0].allSatisfy({ $0 == "0" }) {
            // The last column; an unreachable default route is on lo.
            if fields[9] != "lo" { add(fields[9], .ipv6) }
        }
        return routes
    }

    private static func boundPorts(_ path: String) -> [UInt16] {
        rows(path).compactMap { fields in fields.count > 1 ? fields[1].split(separator: ":").last.flatMap { UInt16($0, radix: 16) } : nil }
    }

    private static func rows(_ path: String) -> [[Substring]] {
        ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: "\n").map { $0.split { $0 == " " || $0 == "\t" } }
    }

    private static func digit(_ path: String) -> UInt8? { number(path).flatMap { UInt8(exactly: $0) } }

    private static func number(_ path: String) -> Int? {
        (try? String(contentsOfFile: path, encoding: .utf8)).flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
}

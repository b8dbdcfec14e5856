import CLinux
import Foundation
import Glibc
import MATControl
import MATDNS
import MATRuntime
import MATSignal

/// Gathers what `DoctorFindings` judges: files, the kernel's tables, daemons, the DNS and the servers that it names. Changes nothing.
struct DoctorSurvey {
    private(set) var findings: [DoctorFinding] = []

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    // MARK: Roles

    mutating func lookAtHost(isNode: Bool) { findings += DoctorFindings.of(Self.host(), forNode: isNode) }

    mutating func lookAtNode(configuration: String, control: String) {
        check("matd", configuration)
        let report: NodeReport
        do throws(CommandFailure) {
            report = try NodeControl.request(.status, as: NodeReport.self, at: control)
        } catch {
            return findings.append(DoctorFindings.unreachable("matd", error.description))
        }
        findings += DoctorFindings.of(report)
        for home in report.homes { lookUp(home.address) { DoctorFindings.of($0, home: home) } }
    }

    mutating func lookAtServer(configuration: String, control: String) {
        check("imsd", configuration)
        let report: IMSStatusReport
        do throws(CommandFailure) {
            report = try IMSControl.request(.status, as: IMSStatusReport.self, at: control)
        } catch {
            return findings.append(DoctorFindings.unreachable("imsd", error.description))
        }
        findings += DoctorFindings.of(report)
        let keys = report.keys.map(\.publicKey)
        // The wildcard of a prefix is seen at any of its addresses; the first is nobody's.
        for prefix in report.prefixes {
            guard let address = prefix.prefix.split(separator: "/").first else { continue }
            lookUp(String(address)) { [DoctorFindings.delegation(of: prefix.prefix, $0, keys: keys)] }
        }
    }

    mutating func lookAtRelay(configuration: String) {
        check("mat-relay", configuration)
        let ports = ["/proc/net/udp", "/proc/net/udp6"].flatMap(Self.boundPorts)
        findings.append(
            ports.contains(6290)
                ? DoctorFinding(.ok, "relay", "something listens on UDP port 6290")
                : DoctorFinding(
                    .problem, "relay", "nothing listens on UDP port 6290",
                    remedy: "`systemctl status mat-relay`; `listen` in \(configuration) if it is another port"))
    }

    private mutating func lookUp(_ address: String, _ judge: (LookupFindings) -> [DoctorFinding]) {
        guard let address = IPAddress(address) else { return }
        do throws(CommandFailure) {
            findings += judge(try LookupWalk.run(HomeAddress(address), resolvers: []))
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
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = ["--check", "--config", configuration]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        do { try process.run() } catch {
            return findings.append(
                DoctorFinding(
                    .problem, "configuration", "\(program) can't be started: \(error.localizedDescription)", remedy: "install \(daemon) anew"))
        }
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        findings.append(
            DoctorFindings.check(of: daemon, status: process.terminationStatus, output: String(decoding: output.prefix(4096), as: UTF8.self)))
    }

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

    /// Interfaces with addresses that others can reach, and their default routes.
    private static func interfaces() -> [HostFacts.Interface] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var found: [String: [IPAddress]] = [:]
        var next = first
        while let entry = next?.pointee {
            next = entry.ifa_next
            let name = String(cString: entry.ifa_name)
            // The agent's own device, and links that are down.
            guard entry.ifa_flags & UInt32(IFF_LOOPBACK) == 0, entry.ifa_flags & UInt32(IFF_UP) != 0, name != "mat0",
                let address = entry.ifa_addr.flatMap(SocketAddress.address)
            else { continue }
            if address.scope != .none { found[name, default: []].append(address) }
        }
        let routes = defaultRoutes()
        return found.sorted { $0.key < $1.key }.map { name, addresses in
            HostFacts.Interface(
                name: name, addresses: addresses.sorted(), hasDefaultRoute: routes[name] ?? [],
                reversePathFilter: ["all", name].compactMap { digit("/proc/sys/net/ipv4/conf/\($0)/rp_filter") }.max())
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

    private static func digit(_ path: String) -> UInt8? {
        (try? String(contentsOfFile: path, encoding: .utf8)).flatMap { UInt8($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
}

import FoundationEssentials
import Glibc
import MATControl
import MATCore
import MATSignal
import Namespaces

/// The MAT daemons of the lab's hosts: their keys, certificates and configurations, and their processes.
public struct Daemons {
    private static let registrationSeconds = 20
    private static let startSeconds = 10.0
    /// For how long both networks are there, where an agent may not find its way over the new one.
    private static let patienceSeconds = 2.0

    private let lab: Lab
    private var topology: Topology { lab.topology }

    public init(lab: Lab) { self.lab = lab }

    // MARK: Configurations

    /// Makes the servers' keys and configurations.
    ///
    /// - Returns: what the zones say of each.
    func prepareServers() throws -> [ZoneFiles.Server] {
        var servers: [ZoneFiles.Server] = []
        for host in topology.hosts {
            guard case .imsd(let served, let relays) = host.program else { continue }
            let directory = lab.directory(host.name)
            try FileManager.default.createDirectory(atPath: "\(directory)/store", withIntermediateDirectories: true)
            let key = try makeKey("\(directory)/ims.key")
            let addresses = relays.map(topology.addresses)
            try Self.server(served, relays: addresses, directory: directory, resolvers: resolvers).write(
                toFile: "\(directory)/imsd.yaml", atomically: false, encoding: .utf8)
            servers.append(
                ZoneFiles.Server(
                    host: host.name, prefixes: served.compactMap { IPPrefix($0.prefix) }, keys: [key],
                    relays: addresses.map { RelayHost($0.compactMap { IPAddress($0) }.map { Endpoint($0, port: SignalPort.relay) }) }))
        }
        return servers
    }

    private var resolvers: [String] { topology.addresses(topology.resolver) }
    private static func dns(_ resolvers: [String]) -> [String] { ["dns:", "  resolvers: [\(quoted(resolvers))]"] }
    private static func quoted(_ texts: [String]) -> String { texts.map { "\"\($0)\"" }.joined(separator: ", ") }

    /// - Parameter relays: the addresses of each.
    static func server(_ served: [Topology.ServedPrefix], relays: [[String]] = [], directory: String, resolvers: [String]) -> String {
        var lines = ["control: \(directory)/control.sock", "store: \(directory)/store/ims.db", "signing-key: \(directory)/ims.key", "prefixes:"]
        for prefix in served {
            lines.append("  - prefix: \"\(prefix.prefix)\"")
            if !prefix.mobile.isEmpty { lines.append("    mobile-prefixes: [\(quoted(prefix.mobile))]") }
        }
        if !relays.isEmpty { lines.append("relays: [\(quoted(relays.map { $0.joined(separator: ", ") }))]") }
        lines += dns(resolvers) + ["log-level: debug"]
        return lines.joined(separator: "\n") + "\n"
    }

    /// - Parameter others: addresses of the operator's other relays.
    static func relay(_ residents: [String], others: [String], directory: String, resolvers: [String]) -> String {
        var lines = ["residents:"] + residents.map { "  - prefix: \"\($0)\"" }
        if !others.isEmpty { lines.append("other-relays: [\(quoted(others))]") }
        lines += ["state: \(directory)/state"] + dns(resolvers) + ["log-level: debug"]
        return lines.joined(separator: "\n") + "\n"
    }

    private func prepareRelay(_ host: Topology.Host, _ residents: [String]) throws {
        let others = topology.hosts.filter { $0.daemon == "mat-relay" && $0.name != host.name }.flatMap(\.plainAddresses)
        let directory = lab.directory(host.name)
        try Self.relay(residents, others: others, directory: directory, resolvers: resolvers).write(
            toFile: "\(directory)/mat-relay.yaml", atomically: false, encoding: .utf8)
    }

    /// Makes a node's key, has it certified by its IMS, which must run, and writes its configuration.
    private func prepare(_ host: Topology.Host, _ node: Topology.Node) throws {
        let directory = lab.directory(host.name)
        try FileManager.default.createDirectory(atPath: "\(directory)/state", withIntermediateDirectories: true)
        let key = try makeKey("\(directory)/node.key")
        for home in node.networks.isEmpty ? host.plainAddresses : node.networks.map(\.home) {
            let certificate = try mat(["enrol", "--control", "\(lab.directory(node.server))/control.sock", home, "--public-key", KeyFile.write(key)])
            try certificate.write(toFile: Self.certificate(home, directory), atomically: false, encoding: .utf8)
        }
        let devices = topology.devices.map(\.device)
        try Self.node(host, node, directory: directory, resolvers: resolvers, devices: devices, lab.encapsulation, lab.dataPlane)
            .write(toFile: "\(directory)/matd.yaml", atomically: false, encoding: .utf8)
    }

    private static func certificate(_ home: String, _ directory: String) -> String { "\(directory)/\(home.prefix { $0 != "/" }).certificate" }

    static func node(
        _ host: Topology.Host, _ node: Topology.Node, directory: String, resolvers: [String], devices: [String],
        _ encapsulation: Lab.Encapsulation = .auto, _ dataPlane: Lab.DataPlane = .nftables
    ) -> String {
        var lines = ["home-addresses:"]
        let keys = { (home: String) in ["    key: \(directory)/node.key", "    certificate: \"\(certificate(home, directory))\""] }
        if node.networks.isEmpty {
            for home in host.plainAddresses { lines += ["  - address: \"\(home)\""] + keys(home) }
        }
        for network in node.networks {
            lines += ["  - prefix: \"\(network.home)\""] + keys(network.home) + ["    mobile-prefixes:"]
            for place in network.places {
                lines += ["      - interface: \(place.device)", "        network: \"\(place.network)\"", "        prefix: \"\(place.prefix)\""]
            }
        }
        lines += ["traffic: \(node.traffic)", "interfaces:", "  prefer: [\(devices.joined(separator: ", "))]", "  ignore: []"]
        lines += ["paths:", "  hold-down: 3s", "encapsulation: \(encapsulation.rawValue)", "data-plane: \(dataPlane.rawValue)"] + dns(resolvers)
        lines += ["control: \(directory)/control.sock", "state: \(directory)/state", "log-level: debug", "metrics: {listen: 127.0.0.1:9289}"]
        return lines.joined(separator: "\n") + "\n"
    }

    /// `mat keygen` writes the private key and says the public one.
    private func makeKey(_ file: String) throws -> PublicKey {
        let text = try mat(["keygen", "--out", file])
        guard let key = KeyFile.parsePublicKey(String(text.prefix { !$0.isWhitespace })) else {
            throw LabError("mat keygen printed no public key: \(text)")
        }
        return key
    }

    private func mat(_ arguments: [String], within seconds: Double = 30) throws -> String {
        try Interruption.check()
        let result = try runCommand([try lab.program("mat")] + arguments, within: seconds)
        guard result.status == 0 else { throw LabError("mat \(arguments.joined(separator: " ")): \(result.output)") }
        return result.output
    }

    // MARK: Processes

    /// Servers and relays first, which the nodes are enrolled at and go to; until every node is registered.
    func startAll() throws {
        var servers: [Topology.Host] = []
        for host in topology.hosts {
            switch host.program {
            case .imsd: servers.append(host)
            case .relay(let residents):
                try prepareRelay(host, residents)
                servers.append(host)
            default: break
            }
        }
        for host in servers { try launch(host) }
        for host in servers { try waitUntilItAnswers(host) }
        var nodes: [Topology.Host] = []
        for host in topology.hosts {
            guard case .matd(let node) = host.program else { continue }
            try prepare(host, node)
            try launch(host)
            nodes.append(host)
        }
        for host in nodes { try waitUntilItAnswers(host) }
        for host in nodes {
            do {
                let seconds = Self.registrationSeconds
                _ = try mat(["status", "--control", control(host), "--wait", "\(seconds)"], within: Double(seconds) + 10)
            } catch {
                try Interruption.check()
                throw LabError("\(host.name) did not register within \(Self.registrationSeconds) s; see \(log(host))")
            }
        }
    }

    public func start(_ name: String) throws {
        let host = try topology.host(name)
        try launch(host)
        try waitUntilItAnswers(host)
    }

    private func launch(_ host: Topology.Host) throws {
        let program = try daemon(host)
        if lab.process(host.name, program).pid != nil { throw LabError("\(program) of \(host.name) runs already") }
        var command = [try lab.program(program), "--config", "\(lab.directory(host.name))/\(program).yaml"]
        if program == "matd", lab.encapsulation != .agent || lab.dataPlane == .bpf {
            command = ["env", "MAT_PROGRAMS=\(try makePins(host.name))"] + command
        }
        try lab.start(host.name, program, try skewed(command, by: lead(of: host.name)))
    }

    /// Where a node's kernel keeps the agent's programs. `ip netns exec` gives each process a /sys of its own, without the file system that is
    /// mounted there; so the lab has one a host. Where the kernel has none, the agent finds that out by itself.
    private func makePins(_ host: String) throws -> String {
        let path = pins(host)
        guard access(path, F_OK) != 0 else { return path }
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        let mount = try runCommand(["mount", "-t", "bpf", "bpf", path], within: 10)
        guard mount.status == 0 || lab.encapsulation == .auto else { throw LabError("no file system of type bpf: \(mount.output)") }
        return path
    }

    private func pins(_ host: String) -> String { "\(lab.directory(host))/programs" }

    func removePins(_ host: String) {
        // Not there, or mounted nowhere: then there is nothing to do.
        if access(pins(host), F_OK) == 0 { _ = umount2(pins(host), Int32(MNT_DETACH)) }
    }

    // MARK: Clocks

    private func clock(of name: String) -> String { "\(lab.directory(name))/clock" }

    /// By how many seconds the clock that a host's daemon reads is ahead of the right time.
    private func lead(of name: String) -> Int {
        (try? String(contentsOfFile: clock(of: name), encoding: .utf8)).flatMap { Int($0.prefix { !$0.isNewline }) } ?? 0
    }

    /// Has a host's daemon read a clock that is ahead or behind, from a new start on, and after later ones too.
    public func setClock(_ name: String, aheadBy seconds: Int) throws {
        if seconds == lead(of: name) { return }
        try "\(seconds)\n".write(toFile: clock(of: name), atomically: false, encoding: .utf8)
        try restart(name)
    }

    /// The right time for all daemons.
    public func setClocksRight() throws { for host in topology.hosts where host.daemon != nil { try setClock(host.name, aheadBy: 0) } }

    /// What shifts the time that a program reads, of Debian's package libfaketime.
    private static var clockLibrary: String? {
        let folders = (try? FileManager.default.contentsOfDirectory(atPath: "/usr/lib")) ?? []
        return folders.sorted().map { "/usr/lib/\($0)/faketime/libfaketime.so.1" }.first { access($0, R_OK) == 0 }
    }

    private func skewed(_ command: [String], by seconds: Int) throws -> [String] {
        guard seconds != 0 else { return command }
        guard let library = Self.clockLibrary else { throw LabError("libfaketime is missing; deploy/install-packages installs what the lab needs") }
        // The program `faketime` would stay as the process's parent, which is the one that is recorded. Without a name for its shared memory the
        // library sets a variable, which moves the environment, before which Swift looks for the arguments. Time that goes by is nobody's to shift.
        return [
            "env", "LD_PRELOAD=\(library)", "FAKETIME_SHARED=none none", "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "FAKETIME=\(seconds > 0 ? "+" : "-")\(abs(seconds))s",
        ] + command
    }

    private func waitUntilItAnswers(_ host: Topology.Host) throws {
        let program = try daemon(host)
        let deadline = monotonicSeconds() + Self.startSeconds
        while monotonicSeconds() < deadline {
            try Interruption.check()
            if try answers(host, program) { return }
            guard lab.process(host.name, program).pid != nil else {
                let text = (try? String(contentsOfFile: log(host), encoding: .utf8)) ?? ""
                throw LabError("\(program) of \(host.name) ended: \(text.split(separator: "\n").suffix(3).joined(separator: "\n"))")
            }
            usleep(20_000)
        }
        throw LabError("\(program) of \(host.name) does not answer; see \(log(host))")
    }

    private func answers(_ host: Topology.Host, _ program: String) throws -> Bool {
        guard program == "mat-relay" else {
            let question = program == "imsd" ? ["ims", "status"] : ["status"]
            return try runCommand([try lab.program("mat")] + question + ["--control", control(host)], within: 10).status == 0
        }
        // A relay has no control socket. Its last act of a start is to take datagrams.
        guard let pid = lab.process(host.name, program).pid else { return false }
        let sockets = (try? String(contentsOfFile: "/proc/\(pid)/net/udp6", encoding: .utf8)) ?? ""
        let port = String(SignalPort.relay, radix: 16, uppercase: true)
        return sockets.split(separator: "\n").dropFirst().contains { $0.split(separator: " ").dropFirst().first?.hasSuffix(":\(port)") == true }
    }

    /// Ends a daemon for good. What an ended agent has left would hold packets for it; one that is killed leaves all as it is.
    public func stop(_ name: String, _ signal: Int32 = SIGTERM) throws {
        try end(name, signal)
        if signal != SIGKILL, try daemon(try topology.host(name)) == "matd" {
            // Programs too, which would go on with what they were told last.
            let here = ["ip", "netns", "exec", lab.namespace(name), "env", "MAT_PROGRAMS=\(pins(name))"]
            let result = try runCommand(here + [try lab.program("matd"), "--remove"], within: 30)
            guard result.status == 0 else { throw LabError("matd --remove on \(name): \(result.output)") }
        }
    }

    public func restart(_ name: String) throws {
        try end(name, SIGTERM)
        try start(name)
    }

    private func end(_ name: String, _ signal: Int32) throws {
        RecordedProcess.end([lab.process(name, try daemon(try topology.host(name)))], signal)
    }

    private func daemon(_ host: Topology.Host) throws(LabError) -> String {
        guard let program = host.daemon else { throw LabError("\(host.name) has no MAT daemon") }
        return program
    }

    package func control(_ host: Topology.Host) -> String { "\(lab.directory(host.name))/control.sock" }
    private func log(_ host: Topology.Host) -> String { "\(lab.directory(host.name))/\(host.daemon ?? "").log" }

    // MARK: Handover

    /// Takes a mobile host to another network.
    ///
    /// - Parameters:
    ///   - device: the host's interface, if not the one that the network is entered by. One that is in another network leaves that first.
    ///   - withOverlap: the new network comes before what the other interfaces are in goes, or after.
    public func move(_ name: String, to network: String, over device: String? = nil, withOverlap: Bool) throws {
        let host = try topology.mobile(name)
        let (network, access) = try topology.access(network)
        let device = try device.map(topology.device) ?? access.device
        guard lab.stands else { throw LabError("no lab \"\(lab.name)\" stands") }
        let plugs = AccessNetworks(lab: lab)
        // Takes a moment, in which the host would be nowhere.
        try Gateways(lab: lab).build(network)
        let others = topology.devices.map(\.device).filter { $0 != device }
        if !withOverlap { for other in others { try plugs.detach(name, device: other) } }
        // A DHCP client that begins anew first takes away the address that is there.
        if try !plugs.isAttached(name, network, over: device) { try plugs.attach(name, network.name, over: device) }
        try lab.wait("\(name) has its addresses on \(device)", seconds: 10) {
            try Interface.isConfigured(device, access.families, in: lab.namespace(name))
        }
        if lab.process(name, "matd").pid != nil {
            try handOver(host, to: device)
            if network.gateway == nil {
                try lab.wait("the traffic of \(name) goes over \(device)", seconds: 10) { try hasMoved(host, device, access.families.count) }
            } else {
                // Whether the agent gets anywhere from behind the gateway is what people go there to see.
                let deadline = monotonicSeconds() + Self.patienceSeconds
                while try !hasMoved(host, device, access.families.count), monotonicSeconds() < deadline { usleep(20_000) }
            }
            // What is under way to the old address still arrives there.
            if withOverlap { usleep(500_000) }
        }
        if withOverlap { for other in others { try plugs.detach(name, device: other) } }
    }

    /// What a node's agent says of itself; `nil` if it does not answer.
    package func report(_ host: Topology.Host) throws -> NodeReport? {
        let result = try runCommand([try lab.program("mat"), "status", "--json", "--control", control(host)], within: 10)
        return result.status == 0 ? try? JSONDecoder().decode(NodeReport.self, from: Data(result.output.utf8)) : nil
    }

    /// Whether a node's agent sends to a host without MAT by a gateway.
    package func goesByGateway(_ host: Topology.Host, to address: String) throws -> Bool {
        let result = try runCommand([try lab.program("mat"), "why", address, "--control", control(host)], within: 10)
        return result.output.contains("by the gateway")
    }

    /// Has a node's agent use an interface for all that it can.
    package func handOver(_ host: Topology.Host, to device: String) throws { _ = try mat(["handover", device, "--control", control(host)]) }

    /// The node's agent is registered, sends to every peer over the interface, and has addresses of so many families there.
    private func hasMoved(_ host: Topology.Host, _ device: String, _ families: Int) throws -> Bool {
        guard let status = try report(host) else { return false }
        return status.registered && status.peers.allSatisfy { $0.locator == nil || $0.interface == device }
            && Set(status.locators.filter { $0.interface == device }.map { $0.address.contains(":") }).count >= families
    }
}

import FoundationEssentials
import Glibc
import Namespaces

/// A topology that stands, or is to stand, under a name: namespaces NAME-HOST, and a directory /run/NAME with the hosts' files, logs and
/// process ids. It outlives the program that builds it; whoever knows the name can go on with it.
public struct Lab: Sendable {
    public let name: String
    public let topology: Topology
    /// Where mat, matd, imsd, mat-relay and mat-probe are; `nil` if nowhere.
    public let programs: String?

    /// Where its nodes put packets into datagrams, as matd.yaml has it.
    public let encapsulation: Encapsulation

    public enum Encapsulation: String, CaseIterable, Sendable { case auto, kernel, agent }

    /// By what its nodes rewrite direct peers' packets, likewise.
    public let dataPlane: DataPlane

    public enum DataPlane: String, CaseIterable, Sendable { case nftables, bpf }

    /// - Parameters:
    ///   - programs: those that it was built with if `nil`.
    ///   - encapsulation: likewise; a new lab's is `auto`.
    ///   - dataPlane: likewise; a new lab's is `nftables`.
    public init(
        name: String, topology: Topology = .smallInternet, programs: String?, encapsulation: Encapsulation? = nil, dataPlane: DataPlane? = nil
    ) throws(LabError) {
        let isValid = (1...16).contains(name.utf8.count) && name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) }
        guard isValid, name.utf8.first.map({ $0 >= 97 }) == true else {
            throw LabError("\"\(name)\" is no name for a lab: lower-case letters and digits")
        }
        self.name = name
        self.topology = topology
        func recorded(_ file: String) -> String? {
            (try? String(contentsOfFile: "/run/\(name)/\(file)", encoding: .utf8)).map { String($0.prefix { $0 != "\n" }) }
        }
        self.programs = programs ?? recorded("bin")
        self.encapsulation = encapsulation ?? recorded("encapsulation").flatMap { Encapsulation(rawValue: $0) } ?? .auto
        self.dataPlane = dataPlane ?? recorded("data-plane").flatMap { DataPlane(rawValue: $0) } ?? .nftables
    }

    // MARK: Places

    var run: String { "/run/\(name)" }
    public func directory(_ host: String) -> String { "\(run)/\(host)" }
    /// Says that a directory in /run is a lab's. Other programs keep theirs there too, and a lab may be given any name.
    private var mark: String { "\(run)/.mat-lab" }
    public func namespace(_ host: String) -> String { "\(name)-\(host)" }
    /// Beside the hosts: where delayed links pass through (`DelayedLinks`).
    static let line = "line"

    public var stands: Bool { topology.names.contains { Namespace.exists(namespace($0)) } }

    /// The PATH of what runs on hosts. Without programs there is no directory to add; an empty one would mean the current directory.
    private var path: String { (programs.map { "\($0):" } ?? "") + (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin") }

    func program(_ name: String) throws(LabError) -> String {
        guard let programs else { throw LabError("no built \(name); run `deploy/build \(name)` first, or give --bin DIR") }
        return "\(programs)/\(name)"
    }

    /// A program of this package: beside the one that runs, or with the others.
    func tool(_ name: String) throws(LabError) -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &path, path.count)
        let own = String(decoding: path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let beside = own.prefix(through: own.lastIndex(of: "/") ?? own.startIndex) + name
        return access(String(beside), X_OK) == 0 ? String(beside) : try program(name)
    }

    /// A command in a host's namespace, with its /etc/resolv.conf, where `mat` finds the host's daemons and nobody else's.
    public func command(on host: String, _ command: [String]) -> [String] {
        ["ip", "netns", "exec", namespace(host), "env", "PATH=\(path)"] + daemonFiles(of: host) + command
    }

    /// The variables of mat(1). The file system is that of the machine, which may be a node itself: without a daemon of its kind a host has a
    /// path where nothing is.
    private func daemonFiles(of host: String) -> [String] {
        let daemon = topology.hosts.first { $0.name == host }?.daemon
        let directory = directory(host)
        return [("MATD_CONTROL", "matd"), ("IMSD_CONTROL", "imsd")].map { "\($0)=\(directory)/\($1 == daemon ? "control" : $1).sock" }
            + [("MATD_CONFIG", "matd"), ("IMSD_CONFIG", "imsd"), ("MAT_RELAY_CONFIG", "mat-relay")].map { "\($0)=\(directory)/\($1).yaml" }
    }

    func process(_ host: String, _ label: String) -> RecordedProcess { RecordedProcess(file: "\(directory(host))/\(label).pid") }

    func start(_ host: String, _ label: String, _ command: [String]) throws {
        try FileManager.default.createDirectory(atPath: directory(host), withIntermediateDirectories: true)
        try RecordedProcess.start(command, in: namespace(host), log: "\(directory(host))/\(label).log", file: process(host, label).file)
    }

    /// All of a host that have a file.
    func processes(_ host: String) -> [(label: String, process: RecordedProcess)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory(host))) ?? []
        return names.sorted().filter { $0.hasSuffix(".pid") }.map { name in
            let label = String(name.dropLast(4))
            return (label, process(host, label))
        }
    }

    // MARK: Up and down

    /// Builds the lab and starts everything, or everything but the MAT daemons. What stands half when something fails is taken down again.
    public func up(startsDaemons: Bool) throws {
        if stands { throw LabError("a lab \"\(name)\" stands already; `deploy/lab --name \(name) down` removes it") }
        if access(run, F_OK) == 0, access(mark, F_OK) != 0 { throw LabError("\(run) exists and is not a lab's; choose another --name") }
        for program in ["nsd", "nsd-checkzone", "unbound", "dnsmasq", "udhcpc"] where Self.installed(program) == nil {
            throw LabError("\(program) is missing; deploy/install-packages installs what the lab needs")
        }
        if startsDaemons {
            for name in Set(topology.hosts.compactMap(\.daemon)).sorted() {
                let path = try program(name)
                guard access(path, X_OK) == 0 else { throw LabError("\(path) is not there; run `deploy/build \(name)` first, or give --bin DIR") }
            }
        }
        do {
            try build(startsDaemons: startsDaemons)
        } catch {
            let kept = keepLogs()
            down()
            throw LabError("\(error)\nlab: up failed; it was taken down" + (kept.map { "\nlab: logs are in \($0)" } ?? ""))
        }
    }

    private func build(startsDaemons: Bool) throws {
        try FileManager.default.createDirectory(atPath: run, withIntermediateDirectories: true)
        try "".write(toFile: mark, atomically: false, encoding: .utf8)
        if let programs { try "\(programs)\n".write(toFile: "\(run)/bin", atomically: false, encoding: .utf8) }
        try "\(encapsulation.rawValue)\n".write(toFile: "\(run)/encapsulation", atomically: false, encoding: .utf8)
        try "\(dataPlane.rawValue)\n".write(toFile: "\(run)/data-plane", atomically: false, encoding: .utf8)
        try buildNetwork()
        let access = AccessNetworks(lab: self)
        try access.start()
        let daemons = Daemons(lab: self)
        // Without daemons the zones name their servers all the same, if `mat` is there to make their keys.
        let servers = programs == nil ? [] : try daemons.prepareServers()
        try NameServers(lab: self).start(servers)
        for host in topology.mobile { if let first = topology.accessNetworks.first { try access.attach(host.name, first.network.name) } }
        if startsDaemons { try daemons.startAll() }
    }

    private func buildNetwork() throws {
        try Namespace.make(topology.names.map(namespace))
        let plan = NetworkPlan(topology, namespace: namespace)
        for host in topology.names { try settle(host, NetworkPlan.settings) }
        for host in plan.routers { try Namespace.set(Namespace.forwarding, in: namespace(host)) }
        for step in plan.steps {
            try Interruption.check()
            try Namespace.ipBatch(step.lines, in: step.host.map(namespace))
        }
    }

    /// What every host has: a directory, the lab's resolver, settings.
    func settle(_ host: String, _ settings: [String: String]) throws {
        try Interruption.check()
        // What `ip netns exec` puts in the place of the machine's own.
        let etc = "/etc/netns/\(namespace(host))"
        for directory in [etc, directory(host)] { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true) }
        try writeResolvers(of: host)
        try Namespace.set(settings, in: namespace(host))
    }

    /// Into the file that is there, since it is mounted where the host's processes look.
    ///
    /// - Parameter resolver: asked by the host, if not the topology's.
    func writeResolvers(of host: String, _ resolver: String? = nil) throws {
        let resolvers = (resolver.map { [$0] } ?? topology.addresses(topology.resolver)).map { "nameserver \($0)\n" }.joined()
        let search = "search \(topology.domain)".dropLast()
        try "\(resolvers)\(search)\n".write(toFile: "/etc/netns/\(namespace(host))/resolv.conf", atomically: false, encoding: .utf8)
    }

    /// A copy of everything that the hosts wrote.
    private func keepLogs() -> String? {
        let kept = "/tmp/\(name)-logs.\(getpid())"
        return (try? FileManager.default.copyItem(atPath: run, toPath: kept)) == nil ? nil : kept
    }

    /// Ends and removes everything of it; nothing happens if there is none.
    public func down() {
        Interruption.ignore()
        let hosts = topology.names + topology.gateways.map(\.network.name) + [Self.line]
        if access(mark, F_OK) == 0 {
            let all = hosts.flatMap { processes($0) }
            // The daemons first: they tell others that they go.
            let daemons = Set(topology.hosts.compactMap(\.daemon))
            RecordedProcess.end(all.filter { daemons.contains($0.label) }.map(\.process))
            RecordedProcess.end(all.filter { !daemons.contains($0.label) }.map(\.process))
        }
        for host in hosts {
            remove(host)
            Daemons(lab: self).removePins(host)
        }
        rmdir("/etc/netns")
        // Last, so that what an interrupted `down` left is still known as a lab's.
        if access(mark, F_OK) == 0 { try? FileManager.default.removeItem(atPath: run) }
    }

    /// Takes away a host's namespace, with all that runs in it.
    func remove(_ host: String) {
        let namespace = namespace(host)
        if Namespace.exists(namespace) {
            // Whatever else a person or test left running there, found by namespace, not by name.
            for pid in Namespace.processes(in: namespace) { kill(pid, SIGKILL) }
            Namespace.remove(namespace)
        }
        try? FileManager.default.removeItem(atPath: "/etc/netns/\(namespace)")
    }

    // MARK: Looking

    /// What runs and where the nodes are, a line a host.
    public func status() throws -> [String] {
        guard stands else { throw LabError("no lab \"\(name)\" stands") }
        let gateways = topology.gateways.map(\.network.name).filter { Namespace.exists(namespace($0)) }
        return try (topology.names + gateways).map { host in
            let running = processes(host).filter { $0.process.pid != nil }.map(\.label).joined(separator: " ")
            let addresses = try Interface.all(in: namespace(host)).flatMap(\.globalAddresses).joined(separator: " ")
            return Self.padded(host, 9) + " " + Self.padded(running, 30) + " " + addresses
        }
    }

    private static func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }

    /// Waits until something holds.
    package func wait(_ what: String, seconds: Double, until holds: () throws -> Bool) throws {
        let deadline = monotonicSeconds() + seconds
        while try !holds() {
            guard monotonicSeconds() < deadline else { throw LabError("did not happen in time: \(what)") }
            try Interruption.check()
            usleep(20_000)
        }
    }

    static func installed(_ program: String) -> String? {
        ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"].map { $0 + program }.first { access($0, X_OK) == 0 }
    }
}

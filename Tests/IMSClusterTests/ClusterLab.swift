import Foundation
import MATRuntime
import MATSignal
import Namespaces
import Testing

/// Three etcd members and three imsd, each in a network namespace of its own, and clients in another.
///
/// ```
///   e0 10.88.0.11    e1 .12    e2 .13         etcd
///        │             │         │
///   ─────┴──────┬──────┴────┬────┴────┬──────────── bridge in the namespace "hub"; a link that is down cuts its host off
///        │      │           │         │
///   i0 10.88.0.21  i1 .22  i2 .23    c 10.88.1.1 ... .250     imsd; nodes, each with an address of its own
/// ```
final class ClusterLab: @unchecked Sendable {
    static let clientsMax = 100

    static let obstacle: String? = {
        if getuid() != 0 { return "network namespaces need root" }
        if let missing = EtcdMembers.obstacle { return missing }
        if Program.installed("ip") == nil { return "ip is not installed; deploy/install-packages installs it" }
        return imsd == nil ? "imsd is not beside the test bundle; build it with swift build" : nil
    }()

    /// MAT_CLUSTER_IMSD names another one, to compare with.
    static let imsd = ProcessInfo.processInfo.environment["MAT_CLUSTER_IMSD"] ?? Program.built("imsd")

    let directory: TemporaryDirectory
    private let name: String
    private var namespaces: [Namespace] = []
    private var etcd: EtcdMembers?
    /// Of etcd.
    var members: [EtcdMembers.Member] { etcd?.members ?? [] }
    private(set) var servers: [Program] = []
    let issuer: SigningKey

    static let hosts = ["e0", "e1", "e2", "i0", "i1", "i2", "c"]
    static let etcdAddresses = ["10.88.0.11", "10.88.0.12", "10.88.0.13"]
    static let serverAddresses = ["10.88.0.21", "10.88.0.22", "10.88.0.23"]

    init() throws {
        directory = try TemporaryDirectory()
        name = "mc\(getpid())"
        issuer = try #require(SigningKey(seed: [UInt8](repeating: 200, count: 32)))
        let hub = try Namespace("\(name)-hub")
        namespaces = [hub]
        try hub.ipBatch(["link add br0 type bridge", "link set br0 up"])
        let addresses = Self.etcdAddresses + Self.serverAddresses + ["10.88.1.1"]
        for (host, address) in zip(Self.hosts, addresses) {
            let namespace = try Namespace("\(name)-\(host)")
            namespaces.append(namespace)
            try hub.connect("l-\(host)", to: namespace, "eth0")
            try hub.ipBatch(["link set l-\(host) master br0"])
            let clients = host == "c" ? (2...Self.clientsMax).map { "10.88.1.\($0)/16" } : []
            try namespace.add(["\(address)/16"] + clients, dev: "eth0")
        }
        etcd = try EtcdMembers(Self.etcdAddresses, namespaces: (0..<3).map { "\(name)-e\($0)" }, in: directory)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(issuer), mode: 0o600)
        let imsd = try #require(Self.imsd)
        for index in 0..<3 {
            let endpoints = (0..<3).map { Self.etcdAddresses[(index + $0) % 3] }.joined(separator: ", ")
            let text = """
                control: \(directory.path)/i\(index).sock
                store: etcd
                etcd: {endpoints: [\(endpoints)]}
                signing-key: \(directory.path)/ims.key
                prefixes:
                  - prefix: 192.0.2.0/24
                dns: {resolvers: ["127.0.0.1:1"]}
                limits: {updates-per-second: 1000, verifications-per-second: 10000, queries-per-second: 10000}
                """
            try TextFile.replace("\(directory.path)/i\(index).yaml", with: text, mode: 0o600)
            servers.append(
                Program(
                    imsd, ["--config", "\(directory.path)/i\(index).yaml"], log: "\(directory.path)/i\(index).log",
                    namespace: "\(name)-i\(index)"))
        }
        for server in servers { try server.start() }
    }

    /// Also if it could not be built to the end.
    deinit { down() }

    /// Everything that it made goes with it.
    func down() {
        for server in servers { server.signal(SIGCONT) }
        for server in servers { server.end() }
        for member in members {
            member.program.signal(SIGCONT)
            member.program.end()
        }
        namespaces = []
    }

    // MARK: Faults

    func cut(_ host: String, _ isCut: Bool) {
        Program.run("/sbin/ip", "-n", "\(name)-hub", "link", "set", "l-\(host)", isCut ? "down" : "up")
    }

    /// One server or member of etcd is killed and started again, stands still, or is cut off, for a while.
    ///
    /// - Parameters:
    ///   - duration: of the fault, in microseconds, from this range.
    ///   - begins: told beforehand what it is and of whom: a server's, the etcd leader's, or another member's.
    /// - Returns: what it was.
    func suffer(_ duration: ClosedRange<UInt32>, _ generator: inout some RandomNumberGenerator, begins: (String) -> Void = { _ in }) throws -> String
    {
        let victim = Int.random(in: 0..<3, using: &generator)
        let isServer = Bool.random(using: &generator)
        let program = isServer ? servers[victim] : members[victim].program
        let host = isServer ? "i\(victim)" : "e\(victim)"
        let role = isServer ? "a server" : leader() == victim ? "etcd's leader" : "a member of etcd"
        let duration = UInt32.random(in: duration, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0:
            begins("kill \(role)")
            program.end(SIGKILL)
            usleep(duration)
            try program.start()
            return "kill \(host)"
        case 1:
            begins("stop \(role)")
            program.signal(SIGSTOP)
            usleep(duration)
            program.signal(SIGCONT)
            return "stop \(host)"
        default:
            begins("cut off \(role)")
            cut(host, true)
            usleep(duration)
            cut(host, false)
            return "cut \(host)"
        }
    }

    /// The member that leads etcd, if one says so of itself.
    func leader() -> Int? {
        let client = "\(name)-c"
        return members.indices.first { index in
            let url = "http://\(Self.etcdAddresses[index]):2379/v3/maintenance/status"
            let answer = try? runCommand(["ip", "netns", "exec", client, "curl", "-sf", "-m", "1", "-d", "{}", url]).output
            guard let answer, let status = try? JSONDecoder().decode(EtcdStatus.self, from: Data(answer.utf8)) else { return false }
            return status.leader == status.header.member
        }
    }

    private struct EtcdStatus: Decodable {
        struct Header: Decodable {
            var member: String
            private enum CodingKeys: String, CodingKey { case member = "member_id" }
        }
        var header: Header
        var leader: String
    }

    // MARK: Looking

    func status(_ server: Int) -> JSONValue? {
        try? ControlClient.request(JSONValue.self, path: "\(directory.path)/i\(server).sock", command: "status", daemon: "imsd")
    }

    /// What a server has logged so far.
    func log(_ server: Int) -> String { (try? TextFile.read("\(directory.path)/i\(server).log")) ?? "" }

    /// Whether etcd takes writes, to all servers; it goes on to answer reads.
    func setSpace(_ hasSpace: Bool) -> Bool {
        Program.run(
            "/sbin/ip", "netns", "exec", "\(name)-c", Program.installed("curl") ?? "curl", "-sf", "-o", "/dev/null",
            "http://\(Self.etcdAddresses[0]):2379/v3/maintenance/alarm", "-d",
            "{\"action\": \"\(hasSpace ? "DEACTIVATE" : "ACTIVATE")\", \"memberID\": 0, \"alarm\": \"NOSPACE\"}") == 0
    }

    /// Whether the server has loaded and takes updates.
    func isWell(_ server: Int) -> Bool {
        guard let store = status(server)?["store"] else { return false }
        return store["isLoading"]?.bool == false && store["lastFailure"]?.string == nil
    }

    func enrol(_ hoa: String, _ key: SigningKey) throws -> Certificate {
        let answer = try ControlClient.request(
            JSONValue.self, path: "\(directory.path)/i0.sock", command: "enrol",
            arguments: ["hoa": hoa, "publicKey": KeyFile.write(key.publicKey)], daemon: "imsd")
        return try Certificate(octets: try #require(answer["certificate"]?.string.flatMap { Base64.parse($0.utf8) }))
    }

    var logs: String {
        (0..<3).map { "--- i\($0)\n" + ((try? TextFile.read("\(directory.path)/i\($0).log")) ?? "").suffix(3000) }.joined(
            separator: "\n")
    }

    /// Runs `body` in a thread inside the clients' namespace.
    func thread(_ body: @escaping @Sendable () -> Void) -> Thread {
        let clients = "\(name)-c"
        let thread = Thread {
            do { try Namespace.enter(clients) } catch {
                Issue.record(error)
                return
            }
            body()
        }
        thread.start()
        return thread
    }

    /// Like `thread`, waited for.
    func inside<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
        let done = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var result: Result<Value, any Error>?
        _ = thread {
            result = .init { try body() }
            done.signal()
        }
        done.wait()
        return try #require(result).get()
    }
}

/// Clients of a lab's servers, each in a thread of its own.
final class ClusterClients {
    private let lab: ClusterLab
    private let complain: @Sendable (any Error) -> Void
    private var running: [DispatchSemaphore] = []

    /// - Parameter complain: is told what ended a client.
    init(_ lab: ClusterLab, complain: @escaping @Sendable (any Error) -> Void) {
        self.lab = lab
        self.complain = complain
    }

    func run(_ body: @escaping @Sendable () throws -> Void) {
        let done = DispatchSemaphore(value: 0)
        running.append(done)
        _ = lab.thread { [complain] in
            defer { done.signal() }
            do { try body() } catch { complain(error) }
        }
    }

    /// Until all have ended by themselves.
    func wait() { for done in running { done.wait() } }
}

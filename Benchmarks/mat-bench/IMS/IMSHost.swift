import BenchSupport
import Foundation
import Glibc
import MATRuntime
import MATSignal
import Namespaces

/// A network namespace with servers on one core and load on another, and a directory for what they keep.
///
/// ```
///   lo   192.0.2.1, 3fff::1                  the servers, each on a port of its own        core 0
///        10.128.0.0/9, 2001:db8:8000::/33    MoAs of the nodes (AnyIP)                      mat-load, core 1
///        172.16.0.0/12, 2001:db8:4000::/34   strangers
/// ```
/// A datagram over loopback is received in the sender's softirq, on the sender's core: requests cost the load's core, answers the
/// server's, as with two network cards.
final class IMSHost {
    static let server = "192.0.2.1"
    static let server6 = "3fff::1"
    /// For one command: a large population takes minutes.
    static let commandSecondsMax = 3600.0

    let namespace: Namespace
    let directory: String
    let programs: String
    let serverCore: Int
    let loadCore: Int

    init(programs: String, serverCore: Int, loadCore: Int, directory: String?) throws {
        self.programs = programs
        self.serverCore = serverCore
        self.loadCore = loadCore
        for program in ["imsd", "mat-load", "bare-responder"] where access("\(programs)/\(program)", X_OK) != 0 {
            throw BenchError("\(programs)/\(program) is not built")
        }
        self.directory = (directory ?? "/var/tmp") + "/mat-bench-\(getpid())"
        // SIGKILL is the only end that leaves it behind; the name then says whose it was.
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
        CleanUp.shared.lastCommand = "rm -rf \(self.directory)"
        Namespace.removeStaleBenches()
        namespace = try Namespace.bench("ims")
        for (address, length) in [(Self.server, 32), (Self.server6, 128)] { try namespace.ip("addr add \(address)/\(length) dev lo") }
        for prefix in ["10.128.0.0/9", "172.16.0.0/12"] { try namespace.ip("route add local \(prefix) dev lo") }
        for prefix in ["2001:db8:8000::/33", "2001:db8:4000::/34"] { try namespace.ip("-6 route add local \(prefix) dev lo") }
        guard let seed = SigningKey(seed: (0..<32).map { _ in UInt8.random(in: .min ... .max) }) else { throw BenchError("no key") }
        try TextFile.replace(keyPath, with: KeyFile.write(seed), mode: 0o600)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    var keyPath: String { directory + "/ims.key" }

    /// A population of so many nodes with a store that has them, made once.
    ///
    /// - Parameter signed: nodes with keys of their own, which can update.
    func population(_ count: Int, signed: Int) throws -> (file: String, store: String) {
        let file = "\(directory)/nodes-\(count).json"
        let store = "\(directory)/store-\(count).db"
        if access(file, F_OK) != 0 {
            try shell(
                "\(programs)/mat-load population \(file) --count \(count) --signed \(min(signed, count)) --key \(keyPath) --store \(store) "
                    + "--server \(Self.server)", within: Self.commandSecondsMax)
        }
        return (file, store)
    }

    /// Runs mat-load on the load's core.
    ///
    /// - Returns: its parts by name.
    func load(_ arguments: String, key: Bool = false) throws -> [String: LoadPart] {
        let file = "\(directory)/load.json"
        unlink(file)
        try namespace.run(
            "nice -n -10 \(programs)/mat-load \(arguments) --server \(Self.server) --core \(loadCore) --json \(file)"
                + (key ? " --server6 \(Self.server6) --key \(keyPath)" : ""), within: Self.commandSecondsMax)
        let report = try JSONDecoder().decode(LoadFile.self, from: try Data(contentsOf: URL(fileURLWithPath: file)))
        return Dictionary(report.parts.map { ($0.name, $0) }) { first, _ in first }
    }

    func start(_ command: String, cores: String? = nil) throws -> Processes {
        let processes = Processes()
        try processes.start("ip netns exec \(namespace.name) nice -n -10 taskset -c \(cores ?? "\(serverCore)") \(command)")
        return processes
    }
}

/// What mat-load writes; as much of it as is used here.
struct LoadFile: Codable { var parts: [LoadPart] }

struct LoadPart: Codable {
    var name: String
    var seconds: Double
    var sent: Double
    var answered: Double
    var ok: Double
    var perSecond: Double
    var codes: [String: Double]
    var interim: [String: Double]
    var unanswered: Double
    var microseconds: LatencySummary
    var more: [String: Double]
}

/// A running imsd.
final class RunningIMS {
    let host: IMSHost
    private let name: String
    private let processes: Processes
    /// From the start of the process: until it answers on its control socket, and until it has all mappings.
    private(set) var secondsUntilUp = 0.0
    private(set) var secondsUntilLoaded = 0.0

    /// - Parameters:
    ///   - store: what stands behind `store:` in its configuration, and lines that go with it.
    ///   - mappings: how many it has to read before it is ready.
    ///   - limits: further ones, each behind a comma.
    init(
        _ host: IMSHost, store: String, mappings: Int, port: UInt16 = SignalPort.ims, name: String = "imsd", cores: String? = nil, limits: String = ""
    ) throws {
        self.host = host
        self.name = name
        let text = """
            control: \(host.directory)/\(name).sock
            store: \(store)
            signing-key: \(host.keyPath)
            listen: {port: \(port), addresses: []}
            prefixes:
              - prefix: 10.0.0.0/9
              - prefix: 2001:db8::/34
            dns: {resolvers: ["127.0.0.1:1"]}
            limits: {mappings: 100000000\(limits)}
            log-level: error

            """
        try text.write(toFile: "\(host.directory)/\(name).yaml", atomically: true, encoding: .utf8)
        let start = Ticks.wall()
        processes = try host.start("\(host.programs)/imsd --config \(host.directory)/\(name).yaml 2>>\(host.directory)/\(name).log", cores: cores)
        let patience = start &+ 60_000_000_000 &+ UInt64(mappings) * 100_000
        while true {
            if let status = try? status() {
                if secondsUntilUp == 0 { secondsUntilUp = Double(Ticks.wall() - start) / 1e9 }
                if (status["mappings"]?.int ?? 0) >= Int64(mappings), status["isLoading"]?.bool != true { break }
            }
            guard Ticks.wall() < patience else {
                throw BenchError("imsd is not ready: \((try? TextFile.read("\(host.directory)/\(name).log")) ?? "")")
            }
            usleep(5000)
        }
        secondsUntilLoaded = Double(Ticks.wall() - start) / 1e9
    }

    func status() throws -> JSONValue {
        try ControlClient.request(JSONValue.self, path: "\(host.directory)/\(name).sock", command: "status", daemon: "imsd")
    }

    /// Resident memory without pages of files, octets.
    func anonymousOctets() throws -> Double {
        guard let process = processes.identifiers.first else { return 0 }
        let text = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        return (line.flatMap { Double($0.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first ?? "") } ?? 0) * 1024
    }

    var controlPath: String { "\(host.directory)/\(name).sock" }

    func processorNanoseconds() -> Double { processes.processorNanoseconds() }

    /// For mat-load, which asks how much processor time it takes.
    var processOption: String { processes.identifiers.first.map { " --process \($0)" } ?? "" }

    func end() { processes.end() }
}

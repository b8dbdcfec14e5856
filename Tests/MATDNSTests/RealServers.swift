import Foundation
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

/// A directory that goes away with this value.
final class TemporaryDirectory {
    let path: String

    init() throws {
        path = "/tmp/mat-dns-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ text: String) throws -> String {
        let file = path + "/" + name
        try text.write(toFile: file, atomically: false, encoding: .utf8)
        return file
    }
}

/// A program that runs as long as this value lives.
final class ServerProcess {
    private let process = Process()
    let endpoint: Endpoint

    static func find(_ program: String) -> String? {
        ["/usr/sbin/", "/usr/bin/"].map { $0 + program }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Starts the program and waits until it answers `probe`.
    init(_ program: String, _ arguments: [String], at endpoint: Endpoint, probe: String) throws {
        self.endpoint = endpoint
        process.executableURL = URL(filePath: try #require(Self.find(program)))
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        // The test's thread blocks signals, and children inherit the mask: SIGTERM would never reach nsd.
        var none = sigset_t()
        var before = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try process.run()
        let loop = try EventLoop()
        for _ in 0..<100 {
            var configuration = ResolverConfiguration(servers: [endpoint])
            configuration.tryTimeout = .milliseconds(100)
            configuration.triesPerServerMax = 1
            if case .records = try resolve(loop, Resolver(loop: loop, configuration: configuration), probe, .soa) { return }
            try run(loop) { loop.schedule(after: .milliseconds(50), $0) }
        }
        Issue.record("\(program) does not answer at \(endpoint)")
    }

    deinit {
        guard process.isRunning else { return }
        process.terminate()
        for _ in 0..<500 where process.isRunning { usleep(10_000) }
        // Foundation makes every child the leader of its group, and these have children of their own.
        if process.isRunning { kill(-process.processIdentifier, SIGKILL) }
    }

    static func freePort() -> UInt16 { UInt16.random(in: 20_000...60_000) }

    /// Runs a program to its end; its exit status and all it printed.
    static func outcome(_ program: String, _ arguments: [String]) throws -> (status: Int32, text: String) {
        let process = Process()
        process.executableURL = URL(filePath: try #require(find(program)))
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }
}

/// nsd with the given zones, on a port of loopback.
func startNSD(_ zones: [(name: String, text: String)], in directory: TemporaryDirectory) throws -> ServerProcess {
    let endpoint = Endpoint(loopback, port: ServerProcess.freePort())
    var text = """
        server:
            ip-address: 127.0.0.1@\(endpoint.port)
            server-count: 1
            username: ""
            zonesdir: "\(directory.path)"
            database: ""
            pidfile: "\(directory.path)/nsd.pid"
            logfile: "\(directory.path)/nsd.log"
            xfrdfile: "\(directory.path)/xfrd.state"
            xfrdir: "\(directory.path)"
            zonelistfile: "\(directory.path)/zone.list"
        remote-control:
            control-enable: no

        """
    for (index, zone) in zones.enumerated() {
        _ = try directory.write("zone\(index)", zone.text)
        text += "zone:\n    name: \"\(zone.name)\"\n    zonefile: \"zone\(index)\"\n"
    }
    return try ServerProcess(
        "nsd", ["-d", "-c", try directory.write("nsd.conf", text)], at: endpoint, probe: zones.first?.name ?? ".")
}

/// knotd with the given zones, of which some are signed.
func startKnot(_ zones: [(name: String, text: String)], _ directory: TemporaryDirectory, signed: [String] = []) throws -> ServerProcess {
    try FileManager.default.createDirectory(atPath: directory.path + "/knot", withIntermediateDirectories: true)
    let endpoint = Endpoint(loopback, port: ServerProcess.freePort())
    var text = """
        server:
            listen: 127.0.0.1@\(endpoint.port)
            rundir: "\(directory.path)"
        database:
            storage: "\(directory.path)/knot"
        log:
          - target: "\(directory.path)/knot.log"
            any: info
        zone:

        """
    for (index, zone) in zones.enumerated() {
        let file = try directory.write("zone\(index)", zone.text)
        text += """
              - domain: "\(zone.name)"
                file: "\(file)"
                zonefile-sync: -1
                zonefile-load: difference-no-serial
                journal-content: all
                dnssec-signing: \(signed.contains(zone.name) ? "on" : "off")

            """
    }
    return try ServerProcess(
        "knotd", ["-c", try directory.write("knot.conf", text)], at: endpoint, probe: zones.first?.name ?? ".")
}

/// named (BIND) with the given zones, as authority alone.
func startBIND(_ zones: [(name: String, text: String)], _ directory: TemporaryDirectory) throws -> ServerProcess {
    let endpoint = Endpoint(loopback, port: ServerProcess.freePort())
    var text = """
        options {
            directory "\(directory.path)";
            listen-on port \(endpoint.port) { 127.0.0.1; };
            listen-on-v6 { none; };
            pid-file "\(directory.path)/named.pid";
            session-keyfile "\(directory.path)/session.key";
            lock-file none;
            recursion no;
            dnssec-validation no;
        };
        controls { };

        """
    for (index, zone) in zones.enumerated() {
        text += "zone \"\(zone.name)\" { type primary; file \"\(try directory.write("zone\(index)", zone.text))\"; };\n"
    }
    return try ServerProcess(
        "named", ["-f", "-c", try directory.write("named.conf", text)], at: endpoint, probe: zones.first?.name ?? ".")
}

/// unbound that finds the given zones at another server, and some elsewhere.
func startUnbound(
    _ zones: [String], at server: Endpoint, in directory: TemporaryDirectory, anchors: [String] = [],
    elsewhere: [(zone: String, server: Endpoint)] = []
) throws -> ServerProcess {
    let endpoint = Endpoint(loopback, port: ServerProcess.freePort())
    var text = """
        server:
            interface: 127.0.0.1
            port: \(endpoint.port)
            do-daemonize: no
            username: ""
            chroot: ""
            directory: "\(directory.path)"
            pidfile: ""
            use-syslog: no
            logfile: "\(directory.path)/unbound.log"
            do-not-query-localhost: no
            module-config: "\(anchors.isEmpty ? "" : "validator ")iterator"

        """
    let stubs = zones.map { (zone: $0, server: server) } + elsewhere
    for stub in stubs { text += "    local-zone: \"\(stub.zone)\" nodefault\n" }
    for anchor in anchors { text += "    trust-anchor: \"\(anchor)\"\n" }
    text += "remote-control:\n    control-enable: no\n"
    for (zone, server) in stubs { text += "stub-zone:\n    name: \"\(zone)\"\n    stub-addr: \(server.address)@\(server.port)\n" }
    return try ServerProcess(
        "unbound", ["-d", "-c", try directory.write("unbound.conf", text)], at: endpoint, probe: zones.first ?? ".")
}

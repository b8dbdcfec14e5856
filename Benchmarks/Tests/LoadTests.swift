import Foundation
import Namespaces
import Testing

/// mat-load against a real imsd in a network namespace of its own: that what it says is so, not how fast anything is.
///
///     lo   192.0.2.1, 3fff::1  imsd          10.128.0.0/9, 2001:db8:8000::/33  the nodes' MoAs, all of them mat-load's
@Suite("mat-load", .enabled(if: LoadHost.obstacle == nil, Comment(rawValue: LoadHost.obstacle ?? "")), .serialized)
struct LoadTests {
    private static let nodes = 400.0

    @Test("Queries are answered by both families, one and sixteen to a datagram, and what nobody registered is not found")
    func queries() throws {
        let host = try LoadHost(nodes: Int(Self.nodes))
        defer { host.remove() }
        for arguments in ["--server 192.0.2.1", "--server 3fff::1 --distribution zipf", "--server 192.0.2.1 --messages 16 --window 16"] {
            let part = try #require(try host.load("queries --seconds 0.2 --warm-up 0.05 \(arguments)")["queries"])
            #expect(part.ok > 0 && part.codes == ["ok": part.ok] && part.unanswered == 0, "\(arguments): \(part)")
            #expect(part.microseconds["p50"] ?? 0 > 0 && part.microseconds["max"] ?? 0 >= part.microseconds["p99"] ?? 0)
        }
        // An open loop sends what it is told to, whatever the machine is doing.
        let paced = try #require(try host.load("queries --seconds 0.5 --warm-up 0 --rate 1000 --server 192.0.2.1")["queries"])
        #expect(paced.sent > 300 && paced.sent < 700, "\(paced)")
        try host.load("population \(host.directory)/more.json --count 2000 --key \(host.directory)/ims.key", population: false)
        let more = try host.load("queries --seconds 0.2 --warm-up 0 --server 192.0.2.1", nodes: "\(host.directory)/more.json")
        #expect((more["queries"]?.codes["not found"] ?? 0) > 0, "\(more)")
    }

    @Test("Every update of both families is acknowledged, and the server then has the nodes where they moved to")
    func updates() throws {
        let host = try LoadHost(nodes: Int(Self.nodes))
        defer { host.remove() }
        let part = try #require(try host.load("updates --count 800 --window 32 --process \(host.process)", key: true)["updates"])
        #expect(part.sent == 800 && part.ok == 800 && part.codes == ["ok": 800] && part.unanswered == 0, "\(part)")
        // A signature alone takes some 60 us.
        #expect(part.more["processor us each"] ?? 0 > 10, "\(part)")
        // The same again is older than what the server has: the first of each node by its time, so told apart from a duplicate.
        let whole = try #require(try host.load("updates --count 400 --window 32 --moved 2 --whole-certificate", key: true)["updates"])
        #expect(whole.ok == 400, "\(whole)")
    }

    @Test("In a storm all nodes are acknowledged, all queries answered, and every subscriber is told")
    func storm() throws {
        let host = try LoadHost(nodes: Int(Self.nodes))
        defer { host.remove() }
        let parts = try host.load("storm --nodes 100 --seconds 0.5 --queries 500 --subscribers 3", key: true)
        let updates = try #require(parts["updates"])
        #expect(updates.ok == 100 && updates.unanswered == 0, "\(updates)")
        let queries = try #require(parts["queries"])
        #expect(queries.ok > 0, "\(queries)")
        let pushes = try #require(parts["pushes"])
        #expect(pushes.sent == 300 && pushes.ok == 300, "\(pushes)")
    }

    @Test("Floods get no mapping out of the server, and unproven sources no octet more than they sent")
    func floods() throws {
        let host = try LoadHost(nodes: Int(Self.nodes))
        defer { host.remove() }
        let unproven = try #require(try host.load("notifies --seconds 0.3 --rate 1000 --unproven --server 192.0.2.1")["HA Notifies"])
        #expect(unproven.sent > 0 && unproven.ok == 0, "\(unproven)")
        #expect((unproven.more["octets received"] ?? 0) <= (unproven.more["octets sent"] ?? 0), "\(unproven)")
        let malformed = try #require(try host.load("malformed --seconds 0.3 --rate 1000 --kind random --server 192.0.2.1")["malformed"])
        #expect(malformed.sent > 0 && malformed.ok == 0, "\(malformed)")
        #expect((malformed.more["octets received"] ?? 0) <= (malformed.more["octets sent"] ?? 0), "\(malformed)")
    }

    @Test("What was asked for elsewhere is asked for again: from a capture, a list and an export")
    func recorded() throws {
        let host = try LoadHost(nodes: Int(Self.nodes))
        defer { host.remove() }
        let here = host.directory
        func asked(_ file: String) throws -> LoadHost.Part {
            try #require(
                try host.load("queries --recorded \(file) --seconds 0.2 --warm-up 0 --server 192.0.2.1 --json \(here)/load.json", population: false)[
                    "queries"])
        }
        // Some of the nodes that are asked for do not exist: the recording's answers must be as mixed as the recorded ones.
        try host.load("population \(here)/more.json --count 800 --key \(here)/ims.key", population: false)
        try host.shell(
            """
            tcpdump -i lo -U -w \(here)/asked.pcap 'udp dst port 6288' & sleep 0.5
            \(LoadHost.program("mat-load")) queries --population \(here)/more.json --seconds 0.3 --rate 2000 --server 192.0.2.1
            sleep 0.5; kill %1; wait
            """)
        let replayed = try asked("\(here)/asked.pcap")
        let found = replayed.ok / (replayed.ok + (replayed.codes["not found"] ?? 0))
        #expect(abs(found - 0.5) < 0.15 && replayed.unanswered == 0, "\(replayed)")

        try "10.0.0.1  # the first\n\n10.0.0.2\n2001:db8::1\n".write(toFile: "\(here)/list", atomically: true, encoding: .utf8)
        let listed = try asked("\(here)/list")
        #expect(listed.ok > 0 && listed.codes == ["ok": listed.ok], "\(listed)")

        try host.shell("\(LoadHost.program("mat")) ims export --out \(here)/export.jsonl --control \(here)/control.sock")
        let exported = try asked("\(here)/export.jsonl")
        #expect(exported.ok > 0 && exported.codes == ["ok": exported.ok], "\(exported)")

        try "10.0.0.1\nnonsense\n".write(toFile: "\(here)/bad", atomically: true, encoding: .utf8)
        let failure = #expect(throws: ShellError.self) { try asked("\(here)/bad") }
        #expect(failure?.description.contains("line 2: nonsense is no IP address") == true, "\(String(describing: failure))")
    }

    @Test("Wrong usage is told")
    func usage() throws {
        #expect(try runCommand([LoadHost.program("mat-load"), "queries", "--population", "/nonexistent", "--messages", "17"]).status == 64)
    }
}

@Suite("The arithmetic of many nodes", .enabled(if: LoadHost.exists("mat-bench"), "mat-bench is not beside the test bundle; build it"))
struct ScaleTests {
    @Test("A billion nodes' needs add up, and the simulated cluster acknowledges everybody")
    func scale() throws {
        let file = "/tmp/mat-scale-test-\(getpid()).json"
        defer { unlink(file) }
        _ = try shell("\(LoadHost.program("mat-bench")) scale --nodes 1e7 --seconds 2 --etcd-puts 5000 --json \(file)")
        let object = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: file))) as? [String: Any])
        let lines = try #require(object["lines"] as? [[String: Any]])
        let updates = lines.first { $0["name"] as? String == "IMS Updates" }?["value"] as? Double
        #expect(abs((updates ?? 0) - 1e7 / 300 / 1e6) < 1e-9)
        let outcomes = try #require(object["outcomes"] as? [[String: Any]])
        #expect(outcomes.count == 5 && outcomes[0]["lost"] as? Int == 0)
        #expect((outcomes[0]["storeUtilisation"] as? Double ?? 1) < 0.8)
    }
}

/// A namespace with a running imsd that has a population.
private final class LoadHost {
    struct Part: Codable {
        var name: String
        var sent: Double
        var ok: Double
        var unanswered: Double
        var codes: [String: Double]
        var microseconds: [String: Double]
        var more: [String: Double]
    }
    private struct Report: Codable { var parts: [Part] }

    static func program(_ name: String) -> String {
        URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent().path + "/" + name
    }
    static func exists(_ name: String) -> Bool { FileManager.default.isExecutableFile(atPath: program(name)) }

    /// Why there can be none here; `nil` if there can.
    static let obstacle: String? = {
        if getuid() != 0 { return "network namespaces need root" }
        for name in ["mat-load", "imsd", "mat"] where !exists(name) { return "\(name) is not beside the test bundle; build it" }
        return nil
    }()

    let directory: String
    private let namespace: Namespace
    private var daemon: Child?
    /// imsd's.
    var process: pid_t { daemon?.pid ?? 0 }

    init(nodes: Int) throws {
        namespace = try Namespace("mat-load-\(getpid())-\(UInt16.random(in: .min ... .max))")
        directory = "/tmp/\(namespace.name)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        do {
            try start(nodes)
        } catch {
            remove()
            throw error
        }
    }

    private func start(_ nodes: Int) throws {
        try namespace.ipBatch([
            "addr add 192.0.2.1/32 dev lo", "addr add 3fff::1/128 dev lo", "route add local 10.128.0.0/9 dev lo",
            "route add local 172.16.0.0/12 dev lo", "route add local 2001:db8:8000::/33 dev lo",
        ])
        let seed = Data((0..<32).map { _ in UInt8.random(in: .min ... .max) }).base64EncodedString()
        let key = "mat-ed25519-private: \(seed)\n"
        _ = FileManager.default.createFile(atPath: directory + "/ims.key", contents: Data(key.utf8), attributes: [.posixPermissions: 0o600])
        try Namespaces.shell(
            "\(Self.program("mat-load")) population \(directory)/nodes.json --count \(nodes) --key \(directory)/ims.key "
                + "--store \(directory)/ims.db --server 192.0.2.1")
        let text = """
            control: \(directory)/control.sock
            store: \(directory)/ims.db
            signing-key: \(directory)/ims.key
            prefixes:
              - prefix: 10.0.0.0/9
              - prefix: 2001:db8::/34
            dns: {resolvers: ["127.0.0.1:1"]}
            log-level: error

            """
        try text.write(toFile: directory + "/imsd.yaml", atomically: true, encoding: .utf8)
        let daemon = try Child(
            ["ip", "netns", "exec", namespace.name, Self.program("imsd"), "--config", "\(directory)/imsd.yaml"],
            output: .file(directory + "/log"))
        self.daemon = daemon
        for _ in 0..<400 {
            if access(directory + "/control.sock", F_OK) == 0 { return }
            guard daemon.isRunning else { break }
            usleep(25_000)
        }
        throw Failure(description: "imsd did not start: \((try? String(contentsOfFile: directory + "/log", encoding: .utf8)) ?? "")")
    }

    func remove() {
        daemon?.end()
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// - Parameter nodes: another population than the server's.
    @discardableResult
    func load(_ arguments: String, key: Bool = false, nodes: String? = nil, population: Bool = true) throws -> [String: Part] {
        var command = "\(Self.program("mat-load")) \(arguments)"
        if population { command += " --population \(nodes ?? directory + "/nodes.json") --json \(directory)/load.json" }
        if key { command += " --server 192.0.2.1 --server6 3fff::1 --key \(directory)/ims.key" }
        try namespace.run(command)
        guard population || arguments.contains("--json") else { return [:] }
        let report = try JSONDecoder().decode(Report.self, from: Data(contentsOf: URL(fileURLWithPath: directory + "/load.json")))
        return Dictionary(report.parts.map { ($0.name, $0) }) { first, _ in first }
    }

    /// In the namespace.
    @discardableResult
    func shell(_ command: String) throws -> String {
        let script = directory + "/command"
        try command.write(toFile: script, atomically: true, encoding: .utf8)
        return try namespace.run("bash -m \(script)")
    }

    struct Failure: Error, CustomStringConvertible { var description: String }
}

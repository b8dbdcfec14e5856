import Foundation
import Namespaces
import Testing

/// A lab of its own for one suite: `deploy/lab` with real daemons in network namespaces (Tools/Sources/MATLab/SmallInternet.swift draws it).
/// Everything that it starts ends with it, also when a test fails.
final class Lab: @unchecked Sendable {
    @TaskLocal static var current: Lab?

    /// The lab of the suite that the running test belongs to.
    static var shared: Lab {
        get throws { try #require(Lab.current, "the suite has no .lab trait") }
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    struct Output: Sendable {
        let status: Int32
        let text: String
    }

    let name: String
    let script: String
    let binaries: String
    private let lock = NSLock()
    private var running: [Background] = []

    /// Why no lab can be built here; `nil` if one can.
    static let obstacle: String? = {
        if getuid() != 0 { return "network namespaces need root" }
        for program in ["ip", "nsd", "unbound", "dnsmasq", "udhcpc", "tcpdump", "iperf3"] where find(program) == nil {
            return "\(program) is not installed; deploy/install-packages installs what the lab needs"
        }
        for program in ["mat", "matd", "imsd", "mat-relay", "mat-lab", "mat-probe"]
        where !FileManager.default.isExecutableFile(atPath: built + "/" + program) {
            return "\(program) is not in \(built); deploy/test builds it"
        }
        return nil
    }()

    /// Where the product and its tools are built: beside the test bundle.
    private static let built = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent().path

    private static func find(_ program: String) -> String? {
        ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"].map { $0 + program }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Where its nodes put packets into datagrams: auto (the kernel, where it can) or agent.
    let encapsulation: String

    init(name: String, encapsulation: String) throws {
        self.name = name
        self.encapsulation = encapsulation
        let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        script = sources.appendingPathComponent("deploy/lab").path
        binaries = Self.built
    }

    /// The same tests with the other data plane: MAT_TEST_DATA_PLANE=bpf.
    private var dataPlane: [String] {
        ProcessInfo.processInfo.environment["MAT_TEST_DATA_PLANE"].map { ["--data-plane", $0] } ?? []
    }

    func up() throws {
        let output = try run([script, "--name", name, "--bin", binaries, "up", "--encapsulation", encapsulation] + dataPlane, seconds: 90)
        guard output.status == 0 else { throw Failure(description: "the lab did not come up:\n\(output.text)") }
    }

    func down() {
        lock.withLock {
            for process in running { process.terminate() }
            running = []
        }
        _ = try? run([script, "--name", name, "down"], seconds: 60)
    }

    // MARK: Commands

    /// A command of the lab script, such as `attach mn cellular`.
    @discardableResult
    func lab(_ arguments: String...) throws -> String {
        let output = try run([script, "--name", name] + arguments, seconds: 60)
        guard output.status == 0 else { throw Failure(description: "deploy/lab \(arguments.joined(separator: " ")): \(output.text)") }
        return output.text
    }

    /// A command of the lab script that may fail.
    func attempt(_ arguments: [String]) throws -> Output { try run([script, "--name", name] + arguments, seconds: 60) }

    /// What a longer command of the lab script prints. It fails if something did not hold, which its caller judges by what it wrote.
    func tool(_ arguments: [String], seconds: Double) throws -> String {
        try run([script, "--name", name, "--bin", binaries] + arguments, seconds: seconds).text
    }

    /// A command on a host, waited for.
    func on(_ host: String, _ command: String..., arguments: [String] = [], seconds: Double = 30) throws -> Output {
        try run(inside(host) + command + arguments, seconds: seconds)
    }

    /// A shell line on a host, waited for.
    func shell(_ host: String, _ line: String, seconds: Double = 30) throws -> Output {
        try run(inside(host) + ["/bin/bash", "-c", line], seconds: seconds)
    }

    private func inside(_ host: String) -> [String] {
        ["/usr/sbin/ip", "netns", "exec", "\(name)-\(host)", "/usr/bin/env", "PATH=\(binaries):/usr/sbin:/usr/bin:/sbin:/bin"]
    }

    /// A command on a host that goes on in the background until it ends or the lab does.
    func start(_ host: String, _ command: String..., arguments: [String] = []) throws -> Background {
        let background = try Background(inside(host) + command + arguments)
        lock.withLock { running.append(background) }
        return background
    }

    private func run(_ command: [String], seconds: Double) throws -> Output {
        let background = try Background(command)
        return try background.wait(seconds: seconds)
    }

    // MARK: Nodes

    /// The process of a host's agent.
    func agent(_ host: String) throws -> pid_t {
        let record = try String(contentsOfFile: "/run/\(name)/\(host)/matd.pid", encoding: .utf8)
        return try #require(record.split(separator: " ").first.flatMap { pid_t($0) })
    }

    func control(_ host: String) -> String { "/run/\(name)/\(host)/control.sock" }
    func log(_ host: String, _ program: String = "matd") -> String {
        (try? String(contentsOfFile: "/run/\(name)/\(host)/\(program).log", encoding: .utf8)) ?? ""
    }

    /// What `mat status --json` says.
    func status(_ host: String) throws -> [String: Any] {
        let output = try on(host, "mat", "status", "--json", "--control", control(host))
        guard output.status == 0, let object = try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any] else {
            throw Failure(description: "mat status on \(host): \(output.text)")
        }
        return object
    }

    func peers(_ host: String) throws -> [[String: Any]] { try status(host)["peers"] as? [[String: Any]] ?? [] }

    /// Plugs a mobile node into the other network, lets its traffic follow, and unplugs it from the first.
    func handOverWithOverlap(_ node: String, to network: String) throws {
        let device = network == "wlan" ? "wlan0" : "wwan0"
        let other = network == "wlan" ? "cellular" : "wlan"
        try lab("attach", node, network)
        try wait("\(node) has both addresses on \(device)") { try usableFamilies(node, device) == 2 }
        let output = try on(node, "mat", "handover", device, "--control", control(node))
        guard output.status == 0 else { throw Failure(description: "mat handover \(device): \(output.text)") }
        // A way that was silent for a moment, as in a flood, is trusted again after ten seconds; a peer without packets needs none.
        try wait("all peers of \(node) follow to \(device):\n\(try on(node, "mat", "status", "--control", control(node)).text)", seconds: 40) {
            let status = try status(node)
            let peers = status["peers"] as? [[String: Any]] ?? []
            return status["registered"] as? Bool == true
                && peers.allSatisfy { peer in
                    guard let interface = peer["interface"] as? String else { return peer["standing"] as? String == "mapped" }
                    return interface == device
                }
        }
        try lab("detach", node, other)
    }

    /// Unplugs a mobile node, and plugs it into the other network only then.
    func handOverWithoutOverlap(_ node: String, to network: String) throws {
        try lab("detach", node, network == "wlan" ? "cellular" : "wlan")
        try lab("attach", node, network)
        let device = network == "wlan" ? "wlan0" : "wwan0"
        try wait("\(node) is registered from \(device)") { try usableFamilies(node, device) == 2 && status(node)["registered"] as? Bool == true }
    }

    private func usableFamilies(_ node: String, _ device: String) throws -> Int {
        let locators = try status(node)["locators"] as? [[String: Any]] ?? []
        return Set(locators.filter { $0["interface"] as? String == device }.compactMap { ($0["address"] as? String)?.contains(":") }).count
    }

    /// Waits until something holds, and says what did not, as of then.
    func wait(_ what: @autoclosure () throws -> String, seconds: Double = 15, until holds: () throws -> Bool) throws {
        let deadline = Date().addingTimeInterval(seconds)
        while try !holds() {
            guard Date() < deadline else { throw Failure(description: try "not within \(seconds) s: \(what())") }
            Thread.sleep(forTimeInterval: 0.05)
        }
    }
}

/// A process whose output is collected while it runs.
final class Background: Sendable {
    private let child: Child
    private let output: String

    init(_ command: [String]) throws {
        output = FileManager.default.temporaryDirectory.appendingPathComponent("mat-test-\(UUID().uuidString)").path
        child = try Child(command, output: .file(output))
    }

    deinit { unlink(output) }

    var text: String { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }
    var isRunning: Bool { child.isRunning }

    /// Waits for the end; a process that takes longer is ended.
    func wait(seconds: Double) throws -> Lab.Output {
        guard let status = child.wait(within: seconds) else {
            child.end()
            throw Lab.Failure(description: "\(child.command.joined(separator: " ")) took over \(seconds) s:\n\(text)")
        }
        return Lab.Output(status: status, text: text)
    }

    /// Asks it to end (SIGTERM).
    func terminate() { child.signal(SIGTERM) }

    /// Ends it as a person at the keyboard would (SIGINT), so that it prints its summary.
    func interrupt() throws -> Lab.Output {
        child.signal(SIGINT)
        return try wait(seconds: 10)
    }
}

extension Background {
    /// Ends an `iperf3 -i 1 --forceflush` that was to run for longer: it was still running, and no second of it was without data.
    func endFlowing(sourceLocation: SourceLocation = #_sourceLocation) throws {
        let wasRunning = isRunning
        let output = try interrupt()
        #expect(wasRunning, "a connection ended: \(output.text)", sourceLocation: sourceLocation)
        // Whole seconds: the interrupted last one may well be empty.
        let stalls = output.text.matches(of: /\n\[ +\d+\] +[1-9]\d*\.00-\d+\.00 +sec +0\.00 Bytes/)
        #expect(stalls.isEmpty, "a connection stalled for a second: \(output.text)", sourceLocation: sourceLocation)
    }
}

/// Gives a suite a lab of its own.
struct LabTrait: SuiteTrait, TestScoping {
    let name: String
    let encapsulation: String

    func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
        if let obstacle = Lab.obstacle {
            print("skipped: \(obstacle)")
            return
        }
        let lab = try Lab(name: "\(name)\(getpid() % 100_000)", encapsulation: encapsulation)
        do {
            try lab.up()
            try await Lab.$current.withValue(lab) { try await function() }
        } catch {
            lab.down()
            throw error
        }
        lab.down()
    }
}

extension Trait where Self == LabTrait {
    /// A lab named after the suite, at most 8 lower-case letters.
    ///
    /// - Parameter encapsulation: where its nodes put packets into datagrams: auto (the kernel, where it can) or agent.
    static func lab(_ name: String, encapsulation: String = "auto") -> LabTrait { LabTrait(name: name, encapsulation: encapsulation) }
}

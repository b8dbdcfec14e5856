import Foundation
import Glibc
import MATRuntime
import Testing

/// A program that a test runs, killed at the latest when the test forgets it.
final class Program: @unchecked Sendable {
    let path: String
    private let arguments: [String]
    private let log: String
    private(set) var pid: pid_t = 0

    /// - Parameter namespace: the network namespace that it runs in.
    init(_ path: String, _ arguments: [String], log: String, namespace: String? = nil) {
        self.path = namespace == nil ? path : "/sbin/ip"
        self.arguments = namespace.map { ["netns", "exec", $0, path] + arguments } ?? arguments
        self.log = log
    }

    func start() throws {
        try #require(pid == 0)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        var strings: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        try #require(posix_spawn(&pid, path, &actions, nil, &strings, environ) == 0, "\(path) could not be started")
    }

    /// Sends a signal that does not end it.
    func signal(_ number: Int32) {
        guard pid > 0 else { return }
        kill(pid, number)
        // A thread that runs on another core goes on until it next enters the kernel.
        if number == SIGSTOP { _ = eventually { !self.hasRunningThread } }
    }

    private var hasRunningThread: Bool {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        return tasks.contains { task in
            // The state follows the name, which may itself hold a bracket.
            let stat = (try? String(contentsOfFile: "/proc/\(pid)/task/\(task)/stat", encoding: .utf8)) ?? ""
            return stat.split(separator: ")").last.map { !$0.hasPrefix(" T") } ?? false
        }
    }

    /// Sends a signal that ends it, and waits.
    ///
    /// - Returns: the exit status, or minus the signal that ended it.
    @discardableResult
    func end(_ number: Int32 = SIGKILL) -> Int32 {
        guard pid > 0 else { return 0 }
        kill(pid, number)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        pid = 0
        return status & 0x7F == 0 ? status >> 8 & 0xFF : -(status & 0x7F)
    }

    deinit { end() }

    /// Waits until it ends by itself.
    func wait() -> Int32 {
        var status: Int32 = 0
        guard pid > 0, waitpid(pid, &status, 0) == pid else { return -1 }
        pid = 0
        return status
    }

    /// Runs a program to its end.
    @discardableResult
    static func run(_ path: String, _ arguments: String...) -> Int32 {
        let program = Program(path, arguments, log: "/dev/null")
        return (try? program.start()) == nil ? -1 : program.wait()
    }

    /// The program beside the test bundle; `nil` if it was not built.
    static func built(_ name: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { return nil }
        let own = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = own.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/\(name)"
        return access(path, X_OK) == 0 ? path : nil
    }

    static func installed(_ name: String) -> String? {
        ["/usr/bin/\(name)", "/usr/sbin/\(name)", "/bin/\(name)", "/sbin/\(name)"].first { access($0, X_OK) == 0 }
    }
}

/// A directory that goes with the test.
final class TemporaryDirectory: @unchecked Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/mat-cluster-XXXXXX".utf8CString)
        let isMade = template.withUnsafeMutableBufferPointer { buffer in buffer.baseAddress.map { mkdtemp($0) != nil } ?? false }
        try #require(isMade)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { Program.run("/bin/rm", "-rf", path) }
}

func milliseconds() -> Int64 { SystemClock.now().monotonic.nanoseconds / 1_000_000 }

/// Waits for something to become true.
@discardableResult
func eventually(within seconds: Double = 15, _ condition: () -> Bool) -> Bool {
    let end = milliseconds() + Int64(seconds * 1000)
    while milliseconds() < end {
        if condition() { return true }
        usleep(20_000)
    }
    return condition()
}

/// A TCP port that nothing listens on at the moment, at a loopback address of the caller's own.
func freePort(_ address: String = "127.0.0.1") throws -> Int {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    inet_pton(AF_INET, address, &name.sin_addr)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &name) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
        }
    }
    try #require(bound)
    return Int(UInt16(bigEndian: name.sin_port))
}

import Foundation
import Glibc
import MATRuntime
import Namespaces
import Testing

/// A program that a test runs, killed at the latest when the test forgets it, and that it may start again.
final class Program: @unchecked Sendable {
    private let command: [String]
    private let log: String
    private var child: Child?

    /// - Parameter namespace: the network namespace that it runs in.
    init(_ path: String, _ arguments: [String], log: String, namespace: String? = nil) {
        command = (namespace.map { ["/sbin/ip", "netns", "exec", $0] } ?? []) + [path] + arguments
        self.log = log
    }

    func start() throws {
        try #require(child == nil)
        child = try Child(command, output: .file(log))
    }

    /// Sends a signal that does not end it.
    func signal(_ number: Int32) {
        child?.signal(number)
        // A thread that runs on another core goes on until it next enters the kernel.
        if number == SIGSTOP { _ = eventually { !self.hasRunningThread } }
    }

    private var hasRunningThread: Bool {
        guard let pid = child?.pid else { return false }
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
        defer { child = nil }
        return child?.end(number) ?? 0
    }

    /// Waits until it ends by itself.
    ///
    /// - Returns: the exit status, or minus the signal that ended it; -1 if it runs too long or not at all.
    func wait() -> Int32 {
        guard let child, let status = child.wait(within: 120) else { return -1 }
        self.child = nil
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

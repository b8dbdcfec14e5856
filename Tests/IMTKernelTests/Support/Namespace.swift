import Foundation
import Glibc
import Synchronization

/// A network namespace of its own, by name, so that `ip netns exec` reaches it too. Removed with its links on deinit.
final class Namespace {
    let name: String
    private static let count = Mutex(0)

    init(_ role: String) throws {
        let number = Self.count.withLock { count in
            count += 1
            return count
        }
        name = "imtk-\(getpid())-\(number)\(role)"
        try shell("ip netns add \(name)")
        try shell("ip -n \(name) link set lo up")
        // Until duplicate address detection is through, a router can't ask for its neighbours: a second per test.
        try shell("ip netns exec \(name) sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0")
    }

    deinit { _ = try? shell("ip netns del \(name)") }

    @discardableResult
    func run(_ command: String) throws -> String { try shell("ip netns exec \(name) \(command)") }

    /// Like `run`, but the exit status is part of the answer.
    func attempt(_ command: String) -> (status: Int32, output: String) { shellStatus("ip netns exec \(name) \(command)") }

    /// Runs `body` in a thread that has entered the namespace. Sockets made there stay there, whoever uses them later.
    func inside<T>(_ body: @escaping () throws -> T) throws -> T {
        nonisolated(unsafe) var result: Result<T, any Error>?
        nonisolated(unsafe) let work = body
        let path = "/run/netns/\(name)"
        let thread = NamespaceThread {
            do {
                try enterNamespace(path)
                result = .success(try work())
            } catch {
                result = .failure(error)
            }
        }
        thread.join()
        guard let result else { throw ShellError(text: "no result") }
        return try result.get()
    }
}

struct ShellError: Error, CustomStringConvertible {
    var text: String
    var description: String { text }
}

func enterNamespace(_ path: String) throws {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw ShellError(text: "open \(path): \(errno)") }
    defer { close(descriptor) }
    // setns() is declared only with _GNU_SOURCE, which Swift's Glibc module does not define.
    typealias SetNS = @convention(c) (Int32, Int32) -> Int32
    guard let symbol = dlsym(nil, "setns") else { throw ShellError(text: "no setns") }
    guard unsafeBitCast(symbol, to: SetNS.self)(descriptor, 0x4000_0000) == 0 else { throw ShellError(text: "setns: \(errno)") }
}

final class NamespaceThread {
    private final class Box {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
    }

    private var thread = pthread_t()

    init(_ body: @escaping () -> Void) {
        pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, Unmanaged.passRetained(Box(body)).toOpaque())
    }

    func join() { pthread_join(thread, nil) }
}

func shellStatus(_ command: String) -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/sh")
    process.arguments = ["-c", command + " 2>&1"]
    process.standardInput = FileHandle.nullDevice
    let pipe = Pipe()
    process.standardOutput = pipe
    do { try process.run() } catch { return (-1, "\(error)") }
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: data, as: UTF8.self))
}

@discardableResult
func shell(_ command: String) throws -> String {
    let (status, output) = shellStatus(command)
    guard status == 0 else { throw ShellError(text: "\(command): exit \(status): \(output)") }
    return output
}

/// Why tests that need the kernel can't run here; `nil` if they can.
let kernelTestsImpossible: String? = {
    if getuid() != 0 { return "not root" }
    for tool in ["ip", "nft", "ping"] where shellStatus("command -v \(tool)").status != 0 { return "\(tool) is not installed" }
    let probe = "imtk-\(getpid())-probe"
    if shellStatus("ip netns add \(probe)").status != 0 { return "network namespaces can't be made here" }
    _ = shellStatus("ip netns del \(probe)")
    return nil
}()

/// A shell command that runs until told to end; only that process is signalled.
final class CommandInBackground {
    private let process = Process()

    init(_ command: String) throws {
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "exec " + command]
        process.standardInput = FileHandle.nullDevice
        try process.run()
    }

    deinit { end() }

    func end() {
        guard process.isRunning else { return }
        // Foundation starts children with the thread's signal mask, in which SIGTERM may be blocked.
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }
}

/// Work in another thread, for blocking ends of a conversation.
final class BackgroundWork: @unchecked Sendable {
    private var thread: NamespaceThread?
    private var failure: (any Error)?

    init(_ body: @escaping () throws -> Void) {
        thread = NamespaceThread { [self] in do { try body() } catch { failure = error } }
    }

    func wait() throws {
        thread?.join()
        if let failure { throw failure }
    }
}

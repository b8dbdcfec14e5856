import CLinux
import Glibc

/// One host: a network namespace with a name, so that `ip netns exec` reaches it too.
///
/// Names carry this process's id. What a killed run left behind is recognised by that and removed by the next one.
package final class BenchNamespace: Sendable {
    package static let prefix = "mat-bench-"

    package let name: String
    private let descriptor: Int32

    package init(_ role: String) throws {
        name = "\(Self.prefix)\(getpid())-\(role)"
        Cleanup.shared.note(namespace: name)
        try shell("ip netns add \(name)")
        descriptor = mat_open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw BenchError("open the namespace \(name): errno \(errno)") }
        // Duplicate address detection would keep every host silent for a second.
        try shell("ip -n \(name) link set lo up; ip netns exec \(name) sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0")
    }

    deinit { close(descriptor) }

    /// Moves the calling thread into the namespace, for good: sockets it opens from now on are the host's.
    package func enter() throws {
        guard mat_enter_network_namespace(descriptor) == 0 else { throw BenchError("enter \(name): errno \(errno)") }
    }

    @discardableResult
    package func run(_ command: String, input: String? = nil) throws -> String {
        try shell("ip netns exec \(name) \(command)", input: input)
    }

    @discardableResult
    package func ip(_ arguments: String) throws -> String { try shell("ip -n \(name) \(arguments)") }

    /// Many `ip` commands in one process: a hundred thousand addresses would take minutes one by one.
    package func ipBatch(_ lines: [String]) throws { try shell("ip -n \(name) -batch -", input: lines.joined(separator: "\n") + "\n") }

    /// Removes what benchmarks left whose process is gone.
    package static func removeStale() {
        guard let list = try? shell("ip netns list") else { return }
        for line in list.split(separator: "\n") where line.hasPrefix(prefix) {
            let name = line.prefix { $0 != " " }
            let owner = pid_t(name.dropFirst(prefix.count).prefix { $0 != "-" }) ?? 0
            if owner > 0, kill(owner, 0) != 0, errno == ESRCH { _ = try? shell("ip netns del \(name)") }
        }
    }
}

/// Which core does what. Everything measured happens on one; all else keeps off it where there is another.
package struct Cores {
    package let count = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    package let measured: Int

    /// - Parameter measured: the last core if `nil`: the first serves most interrupts.
    package init(measured: Int?) throws {
        self.measured = measured ?? max(0, count - 1)
        guard (0..<min(count, 64)).contains(self.measured) else { throw BenchError("there is no core \(self.measured)") }
    }

    package func pinToMeasured() throws { try pin(1 << UInt(measured)) }

    package func pinToOthers() throws {
        let all = count >= 64 ? UInt.max : (1 << UInt(count)) - 1
        let others = all & ~(1 << UInt(measured))
        try pin(others == 0 ? all : others)
    }

    private func pin(_ mask: UInt) throws {
        guard mat_pin_thread(mask) == 0 else { throw BenchError("pin a thread to cores \(String(mask, radix: 2)): errno \(errno)") }
    }
}

/// Others' work on this thread's core waits for it as far as an ordinary process may ask for that.
package func yieldToNobody() { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, -20) }

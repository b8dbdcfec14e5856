import Foundation
import Glibc
import MATSignal

/// Finds sockets in /proc: those of a process by its descriptors, or all of a network namespace.
enum ProcessSockets {
    private static let tables: [(name: String, transport: HostSocket.Transport)] = [("tcp", .tcp), ("tcp6", .tcp), ("udp", .udp), ("udp6", .udp)]

    /// All of this program's network namespace.
    static func all() -> [HostSocket] { sockets(of: "thread-self") }

    /// Those of a process, in order.
    static func of(_ process: Int32) throws(CommandFailure) -> [HostSocket] {
        guard kill(process, 0) == 0 || errno != ESRCH else {
            throw CommandFailure("there is no process \(process); `ss -tunp` lists sockets with theirs")
        }
        try checkNamespace(of: process)
        guard let inodes = ProcessFiles.sockets(of: process) else {
            throw CommandFailure(
                "read /proc/\(process)/fd: \(String(cString: strerror(errno))); \(errno == EACCES ? "run this as root, or as that process's user" : "it may have ended")"
            )
        }
        return sockets(of: "\(process)").filter { UInt32(exactly: $0.inode).map(inodes.contains) ?? false }
    }

    static func name(of process: Int32) -> String {
        (try? String(contentsOfFile: "/proc/\(process)/comm", encoding: .utf8))?.trimmingCharacters(in: .newlines) ?? "?"
    }

    /// The agent sees nothing of what is in another network namespace.
    private static func checkNamespace(of process: Int32) throws(CommandFailure) {
        guard let theirs = ProcessFiles.network(of: process), let ours = ProcessFiles.network(of: getpid()), theirs != ours else { return }
        throw CommandFailure(
            "process \(process) is in another network namespace (a container's?), whose traffic this node does not map; if matd runs in that one, `nsenter -t \(process) -n mat explain \(process)`"
        )
    }

    private static func sockets(of process: String) -> [HostSocket] {
        let found = tables.flatMap { table in
            HostSocket.parse((try? String(contentsOfFile: "/proc/\(process)/net/\(table.name)", encoding: .utf8)) ?? "", table.transport)
        }
        return found.sorted { a, b in
            (a.transport.rawValue, a.local, a.remote?.address ?? a.local.address, a.remote?.port ?? 0)
                < (b.transport.rawValue, b.local, b.remote?.address ?? b.local.address, b.remote?.port ?? 0)
        }
    }
}

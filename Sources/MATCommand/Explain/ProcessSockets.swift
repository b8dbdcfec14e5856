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
        let inodes = try inodes(of: process)
        return sockets(of: "\(process)").filter { inodes.contains($0.inode) }
    }

    static func name(of process: Int32) -> String {
        (try? String(contentsOfFile: "/proc/\(process)/comm", encoding: .utf8))?.trimmingCharacters(in: .newlines) ?? "?"
    }

    /// The agent sees nothing of what is in another network namespace.
    private static func checkNamespace(of process: Int32) throws(CommandFailure) {
        let manager = FileManager.default
        guard let theirs = try? manager.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/net"),
            let ours = try? manager.destinationOfSymbolicLink(atPath: "/proc/self/ns/net"), theirs != ours
        else { return }
        throw CommandFailure(
            "process \(process) is in another network namespace (a container's?), whose traffic this node does not map; if matd runs in that one, `nsenter -t \(process) -n mat explain \(process)`"
        )
    }

    private static func inodes(of process: Int32) throws(CommandFailure) -> Set<UInt64> {
        let directory = "/proc/\(process)/fd"
        guard let stream = opendir(directory) else {
            throw CommandFailure(
                "read \(directory): \(String(cString: strerror(errno))); \(errno == EACCES ? "run this as root, or as that process's user" : "it may have ended")"
            )
        }
        defer { closedir(stream) }
        var inodes: Set<UInt64> = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            // socket:[12345]
            guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\(name)"), target.hasPrefix("socket:["),
                let inode = UInt64(target.dropFirst(8).dropLast())
            else { continue }
            inodes.insert(inode)
        }
        return inodes
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

import Glibc

/// What /proc says of processes, as far as the user may read it.
enum ProcessFiles {
    /// The network namespace that a process is in; `nil` if that can't be read.
    static func network(of process: Int32) -> UInt64? {
        var information = stat()
        return stat("/proc/\(process)/ns/net", &information) == 0 ? UInt64(information.st_ino) : nil
    }

    /// Which of these processes has which socket, by the sockets' inodes; of several the first.
    static func sockets(of processes: Set<Int32>) -> [UInt32: Int32] {
        var result: [UInt32: Int32] = [:]
        for process in processes.sorted() {
            for inode in sockets(of: process) ?? [] where result[inode] == nil { result[inode] = process }
        }
        return result
    }

    /// The inodes of a process's sockets; `nil` if its descriptors can't be read, of which `errno` says why.
    static func sockets(of process: Int32) -> Set<UInt32>? {
        let path = "/proc/\(process)/fd"
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        var inodes: Set<UInt32> = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if let inode = inode("\(path)/\(name)") { inodes.insert(inode) }
        }
        return inodes
    }

    /// Of a descriptor that is a socket: it points to "socket:[INODE]".
    private static func inode(_ path: String) -> UInt32? {
        var buffer = [CChar](repeating: 0, count: 64)
        let count = readlink(path, &buffer, buffer.count)
        guard count > 9 else { return nil }
        let text = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.hasPrefix("socket:[") && text.hasSuffix("]") ? UInt32(text.dropFirst(8).dropLast()) : nil
    }
}

import CLinux
import Glibc

/// The system calls of stream sockets in the file system, shared by the control socket's two ends.
enum UnixSocket {
    /// `sun_path` with its terminating zero.
    static let pathBytesMax = 107

    static func make() throws(ControlError) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw ControlError("can't make a socket: \(reason())") }
        return descriptor
    }

    /// Calls `body` with the path as a socket address.
    static func withAddress<R>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R) throws(ControlError) -> R {
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count <= pathBytesMax, !bytes.contains(0) else {
            throw ControlError("\(path): a socket's path has 1 to \(pathBytesMax) bytes")
        }
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }

    /// - Returns: zero, or the errno of connect(2).
    static func connect(_ descriptor: Int32, to path: String) throws(ControlError) -> Int32 {
        try withAddress(path) { Glibc.connect(descriptor, $0, $1) == 0 ? 0 : errno }
    }

    static func reason(_ number: Int32 = errno) -> String { String(cString: strerror(number)) }
}

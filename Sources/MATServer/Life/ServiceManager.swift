import CLinux
import Glibc
import MATRuntime

/// Tells the service manager that started this process how it fares (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET
/// names. Without that variable, as when started by hand, nothing happens.
public struct ServiceManager: Sendable {
    private let path: String?

    /// - Parameter path: the socket; by default what the environment names. A path that begins with `@` is abstract.
    public init(path: String? = getenv("NOTIFY_SOCKET").map { String(cString: $0) }) { self.path = path }

    /// It serves; `status` is a line for people.
    public func ready(status: String) { notify("READY=1\nSTATUS=\(status)") }

    /// It reads its configuration anew, until the next `ready`.
    public func reloading() {
        let microseconds = SystemClock.now().monotonic.nanoseconds / 1000
        notify("RELOADING=1\nMONOTONIC_USEC=\(microseconds)")
    }

    /// It finishes what is in flight, and then ends.
    public func stopping() { notify("STOPPING=1\nSTATUS=finishing what is in flight") }

    private func notify(_ text: String) {
        guard let path, !path.isEmpty else { return }
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        var octets = Array(path.utf8)
        // An abstract name has a zero instead of the @, and its length counts instead of a zero at its end.
        if octets.first == UInt8(ascii: "@") { octets[0] = 0 }
        guard octets.count < MemoryLayout.size(ofValue: name.sun_path) else { return }
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: octets) }
        let length = socklen_t(MemoryLayout<sockaddr_un>.offset(of: \.sun_path).map { $0 + octets.count } ?? MemoryLayout<sockaddr_un>.size)
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        // Nobody can be told of a failure; the manager's own time-out speaks then.
        let message = Array(text.utf8)
        _ = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, message, message.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT), $0, length)
            }
        }
    }
}

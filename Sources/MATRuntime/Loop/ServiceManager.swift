import CLinux
import Glibc

/// Tells the service manager that started this process how it fares (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET
/// names. Without that variable, as when started by hand, nothing happens.
public struct ServiceManager: Sendable {
    private let path: String?
    /// `nil` unless the manager watches this process.
    private let watchdogInterval: Duration?

    /// - Parameter path: the socket; by default what the environment names. A path that begins with `@` is abstract.
    public init(path: String? = getenv("NOTIFY_SOCKET").map { String(cString: $0) }) {
        self.path = path
        watchdogInterval = Self.watchdogInterval(
            time: getenv("WATCHDOG_USEC").map { String(cString: $0) }, process: getenv("WATCHDOG_PID").map { String(cString: $0) }, own: getpid())
    }

    /// Half the time after which the manager takes a process for hung; `nil` if it watches none, or another one.
    static func watchdogInterval(time: String?, process: String?, own: pid_t) -> Duration? {
        guard let time = time.flatMap({ Int64($0) }), time > 1, process.map({ pid_t($0) == own }) ?? true else { return nil }
        return .microseconds(time / 2)
    }

    /// It serves; `status` is a line for people.
    public func ready(status: String) { notify("READY=1\nSTATUS=\(status)") }

    /// It reads its configuration anew, until the next `ready`.
    public func reloading() {
        let microseconds = SystemClock.now().monotonic.nanoseconds / 1000
        notify("RELOADING=1\nMONOTONIC_USEC=\(microseconds)")
    }

    /// Says again and again that `loop` turns, as often as the manager wants to hear it (WATCHDOG_USEC, twice in that time), so that a daemon that hangs is
    /// started anew. Nothing happens if the manager does not watch this process.
    public func beat(on loop: EventLoop) {
        guard let interval = watchdogInterval else { return }
        loop.schedule(after: interval) { [self, weak loop] in
            notify("WATCHDOG=1")
            if let loop { beat(on: loop) }
        }
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

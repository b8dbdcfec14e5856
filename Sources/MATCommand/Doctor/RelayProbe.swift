import CLinux
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// Asks a relay where this comes from, which it tells everybody (protocol.md section 11.3).
enum RelayProbe {
    private static let patience: Duration = .milliseconds(500)
    private static let triesMax = 3

    static func answers(_ relay: Endpoint) -> Bool {
        let descriptor = socket(relay.address.isIPv4 ? AF_INET : AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // As matd's own questions: beside the translation. Only root may mark them so.
        var mark = IMTConfiguration().mark
        setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark, 4)
        guard SocketAddress.use(relay.address, port: relay.port, { connect(descriptor, $0, $1) }) == 0 else { return false }
        let bind = Bind.padded(cookie: Cookie(client: .random(in: 0 ... .max)), .ask)
        let octets = SignalMessage(sequence: .random(in: 0 ... .max), .bind(bind)).octets
        var buffer = [UInt8](repeating: 0, count: 2048)
        for _ in 0..<triesMax {
            guard send(descriptor, octets, octets.count, 0) == octets.count else { return false }
            var waited = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waited, 1, Int32(clamping: patience.millisecondsSaturated)) > 0 else { continue }
            if recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT)) > 0 { return true }
            // A port that nobody listens on says so at once, each time.
            usleep(100_000)
        }
        return false
    }
}

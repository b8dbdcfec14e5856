import CLinux
import Glibc
import MATRuntime
import MATSignal

/// Asks a relay where this comes from, which it tells everybody (protocol.md section 11.3).
enum RelayProbe {
    private static let patience: Duration = .milliseconds(500)
    private static let triesMax = 3

    static func answers(_ relay: Endpoint) -> Bool {
        OwnTraffic.withUDP(to: relay) { answers(by: $0) } ?? false
    }

    /// - Parameter descriptor: of a socket that is connected to the relay.
    private static func answers(by descriptor: Int32) -> Bool {
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

import Glibc
import MATCore
import MATRuntime
import MATSignal
import Testing

/// A node's signalling socket, as protocol.md section 7 wants it used: retransmission as a node's (`Retransmission`), by the round trip of the
/// server once that is known; from the third try on the next server is asked in parallel. It stays with the server that answered. Used in one
/// thread, made inside the lab's namespace.
final class LabClient {
    private let descriptor: Int32
    private let servers: [IPAddress]
    private(set) var current: Int
    /// Gets MA Notify that comes while an answer is waited for.
    var onPush: ((SignalMessage, Int) -> Void)?
    private var cookie = Cookie(client: .random(in: .min ... .max))
    private var sequence = UInt32.random(in: .min ... .max)
    /// Of each server, from answers to first tries.
    private var roundTrips: [Int: SmoothedRTT] = [:]

    struct Answer {
        var message: SignalMessage
        var server: Int
        var milliseconds: Int64
        /// From the third on another server was asked too.
        var tries: Int
        /// Before the second try.
        var interval: Int64
    }

    init(_ source: String, servers: [String], startingAt first: Int = 0) throws {
        self.servers = servers.map { address($0) }
        current = first
        descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        var name = Self.name(address(source), SignalPort.node)
        let bound = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(bound == 0, "bind \(source): \(errno)")
    }

    deinit { close(descriptor) }

    private static func name(_ address: IPAddress, _ port: UInt16) -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = (address.ipv4 ?? 0).bigEndian
        return name
    }

    private func send(_ octets: [UInt8], to server: Int) {
        var name = Self.name(servers[server], SignalPort.ims)
        _ = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, octets, octets.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    /// Asks this server and waits for no answer.
    func fire(at server: Int, _ make: (Cookie) -> SignalMessage.Body) {
        sequence &+= 1
        send(SignalMessage(sequence: sequence, make(cookie)).octets, to: server)
    }

    /// Acknowledges a push.
    func acknowledge(_ message: SignalMessage, _ notify: MANotify, to server: Int) {
        let cookie = Cookie(client: notify.cookie.client)
        let ack = MANotifyAck(code: .ok, cookie: cookie, hoa: notify.record.mapping.record.hoa)
        send(SignalMessage(sequence: message.sequence, .maNotifyAck(ack)).octets, to: server)
    }

    /// The next message, from one of the servers.
    func receive(within wait: Int64) -> (message: SignalMessage, server: Int)? {
        let end = milliseconds() + wait
        while true {
            let left = end - milliseconds()
            guard left > 0 else { return nil }
            var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&poller, 1, Int32(clamping: left)) > 0 else { continue }
            var buffer = [UInt8](repeating: 0, count: 2048)
            var name = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let count = withUnsafeMutablePointer(to: &name) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    recvfrom(descriptor, &buffer, buffer.count, 0, $0, &length)
                }
            }
            // A server that is down answers with ICMP, which is an error here and no answer.
            guard count > 0, let server = servers.firstIndex(of: IPAddress(ipv4: UInt32(bigEndian: name.sin_addr.s_addr))) else {
                continue
            }
            guard case .message(let message, _)? = SignalDatagram.decode(Array(buffer.prefix(count))).first else { continue }
            return (message, server)
        }
    }

    /// - Parameter only: ask this server and no other, with a single try.
    /// - Returns: `nil` if nobody answered.
    func ask(only: Int? = nil, _ make: (Cookie) -> SignalMessage.Body) -> Answer? {
        let began = milliseconds()
        sequence &+= 1
        let sequence = sequence
        let first = only ?? current
        let type = SignalMessage(sequence: sequence, make(cookie)).type
        var tries = Retransmission(type: type, smoothedRTT: roundTrips[first]?.value, now: SystemClock.now().monotonic)
        var interval: Int64 = 0
        while !tries.isExhausted, only == nil || tries.tries == 0 {
            let now = SystemClock.now().monotonic
            tries.tried(at: now)
            if tries.tries == 1 { interval = (tries.due - now).millisecondsSaturated }
            send(SignalMessage(sequence: sequence, make(cookie)).octets, to: first)
            if tries.tries >= Retransmission.failoverTry {
                let next = first + 1 + (tries.tries - Retransmission.failoverTry) % 2
                send(SignalMessage(sequence: sequence, make(cookie)).octets, to: next % servers.count)
            }
            let end = tries.due.nanoseconds / 1_000_000
            while let (message, server) = receive(within: end - milliseconds()) {
                if message.type == .maNotify { onPush?(message, server) }
                guard message.sequence == sequence, message.type.isRequest == false else { continue }
                if message.code == .cookieRequired {
                    cookie.server = message.cookie.server
                    send(SignalMessage(sequence: sequence, make(cookie)).octets, to: server)
                    continue
                }
                if let fresh = message.cookie.server { cookie.server = fresh }
                if only == nil { current = server }
                let took = milliseconds() - began
                // Which try an answer belongs to is known of the first alone (Karn).
                if tries.tries == 1 { roundTrips[server, default: SmoothedRTT()].add(.milliseconds(took)) }
                return Answer(message: message, server: server, milliseconds: took, tries: tries.tries, interval: interval)
            }
        }
        return nil
    }
}

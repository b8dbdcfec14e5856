import CLinux
import Glibc
import MATRuntime
import MATSignal

/// One connected, non-blocking socket to a DNS server, UDP or TCP. Its port is new and random with every query, and the
/// kernel drops what does not come from the server's address and port.
final class ResolverSocket {
    enum Event {
        /// A whole message.
        case message([UInt8])
        /// The server can't be reached, or closed the connection.
        case failed
    }

    /// We announce 1232 octets; what doesn't fit here was not meant for us.
    static let datagramBytesMax = 4096
    static let datagramsPerTurnMax = 16

    private var descriptor: Int32 = -1
    private let loop: EventLoop
    private let isStream: Bool
    private let handler: (Event) -> Void
    /// Over TCP: what isn't written yet, and what has come of the answer.
    private var output: [UInt8]
    private var input: [UInt8] = []

    /// Connects and sends. `nil` if the kernel refuses at once, as it does without a route.
    ///
    /// - Parameter own: the address to send from, whose link it takes; `nil`: the kernel chooses.
    init?(
        loop: EventLoop, server: ResolverConfiguration.Server, from own: IPAddress?, stream: Bool, mark: UInt32?, query: [UInt8],
        handler: @escaping (Event) -> Void
    ) {
        self.loop = loop
        self.handler = handler
        isStream = stream
        output = stream ? [UInt8(truncatingIfNeeded: query.count >> 8), UInt8(truncatingIfNeeded: query.count)] + query : query
        let kind = stream ? SOCK_STREAM : SOCK_DGRAM
        descriptor = socket(AF_INET6, Int32(kind.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var mapped: Int32 = 0
        setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &mapped, 4)
        if var mark { setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark, 4) }
        guard own.map(bind) ?? true, connect(to: server), start() else {
            close()
            return nil
        }
    }

    deinit { close() }

    func close() {
        guard descriptor >= 0 else { return }
        loop.unwatch(descriptor)
        Glibc.close(descriptor)
        descriptor = -1
    }

    private func bind(_ own: IPAddress) -> Bool {
        SocketName(Endpoint(own, port: 0)).use { Glibc.bind(descriptor, $0, $1) } == 0
    }

    private func connect(to server: ResolverConfiguration.Server) -> Bool {
        // As in getaddrinfo(3), a zone is an interface's name or number.
        let scope = server.interface.map { UInt32($0) ?? if_nametoindex($0) } ?? 0
        let result = SocketName(server.endpoint, scope: scope).use { Glibc.connect(descriptor, $0, $1) }
        return result == 0 || errno == EINPROGRESS
    }

    private func start() -> Bool {
        do {
            try loop.watch(descriptor) { [unowned self] in isStream ? receiveStream() : receiveDatagrams() }
        } catch {
            return false
        }
        if isStream {
            loop.whenWritable(descriptor) { [unowned self] in flush() }
            return true
        }
        return send(descriptor, output, output.count, Int32(MSG_NOSIGNAL)) == output.count
    }

    private func fail() {
        close()
        handler(.failed)
    }

    private func receiveDatagrams() {
        var buffer = [UInt8](repeating: 0, count: Self.datagramBytesMax)
        for _ in 0..<Self.datagramsPerTurnMax {
            // A message may end the exchange and close this socket.
            guard descriptor >= 0 else { return }
            let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_TRUNC))
            if count < 0 {
                // ECONNREFUSED and its like are the ICMP errors to our query.
                if errno != EAGAIN && errno != EINTR { fail() }
                return
            }
            if count <= buffer.count { handler(.message(Array(buffer[..<count]))) }
        }
    }

    private func flush() {
        let count = send(descriptor, output, output.count, Int32(MSG_NOSIGNAL))
        if count < 0 {
            if errno != EAGAIN && errno != EINTR { fail() }
            return
        }
        output.removeFirst(count)
        if output.isEmpty { loop.whenWritable(descriptor, nil) }
    }

    private func receiveStream() {
        var buffer = [UInt8](repeating: 0, count: 16_384)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        if count < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTCONN) { return }
        guard count > 0 else { return fail() }
        input += buffer[..<count]
        // The length field bounds what is collected to 64 KB and one read.
        guard input.count >= 2 else { return }
        let length = Int(input[0]) << 8 | Int(input[1])
        guard input.count >= 2 + length else { return }
        let message = Array(input[2..<2 + length])
        close()
        handler(.message(message))
    }
}

import BenchSupport
import CLinux
import Glibc
import MATCore
import MATRuntime
import MATSignal
import Namespaces

func key(_ seed: UInt8) throws -> SigningKey {
    guard let key = SigningKey(seed: [UInt8](repeating: seed, count: 32)) else { throw BenchError("no key") }
    return key
}

/// One end: a socket, and where its relay is.
final class End {
    let socket: BoundSocket
    /// Or a TURN server.
    let relay: Endpoint
    let place: Endpoint

    init(in namespace: Namespace, at place: Endpoint, relay: Endpoint) throws {
        socket = try namespace.inside { try BoundSocket(port: place.port, address: place.address, options: BoundSocket.Options()) }
        self.relay = relay
        self.place = place
    }

    /// Binds, trying for as long as the relay may take to start.
    func bind(_ hoa: HomeAddress, _ authority: SigningKey) throws {
        let node = try key(9)
        let now = SystemClock.now().wallMilliseconds
        guard
            let certificate = Certificate(issuing: hoa, nodeKey: node.publicKey, notBefore: now - 1000, notAfter: now + 86_400_000, with: authority)
        else { throw BenchError("no certificate") }
        for _ in 0..<100 {
            guard let cookie = answer(to: .padded(cookie: Cookie(client: 1), .ask))?.cookie, let challenge = Challenge(cookie) else { continue }
            let statement = PathStatement(.bind, by: hoa, to: relay.address, at: relay, cookie: challenge)
            guard let signature = statement.signed(with: node) else { continue }
            let proof = PathProof(certificate: .whole(certificate), signature: signature)
            if answer(to: Bind(cookie: cookie, .bind(hoa, proof, lifetime: 600)))?.code == .ok { return }
        }
        throw BenchError("\(hoa) is not bound at \(relay)")
    }

    private func answer(to bind: Bind) -> BindAck? {
        socket.send(SignalMessage(sequence: 1, .bind(bind)).octets, to: relay)
        var waiting = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, 100) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 2048)
        let count = recv(socket.descriptor, &buffer, buffer.count, 0)
        guard count > 0, case .message(let message, _)? = SignalDatagram.decode(Array(buffer.prefix(count))).first,
            case .bindAck(let ack) = message.body
        else { return nil }
        return ack
    }
}

/// One direction: as many packets at once as fit in a window, by one system call for each side.
final class Window {
    static let size = 64

    private let source: End
    private let target: End
    private let octets: [UInt8]
    private let messages: UnsafeMutablePointer<mat_message>
    private let incoming: UnsafeMutablePointer<mat_message>
    private let name: UnsafeMutablePointer<sockaddr_in6>
    private let vectors: UnsafeMutablePointer<iovec>
    private let payload: UnsafeMutableRawPointer
    private let buffers: UnsafeMutableRawPointer

    init(_ source: End, _ target: End, _ octets: [UInt8], to peer: Endpoint) {
        self.source = source
        self.target = target
        self.octets = octets
        messages = .allocate(capacity: Self.size)
        incoming = .allocate(capacity: Self.size)
        vectors = .allocate(capacity: 2 * Self.size)
        name = .allocate(capacity: 1)
        payload = .allocate(byteCount: max(1, octets.count), alignment: 8)
        buffers = .allocate(byteCount: Self.size * 2048, alignment: 8)
        payload.copyMemory(from: octets, byteCount: octets.count)
        name.initialize(to: sockaddr_in6())
        name.pointee.sin6_family = sa_family_t(AF_INET6)
        name.pointee.sin6_port = peer.port.bigEndian
        name.pointee.sin6_addr = peer.address.in6
        for place in 0..<Self.size {
            vectors[place] = iovec(iov_base: payload, iov_len: octets.count)
            vectors[Self.size + place] = iovec(iov_base: buffers + place * 2048, iov_len: 2048)
            var out = mat_message()
            out.header.msg_name = UnsafeMutableRawPointer(name)
            out.header.msg_namelen = socklen_t(MemoryLayout<sockaddr_in6>.size)
            out.header.msg_iov = vectors + place
            out.header.msg_iovlen = 1
            messages[place] = out
            var into = mat_message()
            into.header.msg_iov = vectors + (Self.size + place)
            into.header.msg_iovlen = 1
            incoming[place] = into
        }
    }

    deinit {
        messages.deallocate()
        incoming.deallocate()
        vectors.deallocate()
        name.deallocate()
        payload.deallocate()
        buffers.deallocate()
    }

    private func send(_ count: Int) { _ = mat_sendmmsg(source.socket.descriptor, messages, UInt32(count), 0) }

    /// - Returns: how many came before nothing did for 20 ms.
    private func receive(_ count: Int) -> Int {
        var received = 0
        var waiting = pollfd(fd: target.socket.descriptor, events: Int16(POLLIN), revents: 0)
        while received < count, poll(&waiting, 1, 20) > 0 {
            received += max(0, Int(mat_recvmmsg(target.socket.descriptor, incoming, UInt32(count - received), Int32(MSG_DONTWAIT))))
        }
        return received
    }

    /// Packets a second that arrive.
    func rate(seconds: Double) -> Double {
        let (began, end) = (Ticks.wall(), Ticks.wall() + UInt64(seconds * 1e9))
        var count = 0
        while Ticks.wall() < end {
            send(Self.size)
            count += receive(Self.size)
        }
        return Double(count) * 1e9 / Double(Ticks.wall() - began)
    }

    /// One packet there and one back, nanoseconds, the median.
    static func roundTrip(_ there: Window, _ back: Window, count: Int) -> Double {
        var times: [Double] = []
        for _ in 0..<count {
            let began = Ticks.wall()
            there.send(1)
            guard there.receive(1) == 1 else { continue }
            back.send(1)
            guard back.receive(1) == 1 else { continue }
            times.append(Double(Ticks.wall() - began))
        }
        return times.median
    }
}

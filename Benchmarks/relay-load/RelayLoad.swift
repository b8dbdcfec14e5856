import ArgumentParser
import BenchSupport
import CLinux
import Foundation
import Glibc
import MATCore
import MATRuntime
import MATSignal
import Namespaces
import RelayCore

//   a ── 198.51.100.2/24 ── router, relay ── 203.0.113.2/24, 2001:db8:9::2/64 ── b

/// What a relay forwards, beside the same host as a router, in the same run; and what its bindings cost.
@main
struct RelayLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay-load", abstract: "Measures mat-relay, which stands beside this program: packets, round trips, bindings. Needs root.")

    @Option(help: "Rounds; each measures every variant once.")
    var rounds = 5
    @Option(help: "Seconds for each variant and round.")
    var seconds = 0.5
    @Option(help: "Octets of a packet between home addresses.")
    var octets = 60
    @Option(help: "Bindings whose memory and refreshes are measured.")
    var bindings = 100_000
    @Option(help: "Threads of the relay.")
    var threads = 1

    func run() throws {
        Namespace.removeStaleBenches()
        try forward()
        try hold()
    }

    // MARK: Packets

    private func forward() throws {
        let (a, relay, b) = (try Namespace.bench("a"), try Namespace.bench("r"), try Namespace.bench("b"))
        try relay.forward()
        try relay.connect("to-a", to: a, "eth")
        try relay.connect("to-b", to: b, "eth")
        try relay.add(["198.51.100.1/24"], dev: "to-a")
        try relay.add(["203.0.113.1/24", "2001:db8:9::1/64"], dev: "to-b")
        try a.add(["198.51.100.2/24"], dev: "eth")
        try b.add(["203.0.113.2/24", "2001:db8:9::2/64"], dev: "eth")
        try a.addDefaultRoute(via: "198.51.100.1", dev: "eth")
        try b.addDefaultRoute(via: "203.0.113.1", dev: "eth")
        let authority = try key(1)
        let path = "/tmp/relay-load-\(getpid())"
        defer { unlink(path) }
        try """
        residents: [{prefix: 10.0.0.0/24, public-keys: ["\(Data(authority.publicKey.octets).base64EncodedString())"]}]
        limits: {rate: 1Tbit, burst: 1GiB, relay-rate: 1Tbit}
        threads: \(threads)
        """.write(toFile: path, atomically: true, encoding: .utf8)
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let program = (own as NSString).deletingLastPathComponent + "/mat-relay"
        let process = try Child(["ip", "netns", "exec", relay.name, program, "--config", path])
        defer { process.end() }

        let atA = End(try socket(in: a, "198.51.100.2"), try address("198.51.100.1"), try address("198.51.100.2"))
        let atB4 = End(try socket(in: b, "203.0.113.2"), try address("203.0.113.1"), try address("203.0.113.2"))
        let atB6 = End(try socket(in: b, "2001:db8:9::2"), try address("2001:db8:9::1"), try address("2001:db8:9::2"))
        let (first, second, third) = (try home("10.0.0.1"), try home("10.0.0.2"), try home("10.0.0.3"))
        try atA.bind(first, authority)
        try atB4.bind(second, authority)
        try atB6.bind(third, authority)
        let plain = [UInt8](repeating: 0, count: octets)
        let variants: [(name: String, window: Window, back: Window)] = [
            (
                "plain IPv4", Window(atA, atB4, plain, to: Endpoint(atB4.address, port: SignalPort.node)),
                Window(atB4, atA, plain, to: Endpoint(atA.address, port: SignalPort.node))
            ),
            ("relay IPv4", Window(atA, atB4, packet(first, second), to: atA.relay), Window(atB4, atA, packet(second, first), to: atB4.relay)),
            ("relay 4 to 6", Window(atA, atB6, packet(first, third), to: atA.relay), Window(atB6, atA, packet(third, first), to: atB6.relay)),
        ]
        var rates = [[Double]](repeating: [], count: variants.count)
        var trips = rates
        var ratios = rates
        for _ in 0..<rounds {
            for (number, variant) in variants.enumerated() {
                rates[number].append(variant.window.rate(seconds: seconds))
                trips[number].append(Window.roundTrip(variant.window, variant.back, count: 1000))
                if let base = rates[0].last, let rate = rates[number].last { ratios[number].append(rate / base) }
            }
        }
        print("variant        packets/s     ratio   round trip us   (\(octets) octets, windows of \(Window.size), medians of \(rounds))")
        for (number, variant) in variants.enumerated() {
            print(
                variant.name.padding(toLength: 14, withPad: " ", startingAt: 0)
                    + String(format: "%10.0f %9.2f %15.1f", rates[number].median, ratios[number].median, trips[number].median / 1000))
        }
    }

    private func socket(in namespace: Namespace, _ address: String) throws -> BoundSocket {
        let address = try self.address(address)
        return try namespace.inside { try BoundSocket(port: SignalPort.node, address: address, options: BoundSocket.Options()) }
    }

    private func packet(_ source: HomeAddress, _ destination: HomeAddress) -> [UInt8] {
        var packet: [UInt8] = [0x45, 0, UInt8(octets >> 8 & 0xFF), UInt8(octets & 0xFF), 0, 0, 0, 0, 64, 17, 0, 0]
        packet += source.address.packetOctets + destination.address.packetOctets
        return packet + [UInt8](repeating: 0, count: max(0, octets - packet.count))
    }

    // MARK: Bindings

    /// Memory of each, and how many are refreshed in a second by one thread.
    private func hold() throws {
        let configuration = RelayCoreConfiguration(residents: [ResidentPrefix(IPPrefix(covering: try address("10.0.0.0"), length: 104))])
        var limits = configuration
        limits.limits.bindingsMax = bindings
        guard var core = RelayCore(limits, cookieSecret: [UInt8](repeating: 1, count: 16)) else { throw BenchError("no core") }
        let local = Endpoint(try address("192.0.2.1"), port: SignalPort.relay)
        let now = SystemClock.now()
        func source(_ number: Int) -> Endpoint { Endpoint(IPAddress(ipv4: 0x2000_0000 + UInt32(number)), port: 6289) }
        func hoa(_ number: Int) -> IPAddress { IPAddress(ipv4: 0x0A00_0000 + UInt32(number)) }
        let before = mat_heap_octets()
        do {
            let saved = (0..<bindings).map { number in
                SavedBinding(
                    prefix: IPPrefix(hoa(number)), endpoint: source(number), local: local, until: now.wallMilliseconds + 600_000,
                    signedAt: now.wallMilliseconds, certificateNotAfter: .max, lifetimeSeconds: 600, cookieTime: now.wallSeconds, clientCookie: 7)
            }
            _ = core.restore(SavedRelay(month: "", octetsOfMonth: [], bindings: saved), now: now)
        }
        let octetsEach = Double(mat_heap_octets() - before) / Double(bindings)
        var datagrams: [[UInt8]] = []
        for number in 0..<min(bindings, 10_000) {
            let ask = SignalMessage(sequence: 1, .bind(.padded(cookie: Cookie(client: 7), .ask))).octets
            for case .send(let octets, _, _) in core.received(ask, from: source(number), to: local, now: now) {
                guard case .message(let message, _)? = SignalDatagram.decode(octets).first else { continue }
                datagrams.append(SignalMessage(sequence: 2, .bind(.padded(cookie: message.cookie, .refresh(HomeAddress(hoa(number)))))).octets)
            }
        }
        let began = Ticks.thread()
        for (number, datagram) in datagrams.enumerated() { _ = core.received(datagram, from: source(number), to: local, now: now) }
        let perSecond = Double(datagrams.count) * 1e9 / Double(Ticks.thread() - began)
        guard core.counters.refreshes == UInt64(datagrams.count) else { throw BenchError("only \(core.counters.refreshes) refreshes were granted") }
        let payload = packet(HomeAddress(hoa(1)), HomeAddress(hoa(2)))
        let (count, start) = (200_000, Ticks.thread())
        for number in 0..<count {
            let own = number % max(1, bindings - 1)
            var payload = payload
            for (place, octet) in hoa(own).packetOctets.enumerated() { payload[12 + place] = octet }
            _ = payload.withUnsafeBytes { core.forward($0, from: source(own), now: now.monotonic) }
        }
        let nanoseconds = Double(Ticks.thread() - start) / Double(count)
        print(
            String(
                format: "%d bindings: %.0f octets each; %.0f refreshes/s of one thread; %.0f ns to decide about a packet of any of them", bindings,
                octetsEach, perSecond, nanoseconds))
    }

    private func address(_ text: String) throws -> IPAddress {
        guard let address = IPAddress(text) else { throw BenchError("\(text) is no address") }
        return address
    }

    private func home(_ text: String) throws -> HomeAddress { HomeAddress(try address(text)) }
}

private func key(_ seed: UInt8) throws -> SigningKey {
    guard let key = SigningKey(seed: [UInt8](repeating: seed, count: 32)) else { throw BenchError("no key") }
    return key
}

/// One end: a socket, and where its relay is.
private final class End {
    let socket: BoundSocket
    let relay: Endpoint
    let address: IPAddress

    init(_ socket: BoundSocket, _ relay: IPAddress, _ address: IPAddress) {
        self.socket = socket
        self.relay = Endpoint(relay, port: SignalPort.relay)
        self.address = address
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
private final class Window {
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

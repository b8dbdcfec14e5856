import Glibc
import MATRuntime
import MATSignal
import Testing

@testable import IMS

/// A node's socket on loopback of one family, connected to a server. What is seen of it is a loopback address, which makes an answer malformed to
/// our own decoder; so answers are read by place.
private final class NodeSocket {
    private(set) var endpoint = Endpoint(.unspecifiedIPv6, port: 0)
    private let descriptor: Int32
    private var sequence: UInt32 = 100
    private(set) var octetsSent = 0
    private(set) var octetsReceived = 0

    init(_ family: AddressFamily, server port: UInt16) throws {
        let isIPv4 = family == .ipv4
        let descriptor = socket(isIPv4 ? AF_INET : AF_INET6, Int32(SOCK_DGRAM.rawValue), 0)
        self.descriptor = descriptor
        try #require(descriptor >= 0)
        var patience = timeval(tv_sec: 0, tv_usec: 500_000)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var own = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        var connected: Int32
        if isIPv4 {
            var peer = sockaddr_in()
            peer.sin_family = sa_family_t(AF_INET)
            peer.sin_port = port.bigEndian
            peer.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            connected = withUnsafePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            }
        } else {
            var peer = sockaddr_in6()
            peer.sin6_family = sa_family_t(AF_INET6)
            peer.sin6_port = port.bigEndian
            peer.sin6_addr = IPAddress(high: 0, low: 1).in6
            connected = withUnsafePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
            }
        }
        try #require(connected == 0)
        _ = withUnsafeMutablePointer(to: &own) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        // Both forms have the port at the same place.
        endpoint = Endpoint(isIPv4 ? address("127.0.0.1") : address("::1"), port: UInt16(bigEndian: own.sin6_port))
    }

    deinit { close(descriptor) }

    /// Sends messages in one datagram; the answers to them, in the order in which they come, as octets.
    func ask(_ bodies: [SignalMessage.Body]) throws -> [[UInt8]] {
        var awaited: Set<UInt32> = []
        var octets: [UInt8] = []
        for body in bodies {
            sequence += 1
            awaited.insert(sequence)
            octets += SignalMessage(sequence: sequence, body).octets
        }
        for _ in 0..<20 {
            octetsSent += octets.count
            try #require(send(descriptor, octets, octets.count, 0) == octets.count)
            var answers: [[UInt8]] = []
            while answers.count < bodies.count, let datagram = next() {
                answers += Self.messages(datagram).filter { awaited.contains($0[4..<8].reduce(0) { $0 << 8 | UInt32($1) }) }
            }
            if answers.count == bodies.count { return answers }
        }
        throw ControlError("imsd did not answer")
    }

    func tell(_ octets: [UInt8]) { _ = send(descriptor, octets, octets.count, 0) }

    /// The next datagram, `nil` if none comes for a while.
    func next() -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 2048)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return nil }
        octetsReceived += count
        return Array(buffer.prefix(count))
    }

    private static func messages(_ datagram: [UInt8]) -> [[UInt8]] {
        var messages: [[UInt8]] = []
        var start = 0
        while start + 8 <= datagram.count {
            let end = start + max(2, Int(datagram[start + 3])) * 4
            guard end <= datagram.count else { break }
            messages.append(Array(datagram[start..<end]))
            start = end
        }
        return messages
    }
}

/// One answer, read by place.
private struct RawAnswer {
    let octets: [UInt8]
    var code: ResponseCode { ResponseCode(rawValue: octets[1]) }
    var type: UInt8 { octets[0] }

    func value(_ kind: OptionKind) -> [UInt8]? {
        var place = 8
        while place + 4 <= octets.count {
            let length = Int(octets[place + 2]) << 8 | Int(octets[place + 3])
            if UInt16(octets[place]) << 8 | UInt16(octets[place + 1]) == kind.rawValue { return Array(octets[place + 4..<place + 4 + length]) }
            place += 4 + (length + 3) / 4 * 4
        }
        return nil
    }

    var cookie: Cookie? {
        guard let octets = value(.cookie), octets.count == 24 else { return nil }
        func word(_ start: Int) -> UInt64 { octets[start..<start + 8].reduce(0) { $0 << 8 | UInt64($1) } }
        return Cookie(client: word(0), server: ServerCookie(head: word(8), hash: word(16)))
    }

    /// What XOBSERVED says.
    var observed: Endpoint? {
        guard let value = value(.xObserved), let client = cookie?.client, value.count == 20 else { return nil }
        let mask = (0..<8).map { UInt8(truncatingIfNeeded: client >> UInt64(56 - 8 * $0)) }
        let plain = (0..<18).map { value[$0] ^ mask[$0 < 16 ? $0 % 8 : $0 - 16] }
        return IPAddress(octets: plain[0..<16]).map { Endpoint($0, port: UInt16(plain[16]) << 8 | UInt16(plain[17])) }
    }

    var lifetime: UInt32? { value(.lifetime).map { $0.reduce(0) { $0 << 8 | UInt32($1) } } }
}

@Suite(
    "Bind at imsd as a process", .serialized,
    .enabled(if: Daemon.program != nil, "imsd is not beside the test bundle; build it with swift build --product imsd"))
struct BindDaemonTests {
    private let directory: TemporaryDirectory
    private let port: UInt16

    init() throws {
        directory = try TemporaryDirectory()
        port = UInt16.random(in: 20_000...32_000)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(try key(200)), mode: 0o600)
        let text = """
            control: \(directory.path)/control.sock
            store: \(directory.path)/ims.db
            signing-key: \(directory.path)/ims.key
            listen: {port: \(port), addresses: []}
            prefixes:
              - prefix: 192.0.2.0/24
                mobile-prefixes: [198.51.100.0/24]
              - prefix: 2001:db8:10::/48
                mobile-prefixes: [2001:db8:aa::/48]
            accept-relays: [203.0.113.0/24]
            dns: {resolvers: ["127.0.0.1:1"]}
            """
        try TextFile.replace("\(directory.path)/imsd.yaml", with: text, mode: 0o600)
    }

    private func start() throws -> Daemon {
        let daemon = try Daemon(["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log")
        for _ in 0..<200 {
            if (try? control("status"))?["store"]?["isLoading"]?.bool == false { return daemon }
            usleep(25_000)
        }
        Issue.record("imsd did not start: \((try? TextFile.read("\(directory.path)/log")) ?? "")")
        return daemon
    }

    private func control(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(ControlError) -> JSONValue {
        try ControlClient.request(JSONValue.self, path: "\(directory.path)/control.sock", command: command, arguments: arguments, daemon: "imsd")
    }

    /// A mobile network: loopback addresses can't be locators, and networks need no proof.
    private func network(_ family: AddressFamily, _ number: Int) throws -> (node: TestNode, record: CertifiedMapping) {
        let (hoa, moa, length): (String, String, UInt8) =
            family == .ipv4
            ? ("192.0.2.\(16 * number)", "198.51.100.\(16 * number)", 124) : ("2001:db8:10:\(number)::", "2001:db8:aa:\(number)::", 64)
        let time = SystemClock.now().wallMilliseconds
        let node = try TestNode(hoa, prefixLength: length, seed: UInt8(number), issuer: try key(200), notBefore: time - 1000)
        return (node, try node.record([moa], sequence: time))
    }

    private func ask(_ socket: NodeSocket, _ body: SignalMessage.Body) throws -> RawAnswer {
        RawAnswer(octets: try #require(try socket.ask([body]).first))
    }

    private func signature(_ node: TestNode, _ type: MessageType, _ cookie: Cookie, to destination: Endpoint, key: SigningKey? = nil) throws
        -> Signature
    {
        let challenge = try #require(Challenge(cookie))
        return try #require(
            PathStatement(type, by: node.hoa, to: destination.address, at: destination, cookie: challenge).signed(with: key ?? node.key))
    }

    private func bind(_ node: TestNode, _ cookie: Cookie, _ signature: Signature, lifetime: UInt32 = 120) -> SignalMessage.Body {
        .bind(Bind(cookie: cookie, .bind(node.hoa, PathProof(certificate: .whole(node.certificate), signature: signature), lifetime: lifetime)))
    }

    @Test(
        "Ask, register, bind, refresh; wrong keys, challenges passed on and replays are refused; the push goes over the binding, also after a restart",
        arguments: AddressFamily.allCases)
    func sequence(family: AddressFamily) throws {
        var daemon = try start()
        let server = Endpoint(family == .ipv4 ? address("127.0.0.1") : address("::1"), port: port)
        let (first, second) = (try NodeSocket(family, server: port), try NodeSocket(family, server: port))

        // The workers answer who asks: the core hears nothing of it.
        let passed = try control("status")["datagrams"]?["passedToCore"]?.int
        let seen = try ask(first, .bind(.padded(cookie: Cookie(client: 0xA1A2_A3A4_A5A6_A7A8), .ask)))
        #expect(seen.code == .ok && seen.observed == first.endpoint && seen.octets.count == 60 && seen.cookie?.server != nil)
        #expect(try control("status")["datagrams"]?["passedToCore"]?.int == passed)
        var cookie = try #require(seen.cookie)

        let (mn, mnRecord) = try network(family, 1)
        let (cn, cnRecord) = try network(family, 2)
        func update(_ record: CertifiedMapping, _ cookie: Cookie) -> SignalMessage.Body {
            .imsUpdate(IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))))
        }
        // Nothing is registered.
        #expect(try ask(first, bind(mn, cookie, try signature(mn, .bind, cookie, to: server))).code == .notFound)
        // Without a cookie, in the size of the question at most.
        let bare = try ask(first, bind(mn, Cookie(client: 5), try signature(mn, .bind, cookie, to: server)))
        #expect(bare.code == .cookieRequired && bare.observed == first.endpoint && bare.octets.count == 60)
        // Update and Bind in one datagram: the Bind is done behind the Update.
        let both = try first.ask([update(mnRecord, cookie), bind(mn, cookie, try signature(mn, .bind, cookie, to: server))]).map(RawAnswer.init)
        #expect(both.map(\.type) == [2, 12] && both.map(\.code) == [.ok, .ok] && both.last?.lifetime == 120)
        #expect(both.last?.observed == first.endpoint && both.last?.value(.role) == [0, 0, 0, 0])
        cookie = both.last?.cookie ?? cookie

        // Refused: another key, a challenge passed on by a server elsewhere, an answer used as a Bind.
        let elsewhere = Endpoint(family == .ipv4 ? address("127.0.0.2") : address("2001:db8::2"), port: port)
        let thief = try key(77)
        for (what, signature) in [
            ("another key", try signature(mn, .bind, cookie, to: server, key: thief)),
            ("passed on", try signature(mn, .bind, cookie, to: elsewhere)), ("an answer", try signature(mn, .pathAnswer, cookie, to: server)),
        ] { #expect(try ask(first, bind(mn, cookie, signature)).code == .authenticationFailed, "\(what)") }
        // Replayed from another source, the cookie is none.
        let good = try signature(mn, .bind, cookie, to: server)
        #expect(try ask(second, bind(mn, cookie, good)).code == .cookieRequired)
        #expect(try ask(first, .bind(.padded(cookie: cookie, .refresh(mn.hoa)))).code == .ok)
        #expect(try ask(second, .bind(.padded(cookie: cookie, .refresh(mn.hoa)))).code == .cookieRequired)

        // The other node binds from its socket; the first tells it of itself, from an endpoint that no record lists, but that is bound.
        var peerCookie = try #require(try ask(second, .bind(.padded(cookie: Cookie(client: 9), .ask))).cookie)
        let answers = try second.ask([update(cnRecord, peerCookie), bind(cn, peerCookie, try signature(cn, .bind, peerCookie, to: server))])
        #expect(answers.map { RawAnswer(octets: $0).code } == [.ok, .ok])
        func push() throws {
            let ack = try ask(first, .haNotify(HANotify(cookie: cookie, hoa: mn.hoa, peerHoA: cn.hoa)))
            #expect(ack.code == .ok)
            var pushed: SignedMapping?
            while pushed == nil, let datagram = second.next() {
                for case .message(let message, _) in SignalDatagram.decode(datagram) {
                    guard case .maNotify(let notify) = message.body else { continue }
                    pushed = notify.record.mapping
                    let body = MANotifyAck(code: .ok, cookie: Cookie(client: notify.cookie.client), hoa: notify.record.mapping.record.hoa)
                    second.tell(SignalMessage(sequence: message.sequence, .maNotifyAck(body)).octets)
                }
            }
            #expect(pushed == mnRecord.mapping)
        }
        try push()
        #expect(try control("status")["bindings"]?.int == 2)
        #expect(try control("show", ["hoa": .string("\(mn.hoa)")])["boundAt"]?.string == "\(first.endpoint)")

        // Bindings outlast the process.
        #expect(daemon.kill(SIGTERM) == 0)
        daemon = try start()
        #expect(try control("status")["bindings"]?.int == 2)
        peerCookie = try #require(RawAnswer(octets: answers[1]).cookie)
        #expect(try ask(second, .bind(.padded(cookie: peerCookie, .refresh(cn.hoa)))).code == .ok)
        try push()

        // LIFETIME 0, under a later cookie than the last one's, ends it.
        var ended: RawAnswer?
        for _ in 0..<30 where ended?.code != .ok {
            usleep(100_000)
            cookie = try #require(try ask(first, .bind(.padded(cookie: cookie, .ask))).cookie)
            ended = try ask(first, bind(mn, cookie, try signature(mn, .bind, cookie, to: server), lifetime: 0))
        }
        #expect(ended?.code == .ok && ended?.lifetime == 0)
        #expect(try control("status")["bindings"]?.int == 1)
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("A record whose endpoint is not proven, or whose relay is not allowed, is code 6", arguments: AddressFamily.allCases)
    func unproven(family: AddressFamily) throws {
        let daemon = try start()
        let socket = try NodeSocket(family, server: port)
        let cookie = try #require(try ask(socket, .bind(.padded(cookie: Cookie(client: 3), .ask))).cookie)
        let node = try TestNode(
            family == .ipv4 ? "192.0.2.7" : "2001:db8:10::7", seed: 7, issuer: try key(200), notBefore: SystemClock.now().wallMilliseconds - 1000)
        func code(_ record: CertifiedMapping) throws -> ResponseCode {
            let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
            return try ask(socket, .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed))).code
        }
        let time = SystemClock.now().wallMilliseconds
        #expect(try code(try node.record(endpoints: [Endpoint(address("198.51.100.9"), port: socket.endpoint.port)], sequence: time)) == .refused)
        #expect(
            try code(try node.record(endpoints: [], relays: [Endpoint(address("192.0.2.200"), port: 6290)], sequence: time)) == .refused)
        // A relay alone needs no proof.
        #expect(try code(try node.record(endpoints: [], relays: [Endpoint(address("203.0.113.53"), port: 6290)], sequence: time)) == .ok)
        #expect(daemon.kill(SIGTERM) == 0)
    }
}

import Foundation
import Glibc
import MATRuntime
import MATSignal
import MATTesting
import Namespaces
import Synchronization
import Testing

//   client a                            relay: mat-relay                     client b
//   198.51.100.2  ── veth ── 198.51.100.1   2001:db8:9::1 ── veth ── 2001:db8:9::2
//   198.51.100.3 (where a moves to)         192.0.2.1              192.0.2.2
//   2001:db8:8::2            2001:db8:8::1

/// Why these tests can't run here; `nil` if they can.
let relayTestsImpossible: String? = {
    if getuid() != 0 { return "not root" }
    if Relay.program == nil { return "mat-relay is not built" }
    return (try? Namespace("relay-\(getpid())-probe")) == nil ? "network namespaces can't be made here" : nil
}()

/// Three hosts, and a running mat-relay at the one in the middle.
final class Relay {
    static let ipv4 = Endpoint(ip("198.51.100.1"), port: SignalPort.relay)
    static let ipv6 = Endpoint(ip("2001:db8:9::1"), port: SignalPort.relay)
    /// Of the other family, at each client's side.
    static let ipv4AtB = Endpoint(ip("192.0.2.1"), port: SignalPort.relay)
    static let ipv6AtA = Endpoint(ip("2001:db8:8::1"), port: SignalPort.relay)
    private static let numbers = Mutex(0)

    let authority = TestAuthority(seed: 1)
    let host: Namespace
    let a: Namespace
    let b: Namespace
    let directory: String
    private var process: Child?
    private let others: [String]

    /// The program beside the test bundle; `nil` if it was not built.
    static var program: String? {
        guard let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else { return nil }
        let path = (own as NSString).deletingLastPathComponent + "/mat-relay"
        return access(path, X_OK) == 0 ? path : nil
    }

    /// - Parameter configuration: further lines of the file.
    init(_ configuration: [String] = []) throws {
        let number = Self.numbers.withLock { number in
            number += 1
            return number
        }
        let name = "relay-\(getpid())-\(number)"
        (host, a, b) = (try Namespace(name + "r"), try Namespace(name + "a"), try Namespace(name + "b"))
        directory = "/tmp/\(name)"
        others = configuration
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try host.connect("to-a", to: a, "eth")
        try host.connect("to-b", to: b, "eth")
        try host.add(["198.51.100.1/24", "2001:db8:8::1/64"], dev: "to-a")
        try host.add(["2001:db8:9::1/64", "192.0.2.1/24"], dev: "to-b")
        try a.add(["198.51.100.2/24", "198.51.100.3/24", "2001:db8:8::2/64"], dev: "eth")
        try b.add(["2001:db8:9::2/64", "192.0.2.2/24"], dev: "eth")
        if configuration.contains("forwarding: kernel") { try shell("mkdir \(directory)/pins && mount -t bpf bpf \(directory)/pins") }
        try start()
    }

    deinit {
        process?.end()
        _ = shellStatus("umount \(directory)/pins")
        try? FileManager.default.removeItem(atPath: directory)
    }

    var log: String { (try? String(contentsOfFile: directory + "/log", encoding: .utf8)) ?? "" }

    func start() throws {
        let keys = "    public-keys: [\(Data(authority.key.publicKey.octets).base64EncodedString())]"
        let lines =
            [
                "residents:", "  - prefix: 10.0.0.0/24", keys, "  - prefix: 2001:db8:5::/64", keys, "state: \(directory)/state",
                "pins: \(directory)/pins/relay", "log-level: debug", "metrics:", "  listen: 127.0.0.1:9290", "visitors: false",
            ] + others
        try lines.joined(separator: "\n").write(toFile: directory + "/configuration", atomically: true, encoding: .utf8)
        let before = log
        let program = try #require(Self.program)
        process = try Child(
            ["ip", "netns", "exec", host.name, program, "--config", directory + "/configuration"], output: .file(directory + "/log"))
        try eventually("the relay is up") { log.dropFirst(before.count).contains("mat-relay is up") }
    }

    /// - Returns: the exit status, or minus the signal that ended it.
    func stop(_ signal: Int32 = SIGTERM) -> Int32? {
        defer { process = nil }
        return process?.end(signal)
    }

    func signal(_ number: Int32) { process?.signal(number) }

    /// A metric's value; 0 if it is not there.
    func metric(_ name: String) throws -> Double {
        let page = try host.run(#"bash -c 'exec 3<>/dev/tcp/127.0.0.1/9290; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3'"#, within: 20)
        guard let line = page.split(separator: "\n").first(where: { $0.hasPrefix(name + " ") }), let value = line.split(separator: " ").last else {
            return 0
        }
        return Double(value) ?? 0
    }

    /// What the state file tells of a HoA.
    func usedOfMonth(_ hoa: String) throws -> UInt64 {
        let text = try String(contentsOfFile: directory + "/state", encoding: .utf8)
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("used \(hoa)") }), let octets = line.split(separator: " ").last
        else {
            return 0
        }
        return UInt64(octets) ?? 0
    }

    func dropped(_ reason: String) throws -> Double { try metric("mat_relay_packets_dropped_total{reason=\"\(reason)\"}") }
}

/// A node of the relay's own prefix. Certificates are of now, since the relay's clock is the machine's.
func enrol(_ relay: Relay, _ hoa: String, seed: UInt8) -> TestIdentity {
    let key = makeKey(seed)
    let now = SystemClock.now().wallMilliseconds
    let certificate = relay.authority.certify(home(hoa), key.publicKey, notBefore: now - 60_000, notAfter: now + 86_400_000)
    return TestIdentity(hoa: home(hoa), key: key, certificate: certificate)
}

/// Waits until it is so, 20 s at most.
func eventually(_ what: String, _ isSo: () throws -> Bool) throws {
    for _ in 0..<2000 {
        if try isSo() { return }
        usleep(10_000)
    }
    Issue.record("not within 20 s: \(what)")
    throw ShellError("not within 20 s: \(what)")
}

/// A node as a relay sees it: one socket, and an identity.
final class Client {
    let node: TestIdentity
    let address: IPAddress
    let relay: Endpoint
    private let socket: BoundSocket
    private var cookie: Cookie
    private var sequence: UInt32 = 0

    init(_ node: TestIdentity, at address: IPAddress, in namespace: Namespace, relay: Endpoint, port: UInt16 = SignalPort.node) throws {
        self.node = node
        self.address = address
        self.relay = relay
        cookie = Cookie(client: .random(in: 1 ... .max))
        socket = try namespace.inside { try BoundSocket(port: port, address: address, options: BoundSocket.Options()) }
    }

    var hoa: HomeAddress { node.hoa }

    @discardableResult
    func send(_ octets: [UInt8]) -> Bool { socket.send(octets, to: relay) == nil }

    /// From now on its datagrams over IPv6 have no sum, as those have that a node's kernel sends (RFC 6935).
    func sendsWithoutSum() throws {
        // linux/udp.h
        let level: Int32 = 17
        let noCheckOfIPv6: Int32 = 101
        var on: Int32 = 1
        try #require(setsockopt(socket.descriptor, level, noCheckOfIPv6, &on, 4) == 0)
    }

    /// The next datagram from anywhere; `nil` if none comes in time.
    func receive(within milliseconds: Int32 = 5000) -> [UInt8]? {
        var waiting = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, milliseconds) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 9216)
        let count = recv(socket.descriptor, &buffer, buffer.count, 0)
        return count < 0 ? nil : Array(buffer.prefix(count))
    }

    /// What is answered to this, in octets as well; `nil` if nothing is within the time.
    func ask(_ bind: Bind, within milliseconds: Int32 = 5000) -> (ack: BindAck, octets: Int)? {
        sequence += 1
        send(SignalMessage(sequence: sequence, .bind(bind)).octets)
        while let datagram = receive(within: milliseconds) {
            for case .message(let message, _) in SignalDatagram.decode(datagram) where message.sequence == sequence {
                guard case .bindAck(let ack) = message.body else { continue }
                cookie = ack.cookie
                return (ack, datagram.count)
            }
        }
        return nil
    }

    /// With the newest cookie that the relay gave.
    ///
    /// - Parameter server: whom the signature is for, if not this relay.
    func signed(lifetime: UInt32 = 120, for server: Endpoint? = nil, as type: MessageType = .bind) throws -> Bind {
        let challenge = try #require(Challenge(cookie))
        let server = server ?? relay
        let statement = PathStatement(type, by: node.hoa, to: server.address, at: server, cookie: challenge)
        let signature = try #require(statement.signed(with: node.key))
        return Bind(cookie: cookie, .bind(node.hoa, PathProof(certificate: .whole(node.certificate), signature: signature), lifetime: lifetime))
    }

    /// Asks for a cookie and binds with it.
    @discardableResult
    func bind(lifetime: UInt32 = 120) throws -> BindAck {
        _ = try #require(ask(.padded(cookie: Cookie(client: cookie.client), .ask)))
        return try #require(ask(try signed(lifetime: lifetime))).ack
    }

    func refresh() -> BindAck? { ask(.padded(cookie: cookie, .refresh(node.hoa)))?.ack }

    /// Sends the packet until the other gets it, as an application would; so that what the machine's load delays fails nothing.
    func sends(_ packet: [UInt8], to other: Client) -> Bool {
        for _ in 0..<50 {
            send(packet)
            while let received = other.receive(within: 100) { if received == packet { return true } }
        }
        return false
    }
}

/// An IPv4 packet between HoAs, whose header is as it should be as far as relays look.
func packet(_ source: HomeAddress, _ destination: HomeAddress, octets count: Int = 100, filledWith octet: UInt8 = 0xAA) -> [UInt8] {
    var packet: [UInt8] = [0x45, 0, UInt8(count >> 8), UInt8(count & 0xFF), 0, 0, 0, 0, 64, 17, 0, 0]
    packet += source.address.packetOctets + destination.address.packetOctets
    return packet + [UInt8](repeating: octet, count: count - packet.count)
}

import MATCore
import MATSignal
import MATTesting
import RelayCore

// Addresses: 198.51.100.x translators of nodes, 192.0.2.1 the relay, 10.0.0.x residents' HoAs, 10.9.0.x visitors'; 2001:db8:5::x residents'.

/// A relay's core with its time, and nodes that talk to it.
struct Fixture {
    static let relay = Endpoint(ip("192.0.2.1"), port: SignalPort.relay)
    static let relayIPv6 = Endpoint(ip("2001:db8::1"), port: SignalPort.relay)

    var core: RelayCore
    var clock = 0
    let authority = TestAuthority(seed: 1)

    init(
        _ limits: RelayLimits = RelayLimits(), visitors: Bool = true, keys: Bool = true, advertised: [IPAddress] = [], otherRelays: [IPAddress] = []
    ) {
        let publicKeys = keys ? [authority.key.publicKey] : []
        let residents = [prefix("10.0.0.0/24"), prefix("2001:db8:5::/64")].map { ResidentPrefix($0, publicKeys: publicKeys) }
        let configuration = RelayCoreConfiguration(
            residents: residents, takesVisitors: visitors, advertised: advertised, otherRelays: otherRelays, limits: limits)
        guard let core = RelayCore(configuration, cookieSecret: Array(repeating: 7, count: 16)) else { preconditionFailure("16 octets") }
        self.core = core
    }

    /// Milliseconds go by.
    mutating func wait(_ milliseconds: Int) { clock += milliseconds }

    var now: Now {
        Now(
            monotonic: MonotonicTime(nanoseconds: Int64(1_000_000 + clock) * 1_000_000),
            wallMilliseconds: VirtualClock.wallAtStart + UInt64(clock))
    }

    // MARK: Signalling

    /// What the relay answers at once, checks included.
    mutating func send(_ datagram: [UInt8], from source: Endpoint, to local: Endpoint = relay) -> [SignalMessage] {
        settle(core.received(datagram, from: source, to: local, now: now))
    }

    /// Does the actions; of look-ups it does nothing.
    mutating func settle(_ actions: [RelayAction]) -> [SignalMessage] {
        var answers: [SignalMessage] = []
        var actions = actions
        while !actions.isEmpty {
            switch actions.removeFirst() {
            case .send(let octets, _, _):
                for case .message(let message, _) in SignalDatagram.decode(octets) { answers.append(message) }
            case .check(let ticket, let check): actions += core.checked(ticket, check.run(), now: now)
            case .lookUp, .kernel, .log: break
            }
        }
        return answers
    }

    mutating func ack(_ bind: Bind, from source: Endpoint, to local: Endpoint = relay) -> BindAck? {
        for answer in send(SignalMessage(sequence: 1, .bind(bind)).octets, from: source, to: local) {
            if case .bindAck(let ack) = answer.body { return ack }
        }
        return nil
    }

    /// A cookie, as an ask gets one.
    mutating func cookie(_ source: Endpoint, to local: Endpoint = relay, client: UInt64 = 5) -> Cookie {
        ack(.padded(cookie: Cookie(client: client), .ask), from: source, to: local)?.cookie ?? Cookie(client: client)
    }

    static func bind(
        _ node: TestIdentity, cookie: Cookie, to local: Endpoint = relay, lifetime: UInt32 = 120, certificate: CertificateReference? = nil,
        type: MessageType = .bind
    ) -> Bind {
        guard let challenge = Challenge(cookie),
            let signature = PathStatement(type, by: node.hoa, to: local.address, at: local, cookie: challenge).signed(with: node.key)
        else { preconditionFailure("a Bind needs a whole cookie") }
        let proof = PathProof(certificate: certificate ?? .whole(node.certificate), signature: signature)
        return Bind(cookie: cookie, .bind(node.hoa, proof, lifetime: lifetime))
    }

    /// Binds, from the first cookie on.
    @discardableResult
    mutating func bind(_ node: TestIdentity, from source: Endpoint, to local: Endpoint = relay, lifetime: UInt32 = 120) -> BindAck? {
        ack(Self.bind(node, cookie: cookie(source, to: local), to: local, lifetime: lifetime), from: source, to: local)
    }

    // MARK: Packets

    mutating func forward(_ packet: [UInt8], from source: Endpoint) -> Forwarding {
        packet.withUnsafeBytes { core.forward($0, from: source, now: now.monotonic) }
    }

    /// A packet with as many octets in all; only what the relay looks at is as it should be.
    static func packet(_ source: HomeAddress, _ destination: HomeAddress, octets count: Int = 100) -> [UInt8] {
        if source.family == .ipv4 {
            var packet: [UInt8] = [0x45, 0, UInt8(count >> 8), UInt8(count & 0xFF), 0, 0, 0, 0, 64, 17, 0, 0]
            packet += source.address.packetOctets + destination.address.packetOctets
            return packet + [UInt8](repeating: 0xAA, count: count - packet.count)
        }
        let payload = count - 40
        var packet: [UInt8] = [0x60, 0, 0, 0, UInt8(payload >> 8), UInt8(payload & 0xFF), 17, 64]
        packet += source.address.octets + destination.address.octets
        return packet + [UInt8](repeating: 0xAA, count: payload)
    }
}

func at(_ address: String, _ port: UInt16 = 6289) -> Endpoint { Endpoint(ip(address), port: port) }

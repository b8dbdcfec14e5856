import MATCore
import MATSignal
import MATTesting
import MappingMemory
import SeededRandom

@testable import IMSCore

/// What the machines' tests hand to them.
enum Sample {
    static let wall = VirtualClock.wallAtStart
    static let local = ip("203.0.113.1")
    static let authority = TestAuthority(seed: 200)
    static let own = authority.enrol(home("192.0.2.1"), seed: 1)
    static let other = authority.enrol(home("10.0.0.1"), seed: 2)

    static func now(_ passed: Duration = .zero) -> Now {
        let milliseconds = passed.components.seconds * 1000 + passed.components.attoseconds / 1_000_000_000_000_000
        return Now(monotonic: MonotonicTime(nanoseconds: 1_000_000_000) + passed, wallMilliseconds: wall + UInt64(milliseconds))
    }

    static func random() -> CoreRandom { CoreRandom(SeededGenerator(seed: 7)) }

    static func stored(_ certified: CertifiedMapping, from source: String = "198.51.100.1") -> StoredMapping {
        StoredMapping(certified: certified, source: Endpoint(ip(source), port: SignalPort.node), local: local, provenAt: wall)
    }

    static func request(_ type: MessageType, from source: String, sequence: UInt32 = 1) -> Request {
        Request(
            source: Endpoint(ip(source), port: SignalPort.node), local: local, type: type, sequence: sequence, clientCookie: 5,
            isValidated: true, isFresh: true)
    }

    static func servers() -> KnownServers {
        guard let cookies = ClientCookies(secret: [UInt8](repeating: 8, count: 16)) else {
            preconditionFailure("16 octets are a secret")
        }
        return KnownServers(cookies)
    }

    static func configuration() -> IMSCoreConfiguration {
        let prefix = IPPrefix(covering: ip("192.0.2.0"), length: 96 + 24)
        return IMSCoreConfiguration(served: [ServedPrefix(prefix: prefix)], signingKey: authority.key)
    }

    /// A server that serves 192.0.2.0/24, as machines see it.
    static func view(holding mappings: [StoredMapping] = [], remembering: [(CertifiedMapping, isConfirmed: Bool)] = [])
        -> ServerView
    {
        let configuration = configuration()
        var registrations = Registrations(configuration)
        for mapping in mappings { _ = try? registrations.hold(mapping, configuration, now()) }
        var remembered = RememberedTable(entriesMax: 100)
        for (certified, isConfirmed) in remembering { remembered.set(certified, isConfirmed: isConfirmed, now: now()) }
        return ServerView(
            configuration: configuration, store: StoreState(), registrations: registrations, remembered: remembered,
            servers: servers(), bindings: BindingTable(BindingLimits(bindingsMax: 100)), leases: LeaseTable())
    }

    /// One server of other people's, and the key that `authority` signs with.
    static func set(_ server: String = "203.0.113.99") -> IMSSet {
        guard let target = DomainName("ims.example.net.") else { preconditionFailure("that is a name") }
        return IMSSet(
            servers: [IMSHost(priority: 1, weight: 1, addresses: [ip(server)], port: SignalPort.ims, target: target)],
            keys: [authority.key.publicKey.octets], expires: now(.seconds(600)).monotonic)
    }
}

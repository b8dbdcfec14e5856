import MATSignal

/// One IMS that can be asked: what DNS says of it, with its addresses found.
public struct IMSHost: Hashable, Sendable {
    public var priority: UInt16
    public var weight: UInt16
    /// Usable unicast addresses, at least one in a set that a look-up made.
    public var addresses: [IPAddress]
    public var port: UInt16
    /// The server's name; for people.
    public var target: DomainName

    public init(priority: UInt16, weight: UInt16, addresses: [IPAddress], port: UInt16, target: DomainName) {
        self.priority = priority
        self.weight = weight
        self.addresses = addresses
        self.port = port
        self.target = target
    }

    public var endpoints: [Endpoint] { addresses.map { Endpoint($0, port: port) } }
}

/// The IMSs that are authoritative for a home address, and the keys that sign its certificate.
public struct IMSSet: Hashable, Sendable {
    /// Servers taken from one name; more are ignored.
    public static let serversMax = 16
    /// Addresses taken of one server.
    public static let addressesPerServerMax = 8
    /// Relays taken from one name; more are ignored.
    public static let relaysMax = 8

    public var servers: [IMSHost]
    /// Ed25519 public keys, 32 octets each, of all the records together and without duplicates: a cluster's servers share keys.
    public var keys: [[UInt8]]
    /// Relays that serve the HoA, of all the records together and without duplicates; each has an address that a host can have.
    public var relays: [RelayHost]
    /// When the first of the DNS records it was made of runs out.
    public var expires: MonotonicTime
    /// Whether every record was validated by DNSSEC, as far as a trusted resolver says (AD).
    public var isAuthenticated: Bool

    public init(servers: [IMSHost], keys: [[UInt8]], relays: [RelayHost] = [], expires: MonotonicTime, isAuthenticated: Bool = false) {
        self.servers = servers
        self.keys = keys
        self.relays = relays
        self.expires = expires
        self.isAuthenticated = isAuthenticated
    }

    /// The servers in the order to try them: by priority, and at random by weight among equals (RFC 2782).
    public func ordered(using generator: inout some RandomNumberGenerator) -> [IMSHost] {
        var result: [IMSHost] = []
        for (_, group) in Dictionary(grouping: servers, by: \.priority).sorted(by: { $0.key < $1.key }) {
            // Those of weight zero come first, so that the running sum gives them the small chance the RFC asks for.
            var left = group.filter { $0.weight == 0 }.shuffled(using: &generator) + group.filter { $0.weight > 0 }
            while !left.isEmpty {
                let sum = left.reduce(0) { $0 + Int($1.weight) }
                let drawn = Int.random(in: 0...sum, using: &generator)
                var running = 0
                let chosen = left.firstIndex { server in
                    running += Int(server.weight)
                    return running >= drawn
                }
                result.append(left.remove(at: chosen ?? 0))
            }
        }
        return result
    }
}

/// What DNS says about who serves a home address. Absence and failure are different things: an absent record makes a plain
/// destination, a failure proves nothing (protocol.md section 7).
public enum IMSLookupResult: Hashable, Sendable {
    case found(IMSSet)
    /// The resolver says that there is no IMS; to be believed until then.
    case absent(until: MonotonicTime)
    /// Why nothing is known, in words for a log.
    case failed(String)
    /// The DNS speaks of a mapping server there, or of something that is forged, and what it says can't be used: never a plain destination.
    case unusable(String)
}

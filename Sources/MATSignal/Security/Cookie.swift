/// The value of a COOKIE option (section 6, after RFC 7873 and RFC 9018): proof that the other side receives where it
/// sends from, without state on the server.
public struct Cookie: Hashable, Sendable {
    /// 8 octets that the client chose for this server.
    public var client: UInt64
    /// What the server gave the client before; absent in a first request.
    public var server: ServerCookie?

    public init(client: UInt64, server: ServerCookie? = nil) {
        self.client = client
        self.server = server
    }

    /// `client cookie 8 | server cookie 0 or 16`
    func encode(into writer: inout SignalWriter) {
        writer.uint64(client)
        server?.encode(into: &writer)
    }
}

/// The server's half of a cookie, 16 octets: `version 1 (value 1) | zero 3 | Unix time 4 (s) | SipHash-2-4 8`.
///
/// Clients echo any 16 octets that a server gave them; of a version that they know they may read the time.
public struct ServerCookie: Hashable, Sendable {
    /// Version, reserved octets and time, as a big-endian number.
    public let head: UInt64
    /// The hash's octets as they stand on the wire, as a big-endian number.
    public let hash: UInt64

    public init(head: UInt64, hash: UInt64) {
        self.head = head
        self.hash = hash
    }

    /// What version and the reserved octets make of the upper half of `head`.
    static let version: UInt64 = 1 << 56

    /// When the server made it by its clock, Unix time in ms, whole seconds; `nil` if it is of another version. The field wraps in 2106.
    public var madeAt: UInt64? {
        head >> 32 == Self.version >> 32 ? UInt64(UInt32(truncatingIfNeeded: head)) * 1000 : nil
    }

    func encode(into writer: inout SignalWriter) {
        writer.uint64(head)
        writer.uint64(hash)
    }
}

/// The value of a LOCATOR-PROOF option: a cookie that the node obtained by a query sent from that MoA.
public struct LocatorProof: Hashable, Sendable {
    public var locator: MobileAddress
    public var client: UInt64
    public var server: ServerCookie

    public init(locator: MobileAddress, client: UInt64, server: ServerCookie) {
        self.locator = locator
        self.client = client
        self.server = server
    }

    /// `MoA 16 | client cookie 8 | server cookie 16`
    init(_ value: OctetView) {
        self.init(locator: MobileAddress(value.address(at: 0)), client: value.uint64(at: 16), server: value.serverCookie(at: 24))
    }

    func encode(into writer: inout SignalWriter) {
        writer.address(locator.address)
        writer.uint64(client)
        server.encode(into: &writer)
    }
}

/// The value of an ENDPOINT-PROOF option (section 11): likewise for an endpoint, a cookie that a query or Bind sent from there obtained.
public struct EndpointProof: Hashable, Sendable {
    public var endpoint: Endpoint
    public var client: UInt64
    public var server: ServerCookie

    public init(endpoint: Endpoint, client: UInt64, server: ServerCookie) {
        self.endpoint = endpoint
        self.client = client
        self.server = server
    }

    /// `address 16 | port 2 | zero 2 | client cookie 8 | server cookie 16`
    init(_ value: OctetView) {
        self.init(
            endpoint: Endpoint(value.address(at: 0), port: value.uint16(at: 16)), client: value.uint64(at: 20), server: value.serverCookie(at: 28))
    }

    func encode(into writer: inout SignalWriter) {
        writer.address(endpoint.address)
        writer.uint16(endpoint.port)
        writer.zeros(2)
        writer.uint64(client)
        server.encode(into: &writer)
    }
}

/// Makes and checks server cookies. All instances of one IMS share the secrets; two are valid at a time, so that they
/// can be rotated.
public struct CookieAuthority: Hashable, Sendable {
    /// How old a cookie may be to show that its holder receives at its address (section 6).
    public static let ageMax: Duration = .seconds(3600)
    /// How old one may be as proof of location.
    public static let proofAgeMax: Duration = .seconds(300)
    /// How far ahead of our clock one may be: the instances' clocks differ.
    public static let aheadMax: Duration = .seconds(300)
    private static let version = ServerCookie.version

    private var current: SipHash
    private var previous: SipHash?

    /// - Parameter secret: 16 octets; `nil` for any other count.
    public init?(secret: [UInt8], previous: [UInt8]? = nil) {
        guard let current = SipHash(key: secret) else { return nil }
        self.current = current
        self.previous = previous.flatMap(SipHash.init)
    }

    /// Makes `secret` (16 octets) the one that cookies are made with; the one before stays valid.
    public mutating func rotate(to secret: [UInt8]) {
        guard let next = SipHash(key: secret) else { return }
        previous = current
        current = next
    }

    /// Makes cookies with `secret` and accepts those made with either, as all instances of one IMS agreed; 16 octets each.
    public mutating func use(_ secret: [UInt8], previous: [UInt8]?) {
        guard let next = SipHash(key: secret) else { return }
        current = next
        self.previous = previous.flatMap(SipHash.init)
    }

    public func make(for client: Endpoint, clientCookie: UInt64, now: Now) -> ServerCookie {
        let head = Self.version | UInt64(now.wallSeconds)
        return ServerCookie(head: head, hash: Self.hash(current, clientCookie, head, client))
    }

    /// Whether the cookie was made here for this client, and when is recent enough.
    public func isValid(_ cookie: Cookie, from client: Endpoint, now: Now, ageMax: Duration = Self.ageMax) -> Bool {
        guard let server = cookie.server else { return false }
        return isValid(server, clientCookie: cookie.client, from: client, now: now, ageMax: ageMax)
    }

    public func isValid(
        _ server: ServerCookie, clientCookie: UInt64, from client: Endpoint, now: Now, ageMax: Duration = Self.ageMax
    ) -> Bool {
        guard server.head >> 32 == Self.version >> 32 else { return false }
        // Serial arithmetic (RFC 1982), as RFC 9018 wants it: right across the wrap of 2106.
        let age = Int64(Int32(truncatingIfNeeded: now.wallSeconds &- UInt32(truncatingIfNeeded: server.head)))
        guard age <= ageMax.components.seconds, -age <= Self.aheadMax.components.seconds else { return false }
        if Self.hash(current, clientCookie, server.head, client) == server.hash { return true }
        return previous.map { Self.hash($0, clientCookie, server.head, client) == server.hash } ?? false
    }

    /// Over client cookie 8, version, zeros and time 8, client address 16, client port 2.
    private static func hash(_ secret: SipHash, _ clientCookie: UInt64, _ head: UInt64, _ client: Endpoint) -> UInt64 {
        // The wire has the reference's output order, which is little-endian.
        secret.hash(clientCookie, head, client.address.high, client.address.low, client.port).byteSwapped
    }
}

/// Makes a client's cookies: for each pair of server and own address another, and the same again after a restart with the
/// same secret (RFC 7873 section 4.1).
public struct ClientCookies: Hashable, Sendable {
    private let secret: SipHash

    /// - Parameter secret: 16 octets; `nil` for any other count.
    public init?(secret: [UInt8]) {
        guard let hash = SipHash(key: secret) else { return nil }
        self.secret = hash
    }

    public func cookie(server: IPAddress, own: IPAddress) -> UInt64 {
        secret.hash(server.high, server.low, own.high, own.low)
    }
}

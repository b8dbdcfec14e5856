/// A cookie with both its halves, 24 octets: the value of CHALLENGE, and what PATH-SIGNATURE is made over (section 11).
///
/// In a CHALLENGE the sender makes both itself, the client half at random and the server half as if the receiver, at the endpoint that this
/// datagram goes to, were its client. Whoever signs it has therefore received it there.
public struct Challenge: Hashable, Sendable {
    public static let octetsCount = 24

    public var client: UInt64
    public var server: ServerCookie

    public init(client: UInt64, server: ServerCookie) {
        self.client = client
        self.server = server
    }

    /// The cookie that a server gave.
    ///
    /// - Returns: `nil` if it has no server half.
    public init?(_ cookie: Cookie) {
        guard let server = cookie.server else { return nil }
        self.init(client: cookie.client, server: server)
    }

    /// `client cookie 8 | server cookie 16`
    init(_ value: OctetView) { self.init(client: value.uint64(at: 0), server: value.serverCookie(at: 8)) }

    func encode(into writer: inout SignalWriter) {
        writer.uint64(client)
        server.encode(into: &writer)
    }
}

extension CookieAuthority {
    /// A challenge for who receives at this endpoint.
    ///
    /// - Parameter client: 8 random octets.
    public func challenge(for endpoint: Endpoint, client: UInt64, now: Now) -> Challenge {
        Challenge(client: client, server: make(for: endpoint, clientCookie: client, now: now))
    }

    /// Whether the challenge was made here for this endpoint within the last 300 s.
    public func isValid(_ challenge: Challenge, for endpoint: Endpoint, now: Now) -> Bool {
        isValid(challenge.server, clientCookie: challenge.client, from: endpoint, now: now, ageMax: Self.proofAgeMax)
    }
}

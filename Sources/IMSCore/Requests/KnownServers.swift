import MATCore
import MATSignal

/// Whom this server has asked or told something before: the cookies that they gave it, so that its requests are answered at once, and which
/// of them have ever answered.
struct KnownServers: Sendable {
    /// One that is asked, and the own address that it is asked from, `nil` if any will do: cookies depend on both.
    struct Peer: Hashable, Sendable {
        var endpoint: Endpoint
        var local: IPAddress?
    }

    /// Responses are told by these, of whatever request.
    let clientCookies: ClientCookies
    private var cookies = RecencyTable<Peer, ServerCookie>()
    /// Those that have answered a question: they get all tries, others two.
    private var answered = RecencyTable<IPAddress, Bool>()

    /// Cookies kept, and servers that have answered.
    static let entriesMax = 65_536

    init(_ clientCookies: ClientCookies) { self.clientCookies = clientCookies }

    var cookiesCount: Int { cookies.count }

    /// The cookie of a request to it.
    func cookie(for peer: Peer) -> Cookie { Cookie(client: clientCookie(for: peer), server: cookies[peer]) }

    /// Whether a response from it answers a request of ours, and not the guess of somebody who has not seen one.
    func isOurs(_ cookie: Cookie, from peer: Peer) -> Bool { cookie.client == clientCookie(for: peer) }

    private func clientCookie(for peer: Peer) -> UInt64 {
        clientCookies.cookie(server: peer.endpoint.address, own: peer.local ?? .unspecifiedIPv6)
    }

    /// Its response brought this cookie.
    mutating func learned(_ cookie: ServerCookie?, of peer: Peer) {
        guard let cookie else { return }
        cookies.use(peer, cookie)
        if cookies.count > Self.entriesMax { cookies.removeOldest() }
    }

    mutating func heard(from server: IPAddress) {
        answered.use(server, true)
        if answered.count > Self.entriesMax { answered.removeOldest() }
    }

    func hasAnswered(_ server: IPAddress) -> Bool { answered[server] != nil }
}

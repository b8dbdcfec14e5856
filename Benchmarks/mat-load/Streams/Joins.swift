import BenchSupport
import MATSignal
import SeededRandom

/// Joins of nodes that have a token, each with a key and an address of its own: signed ahead of the run, over cookies that it has by then.
final class Joins {
    private let messages: [[UInt8]]
    private let sources: [IPAddress]

    /// - Parameters:
    ///   - first: the node that joins first; the others follow.
    ///   - cookies: of their first addresses.
    init(_ nodes: Nodes, first: Int, count: Int, _ token: JoinToken, _ cookies: Cookies) throws {
        var given: [Cookie] = []
        for node in first..<first + count { given.append(Cookie(client: nodes.clientCookie(node, 0), server: cookies[node, 0].cookie)) }
        let known = given
        messages = try inParallel(0..<count) { number in
            try JoinMessage.make(key: try nodes.key(first + number), token, known[number])
        }
        sources = (0..<count).map { nodes.moa(first + $0, 0) }
    }

    func requests() -> Requests {
        Requests(
            count: messages.count,
            write: { [messages] number, octets in
                put(messages[number], at: octets)
                return messages[number].count
            },
            source: { [sources] in sources[$0] })
    }
}

enum JoinMessage {
    static func make(key: SigningKey, _ token: JoinToken, _ cookie: Cookie) throws -> [UInt8] {
        guard let challenge = Challenge(cookie) else { throw BenchError("no cookie to sign") }
        let statement = JoinStatement(to: token.server, cookie: challenge, key: key.publicKey, wanted: nil, lifetime: nil)
        guard let signature = statement.signed(with: key) else { throw BenchError("a Join could not be signed") }
        let join = Join(cookie: cookie, key: key.publicKey, .token(TokenProof(of: token, over: statement)), signature: signature)
        return SignalMessage(sequence: 0, .join(join)).octets
    }
}

extension CookieOctets {
    var cookie: ServerCookie { ServerCookie(head: UInt64(bigEndian: words.0), hash: UInt64(bigEndian: words.1)) }
}

/// Joins as fast as they go, of sources with cookies: of a token that is wrong, or of who holds one and has as many addresses as he likes.
enum JoinFlood {
    /// - Parameter token: `nil`: a wrong one.
    static func make(_ strangers: Strangers, cookies: [CookieOctets], _ token: JoinToken?, seed: UInt64) throws -> FloodStream.Flood {
        var random = SeededGenerator(seed: seed)
        guard let secret = TokenSecret(random.octets(32)), let server = SigningKey(seed: random.octets(32)) else { throw BenchError("no token") }
        let used = token ?? JoinToken(host: "bench", id: TokenID(rawValue: random.next()), secret: secret, server: server.publicKey)
        var keys: [SigningKey] = []
        for _ in 0..<strangers.count { if let key = SigningKey(seed: random.octets(32)) { keys.append(key) } }
        let all = keys
        let messages = try inParallel(0..<all.count) { number in
            try JoinMessage.make(key: all[number], used, Cookie(client: UInt64(number), server: cookies[number].cookie))
        }
        return FloodStream.Flood(
            write: { number, octets in
                let message = messages[number % messages.count]
                put(message, at: octets)
                octets.store(sequence: UInt32(truncatingIfNeeded: number))
                return message.count
            },
            source: { strangers[$0] })
    }
}

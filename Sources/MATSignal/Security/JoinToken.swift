/// Names a token: 8 octets.
public struct TokenID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// 16 hexadecimal digits, as `description` writes them.
    public init?(_ text: String) {
        guard text.utf8.count == 16, let value = UInt64(text, radix: 16), text == TokenID(rawValue: value).description else { return nil }
        rawValue = value
    }

    public static func < (a: TokenID, b: TokenID) -> Bool { a.rawValue < b.rawValue }

    public var description: String {
        let digits = String(rawValue, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// What only the holder of a token and its IMS know: 32 random octets. It is never written to a log.
public struct TokenSecret: Hashable, Sendable {
    public static let octetsCount = 32
    private let value: Octets32

    /// - Returns: `nil` unless there are 32 octets.
    public init?(_ octets: [UInt8]) {
        guard let value = Octets32(octets) else { return nil }
        self.value = value
    }

    public var octets: [UInt8] { value.octets }
}

/// What a person is given so that a node can join (section 12), as text:
///
/// ```
/// mat-join:HOST[:PORT]:BASE64URL        id 8 | secret 32 | IMS public key 32, without padding; an IPv6 HOST in brackets; port 6288 if none
/// ```
public struct JoinToken: Hashable, Sendable {
    static let scheme = "mat-join"
    static let octetsCount = 8 + TokenSecret.octetsCount + PublicKey.octetsCount

    /// Why a text is no token.
    public struct Malformed: Error, Hashable, CustomStringConvertible {
        public let description: String
    }

    /// A name or an address, without brackets.
    public var host: String
    public var port: UInt16
    public var id: TokenID
    public var secret: TokenSecret
    /// The certificate of what is given verifies under it.
    public var server: PublicKey

    public init(host: String, port: UInt16 = SignalPort.ims, id: TokenID, secret: TokenSecret, server: PublicKey) {
        self.host = host
        self.port = port
        self.id = id
        self.secret = secret
        self.server = server
    }

    public var text: String {
        var writer = SignalWriter(reserving: Self.octetsCount)
        writer.uint64(id.rawValue)
        writer.bytes(secret.octets)
        writer.bytes(server.octets)
        let named = host.contains(":") ? "[\(host)]" : host
        return "\(Self.scheme):\(named)\(port == SignalPort.ims ? "" : ":\(port)"):\(Base64.writeForURL(writer.octets))"
    }

    /// Whether nodes can look it up, or reach it: an address, or a name of letters, digits, hyphens and underscores (RFC 1123 section 2.1, RFC 2181
    /// section 11). Its last label is no number, or it would be a mistyped address.
    public static func isHost(_ text: String) -> Bool {
        if IPAddress(text) != nil { return true }
        var labels = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        // As in "ims1.example.".
        if labels.count > 1, labels.last?.isEmpty == true { labels.removeLast() }
        func isAllowed(_ label: Substring.UTF8View) -> Bool {
            (1...63).contains(label.count) && label.first != UInt8(ascii: "-") && label.last != UInt8(ascii: "-")
                && label.allSatisfy { "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_".utf8.contains($0) }
        }
        let isNumber = labels.last?.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ?? true
        return text.utf8.count <= 253 && labels.allSatisfy(isAllowed) && !isNumber
    }

    public static func parse(_ text: String) throws(Malformed) -> JoinToken {
        guard text.hasPrefix("\(scheme):") else { throw Malformed(description: "a token begins with \"\(scheme):\"") }
        let rest = text.dropFirst(scheme.utf8.count + 1)
        guard let end = rest.lastIndex(of: ":") else {
            throw Malformed(description: "a token has the form \(scheme):HOST[:PORT]:TEXT; here is no \":\" behind the host")
        }
        let (host, port) = try place(rest[..<end])
        guard let octets = Base64.parseForURL(rest[rest.index(after: end)...].utf8), octets.count == octetsCount else {
            throw Malformed(description: "its last part is not \(octetsCount) octets in base64url: characters are missing or were changed")
        }
        guard let secret = TokenSecret(Array(octets[8..<40])), let server = PublicKey(Array(octets[40...])) else {
            throw Malformed(description: "its last part is not \(octetsCount) octets in base64url")
        }
        let id = octets[..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return JoinToken(host: host, port: port, id: TokenID(rawValue: id), secret: secret, server: server)
    }

    private static func place(_ text: Substring) throws(Malformed) -> (host: String, port: UInt16) {
        var host = text
        var port: Substring?
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { throw Malformed(description: "the \"[\" before the address has no \"]\" behind it") }
            host = text[text.index(after: text.startIndex)..<end]
            guard IPAddress(String(host))?.family == .ipv6 else { throw Malformed(description: "\"\(host)\" in brackets is not an IPv6 address") }
            let behind = text[text.index(after: end)...]
            guard behind.isEmpty || behind.first == ":" else { throw Malformed(description: "\"\(behind)\" stands behind the brackets") }
            if !behind.isEmpty { port = behind.dropFirst() }
        } else if let colon = text.firstIndex(of: ":") {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
            if port?.contains(":") == true { throw Malformed(description: "an IPv6 address stands in brackets: [\(text)]") }
        }
        guard !host.isEmpty else { throw Malformed(description: "it names no host") }
        guard let port else { return (String(host), SignalPort.ims) }
        guard let number = UInt16(port), number > 0 else { throw Malformed(description: "\"\(port)\" is not a port: write a number of 1 to 65535") }
        return (String(host), number)
    }
}

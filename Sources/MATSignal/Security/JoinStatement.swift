import Crypto

/// What a Join's SIGNATURE and TOKEN-PROOF are made over (section 12): the holder of this key asks this IMS, from where this cookie was made
/// for, now. So none of it is of use again, or at another IMS.
///
/// ```
/// "MAT join v1" 11 | IMS public key 32 | COOKIE value 24 | PUBLIC-KEY 32 | WANTED value 20 | LIFETIME value 4
/// ```
/// Zeros stand for what is absent.
public struct JoinStatement: Hashable, Sendable {
    static let signingContext = Array("MAT join v1".utf8)

    /// The IMS's, that the token names, or a visitor learned from DNS.
    public var server: PublicKey
    public var cookie: Challenge
    public var key: PublicKey
    public var wanted: IPPrefix?
    public var lifetime: UInt32?

    public init(to server: PublicKey, cookie: Challenge, key: PublicKey, wanted: IPPrefix?, lifetime: UInt32?) {
        self.server = server
        self.cookie = cookie
        self.key = key
        self.wanted = wanted
        self.lifetime = lifetime
    }

    public var octets: [UInt8] {
        var writer = SignalWriter(reserving: 128)
        writer.bytes(Self.signingContext)
        writer.bytes(server.octets)
        cookie.encode(into: &writer)
        writer.bytes(key.octets)
        if let wanted { wanted.encodeWanted(into: &writer) } else { writer.zeros(TokenProof.wantedOctetsCount) }
        writer.uint32(lifetime ?? 0)
        return writer.octets
    }

    /// - Returns: `nil` only if the crypto library fails.
    public func signed(with key: SigningKey) -> Signature? { key.sign(octets) }

    public func isSigned(_ signature: Signature) -> Bool { key.isValid(signature, over: octets) }
}

extension IPPrefix {
    /// WANTED's value: `address 16 | prefix length 1 | zero 3`.
    func encodeWanted(into writer: inout SignalWriter) {
        writer.address(address)
        writer.uint8(UInt8(truncatingIfNeeded: length))
        writer.zeros(3)
    }
}

/// TOKEN-PROOF: that the sender holds a token, without showing it.
public struct TokenProof: Hashable, Sendable {
    static let octetsCount = 40
    static let wantedOctetsCount = 20

    public var token: TokenID
    /// HMAC-SHA-256 with the token's secret, 32 octets.
    private let code: Octets32

    /// - Parameter statement: what the SIGNATURE of the same Join is made over.
    public init(of token: JoinToken, over statement: JoinStatement) {
        self.token = token.id
        code = Self.code(of: statement, token.secret)
    }

    init(_ value: OctetView) {
        token = TokenID(rawValue: value.uint64(at: 0))
        // The table has seen that the value is as long as that.
        code = Octets32(value.array(8..<Self.octetsCount)) ?? Octets32.zero
    }

    func encode(into writer: inout SignalWriter) {
        writer.uint64(token.rawValue)
        writer.bytes(code.octets)
    }

    /// Whether it was made with this secret over this statement. The time that it takes does not depend on where they differ.
    public func isValid(_ secret: TokenSecret, over statement: JoinStatement) -> Bool {
        HMAC<SHA256>.isValidAuthenticationCode(code.octets, authenticating: statement.octets, using: SymmetricKey(data: secret.octets))
    }

    private static func code(of statement: JoinStatement, _ secret: TokenSecret) -> Octets32 {
        let code = HMAC<SHA256>.authenticationCode(for: statement.octets, using: SymmetricKey(data: secret.octets))
        return Octets32(Array(code)) ?? Octets32.zero
    }
}

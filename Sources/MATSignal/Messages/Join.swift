/// Type 15, node -> IMS (section 12): "give me a home address, and a certificate of it for this key".
///
/// ```
/// COOKIE (valid), PUBLIC-KEY, SIGNATURE, TOKEN-PROOF           by who holds a token; WANTED, LIFETIME
/// COOKIE (valid), PUBLIC-KEY, SIGNATURE, HOA, CERTIFICATE      by a visitor, whose home these are; WANTED, LIFETIME
/// ```
public struct Join: Hashable, Sendable {
    /// What entitles to a home address.
    public enum Title: Hashable, Sendable {
        case token(TokenProof)
        /// The node's home, and its certificate there: a visitor.
        case visitor(HomeAddress, Certificate)
    }

    public var cookie: Cookie
    /// What the certificate shall be for. A visitor's is the same as at home.
    public var key: PublicKey
    public var title: Title
    /// An HoA within this prefix; of full length: this one.
    public var wanted: IPPrefix?
    /// Seconds; with 0 the HoA that is wanted is given back.
    public var lifetime: UInt32?
    /// Made with the key over a `JoinStatement`.
    public var signature: Signature

    public init(cookie: Cookie, key: PublicKey, _ title: Title, wanted: IPPrefix? = nil, lifetime: UInt32? = nil, signature: Signature) {
        self.cookie = cookie
        self.key = key
        self.title = title
        self.wanted = wanted
        self.lifetime = lifetime
        self.signature = signature
    }

    /// What is signed, for the holder of this IMS key; `nil` without a whole cookie.
    public func statement(to ims: PublicKey) -> JoinStatement? {
        Challenge(cookie).map { JoinStatement(to: ims, cookie: $0, key: key, wanted: wanted, lifetime: lifetime) }
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let key = options.publicKey, let signature = options.signature else { return nil }
        let title: Title
        if let proof = options.tokenProof {
            title = .token(proof)
        } else if let hoa = options.hoa, let certificate = options.certificate {
            title = .visitor(hoa, certificate)
        } else {
            return nil
        }
        self.init(cookie: cookie, key: key, title, wanted: options.wanted, lifetime: options.lifetime, signature: signature)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.publicKey = key
        switch title {
        case .token(let proof): options.tokenProof = proof
        case .visitor(let hoa, let certificate): (options.hoa, options.certificate) = (hoa, certificate)
        }
        options.wanted = wanted
        options.lifetime = lifetime
        options.signature = signature
        return options
    }
}

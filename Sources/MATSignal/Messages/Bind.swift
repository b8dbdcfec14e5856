/// Type 11, node -> own IMS or relay (section 11.3): "send what is for this HoA to where this came from".
///
/// ```
/// ask      COOKIE, PAD                                                            64 octets; answered whoever asks
/// bind     COOKIE, HOA, CERTIFICATE or CERT-ID, PATH-SIGNATURE, LIFETIME
/// refresh  COOKIE, HOA, PAD                                                       64 octets, from the bound endpoint
/// ```
public struct Bind: Hashable, Sendable {
    public enum Wish: Hashable, Sendable {
        /// Where do I come from?
        case ask
        /// Enter the HoA with the source of this datagram, for as long as LIFETIME says (seconds; 0 ends it).
        case bind(HomeAddress, PathProof, lifetime: UInt32)
        /// Keep the binding.
        case refresh(HomeAddress)
    }

    /// What asking and refreshing are padded to, so that an answer is never larger than they are.
    public static let octetsMin = 64
    /// Seconds that a node asks for unless configured otherwise.
    public static let lifetimeDefault: UInt32 = 120
    /// Seconds that a server grants; 0 ends a binding.
    public static let lifetimes: ClosedRange<UInt32> = 30...600

    public var cookie: Cookie
    public var wish: Wish
    /// Octets of padding.
    public var padding: Int?

    public init(cookie: Cookie, _ wish: Wish, padding: Int? = nil) {
        self.cookie = cookie
        self.wish = wish
        self.padding = padding
    }

    /// With the padding that the wish needs.
    public static func padded(cookie: Cookie, _ wish: Wish) -> Bind {
        var bind = Bind(cookie: cookie, wish)
        bind.padding = SignalMessage(sequence: 0, .bind(bind)).padding(toOctets: octetsMin)
        return bind
    }

    /// The HoA that it is about; `nil` if it only asks.
    public var hoa: HomeAddress? {
        switch wish {
        case .ask: nil
        case .bind(let hoa, _, _), .refresh(let hoa): hoa
        }
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        let wish: Wish
        if let hoa = options.hoa {
            if let proof = PathProof(options), let lifetime = options.lifetime {
                wish = .bind(hoa, proof, lifetime: lifetime)
            } else {
                wish = .refresh(hoa)
            }
        } else {
            wish = .ask
        }
        self.init(cookie: cookie, wish, padding: options.padding)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        switch wish {
        case .ask: break
        case .bind(let hoa, let proof, let lifetime):
            options.hoa = hoa
            proof.add(to: &options)
            options.lifetime = lifetime
        case .refresh(let hoa): options.hoa = hoa
        }
        options.padding = padding
        return options
    }
}

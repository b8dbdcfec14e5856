/// Type 13, node -> node (section 11.4): "can you hear me on this path?"
///
/// ```
/// first    COOKIE, HOA, PEER-HOA, CHALLENGE, PAD                                      148 octets at least
/// second   COOKIE, HOA, PEER-HOA, CHALLENGE, CERTIFICATE or CERT-ID, PATH-SIGNATURE   once the receiver's cookie is known
/// in-path  COOKIE, HOA, PEER-HOA; CANDIDATES                                          inside an encapsulated packet: a sign, and no proof
/// ```
public struct PathProbe: Hashable, Sendable {
    /// What a probe from outside is padded to: no less than its answer.
    public static let octetsMin = 148

    public var cookie: Cookie
    /// The receiver's.
    public var hoa: HomeAddress
    /// The sender's.
    public var peerHoA: HomeAddress
    /// What the receiver is to sign; `nil` in-path.
    public var challenge: Challenge?
    /// The sender's own word for where it is.
    public var proof: PathProof?
    /// Own endpoints that only a peer at the same site can reach; in-path only.
    public var candidates: [Candidate]
    /// Octets of padding.
    public var padding: Int?

    public init(
        cookie: Cookie, hoa: HomeAddress, peerHoA: HomeAddress, challenge: Challenge? = nil, proof: PathProof? = nil,
        candidates: [Candidate] = [], padding: Int? = nil
    ) {
        self.cookie = cookie
        self.hoa = hoa
        self.peerHoA = peerHoA
        self.challenge = challenge
        self.proof = proof
        self.candidates = candidates
        self.padding = padding
    }

    /// A probe from outside, with the padding that it needs.
    public static func padded(
        cookie: Cookie, hoa: HomeAddress, peerHoA: HomeAddress, challenge: Challenge, proof: PathProof? = nil
    ) -> PathProbe {
        var probe = PathProbe(cookie: cookie, hoa: hoa, peerHoA: peerHoA, challenge: challenge, proof: proof)
        probe.padding = SignalMessage(sequence: 0, .pathProbe(probe)).padding(toOctets: octetsMin)
        return probe
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let hoa = options.hoa, let peerHoA = options.peerHoA else { return nil }
        self.init(
            cookie: cookie, hoa: hoa, peerHoA: peerHoA, challenge: options.challenge, proof: PathProof(options), candidates: options.candidates,
            padding: options.padding)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.peerHoA = peerHoA
        options.challenge = challenge
        options.candidates = candidates
        proof?.add(to: &options)
        options.padding = padding
        return options
    }
}

/// Something that is wrong and that a person has to know of: a word for programs, whom it concerns, what was met, and what to do about it.
/// It is made where it arises, which is where its cause is known.
public struct Problem: Codable, Hashable, Sendable, CustomStringConvertible {
    /// Which kind it is. The words are an interface; new ones may come.
    public struct Code: RawRepresentable, Codable, Hashable, Sendable {
        public let rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }

        public static let noIMSRecord = Code(rawValue: "no-ims-record")
        public static let nameLookUp = Code(rawValue: "name-look-up")
        public static let noAnswer = Code(rawValue: "no-answer")
        public static let clockWrong = Code(rawValue: "clock-wrong")
        public static let recordFromWrongClock = Code(rawValue: "record-from-wrong-clock")
        public static let otherKey = Code(rawValue: "other-key")
        public static let clocksDisagree = Code(rawValue: "clocks-disagree")
        public static let certificateSuperseded = Code(rawValue: "certificate-superseded")
        public static let certificateRevoked = Code(rawValue: "certificate-revoked")
        public static let authenticationFailed = Code(rawValue: "authentication-failed")
        public static let notAuthoritative = Code(rawValue: "not-authoritative")
        public static let tryLater = Code(rawValue: "try-later")
        public static let refused = Code(rawValue: "refused")
        public static let serverLacksFamily = Code(rawValue: "server-lacks-family")
        public static let noMobileAddressLeft = Code(rawValue: "no-mobile-address-left")
        public static let notGlobal = Code(rawValue: "not-global")
        public static let noRelay = Code(rawValue: "no-relay")
        public static let notSigned = Code(rawValue: "not-signed")
        public static let unsupported = Code(rawValue: "unsupported")
        public static let other = Code(rawValue: "other")
    }

    public let code: Code
    /// The home address that it concerns.
    public let subject: String
    /// One line.
    public let text: String

    public init(_ code: Code, of subject: some CustomStringConvertible, _ text: String) {
        self.code = code
        self.subject = subject.description
        self.text = text
    }

    public var description: String { text }

    /// What to do about it.
    public var remedy: String {
        switch code {
        case .noIMSRecord:
            "`mat lookup \(subject)` shows what DNS says; the operator of the home prefix adds the lines of `mat zone` to its reverse zone"
        case .nameLookUp: "check the resolver (`dns` in matd.yaml, else /etc/resolv.conf), then `mat lookup \(subject)`"
        case .noAnswer:
            "UDP from port 6289 to port 6288 of these servers must pass, and back; `mat lookup \(subject)` tries another port"
        case .clockWrong:
            "set this host's clock (`timedatectl set-ntp true`, or `date -s` once); matd then registers by itself within a minute. If this clock is right, the server's is wrong: tell its operator"
        case .recordFromWrongClock:
            "if this host's clock is right, have the operator of the IMS run `mat ims revoke \(subject)` and `mat enrol \(subject)` again, install the certificate, and restart matd"
        case .otherKey:
            "`mat ims show \(subject)` at the IMS shows whose key has the address now; have its operator enrol this node under another address, or this one again with `mat enrol \(subject) --force`"
        case .clocksDisagree:
            "compare this host's clock with the server's, and set the wrong one; matd registers by itself when they agree"
        case .certificateSuperseded:
            "a newer certificate of this address was issued: install that one here, or have the operator of the IMS enrol this node's key again (`mat enrol \(subject) --force`), and restart matd"
        case .certificateRevoked:
            "the operator of the IMS took this address back; if this node is to have it, ask for `mat enrol \(subject)` with the key that `mat keygen --show` prints, install the certificate, and restart matd"
        case .authenticationFailed:
            "have the operator of the IMS enrol this node's key again (`mat enrol \(subject)`), install the certificate, and restart matd"
        case .notAuthoritative: "DNS names a server that does not serve this address; `mat lookup \(subject)` shows which"
        case .tryLater: "the server is busy or this node registers too often; matd repeats by itself"
        case .refused:
            "the server did not see this node at the mobile address it claims: a translator (NAT) between them, or a source port other than 6289"
        case .serverLacksFamily:
            "give the server an address of that family in DNS, or take this family's addresses out of `interfaces`"
        case .noMobileAddressLeft:
            "give this host one more address of the family on some link, or divide those there are with `use` under `home-addresses` in matd.yaml"
        case .notGlobal:
            "if the network routes it to the peers without translation, name its prefix under `routed` in matd.yaml, here and there; else this node needs a network that gives it a global address"
        case .noRelay:
            "`mat status` says what each relay answers; name one in the zone (`mat zone --relay`) or under `relays` in matd.yaml, which the IMS takes (`accept-relays` in its imsd.yaml)"
        case .notSigned: "make the key anew with `mat keygen`, and enrol again"
        case .unsupported: "node and server are of different versions; bring both to the same"
        default: "`mat lookup \(subject)` shows how far a look-up gets; `journalctl -u matd` has the rest"
        }
    }
}

import MATControl
import MATSignal

extension Problem {
    /// The code of a problem that the core tells in words alone.
    init(of subject: HomeAddress, _ text: String) {
        self.init(Self.signs.first { text.contains($0.sign) }?.code ?? .other, of: subject, text)
    }

    private static let signs: [(sign: String, code: Code)] = [
        ("no IMS record", .noIMSRecord), ("looking up the IMS", .nameLookUp), ("no answer from", .noAnswer), ("this host's clock is", .clockWrong),
        ("taken while a clock was wrong", .recordFromWrongClock), ("that another key signed", .otherKey), ("is a clock wrong", .clocksDisagree),
        ("superseded", .certificateSuperseded), ("authentication failed", .authenticationFailed), ("not authoritative", .notAuthoritative),
        ("try later", .tryLater), (": refused", .refused), ("address, which proving", .serverLacksFamily),
        ("no mobile address is left", .noMobileAddressLeft), ("not of global scope", .notGlobal), ("could not be signed", .notSigned),
        ("unsupported", .unsupported),
    ]
}

import MATControl
import MATSignal

extension Problem {
    static func noAnswer(to hoa: HomeAddress, from servers: [Endpoint]) -> Problem {
        Problem(.noAnswer, of: hoa, "no answer from \(servers.map(\.description).joined(separator: ", "))")
    }

    /// The IMS refused what registering the HoA takes.
    init(refusal code: ResponseCode, _ text: String?, of hoa: HomeAddress) {
        self.init(Self.code(of: code, text), of: hoa, "the IMS refused: \(code)\(text.map { " (\($0.printable))" } ?? "")")
    }

    private static func code(of code: ResponseCode, _ text: String?) -> Code {
        switch code {
        case .authenticationFailed:
            // One code on the wire stands for several reasons; which of them it was, the server says in its TEXT alone.
            if text?.contains("is a clock wrong") == true { return .clocksDisagree }
            if text?.contains("was revoked") == true { return .certificateRevoked }
            return text?.contains("superseded") == true ? .certificateSuperseded : .authenticationFailed
        case .notAuthoritative: return .notAuthoritative
        case .tryLater: return .tryLater
        case .refused: return .refused
        case .unsupported: return .unsupported
        default: return .other
        }
    }
}

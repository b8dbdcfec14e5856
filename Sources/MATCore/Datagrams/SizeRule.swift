import MATSignal

/// What may go to a source that has not proven that it receives there (section 6): as many octets as came from it, over all answers to
/// one datagram, with enough kept back for a cookie to each request that follows. So nobody can be made to send more to another's address
/// than was sent here.
///
/// ```
///   the answer whole ─► without TEXT ─► without the server cookie ─► code 9 with a cookie ─► nothing
///                                        only to short requests        36 octets
/// ```
/// To Bind and Path Probe code 9 says what source was seen as well, in 60 octets.
package struct SizeRule: Sendable {
    /// A header and a COOKIE with both halves: the smallest answer, which says "cookie required".
    package static let cookieAnswerOctets = 36
    /// A request of this size wants a server cookie whatever the answer is: header, COOKIE with both halves, HOA or MOA.
    package static let cookieWantedOctets = 56

    /// Code 9 to Bind and Path Probe: XOBSERVED as well. The answer to a Bind without HOA is as long.
    package static let observedAnswerOctets = 60

    private var allowance: Int
    /// What is kept back for the requests that follow.
    private var octetsToCome: Int

    package init(_ datagram: [UInt8], _ parts: [SignalDatagram.Part]) {
        allowance = datagram.count
        octetsToCome = parts.reduce(0) { $0 + $1.cookieAnswerOctets }
    }

    /// The next part is looked at.
    ///
    /// - Returns: how many octets its answer may have.
    package mutating func next(_ part: SignalDatagram.Part) -> Int {
        octetsToCome -= part.cookieAnswerOctets
        return max(0, allowance - octetsToCome)
    }

    /// What the smallest answer to a request of this type has.
    package static func cookieAnswerOctets(to type: MessageType) -> Int {
        type == .bind || type == .pathProbe ? observedAnswerOctets : cookieAnswerOctets
    }

    package mutating func answered(_ answer: SignalMessage) { allowance -= answer.octets.count }

    /// What is said to a request without a valid cookie.
    ///
    /// - Parameters:
    ///   - body: the answer from memory, if there is one.
    ///   - cookie: a fresh one for the source.
    package static func answer(
        to message: SignalMessage, octetsCount: Int, _ body: SignalMessage.Body?, _ cookie: Cookie, allowed: Int, source: Endpoint
    ) -> SignalMessage? {
        for body in body.map(smaller) ?? [] {
            let answer = SignalMessage(sequence: message.sequence, body)
            if answer.cookie.server == nil, octetsCount >= cookieWantedOctets { break }
            if answer.octets.count <= allowed { return answer }
        }
        let least = cookieAnswerOctets(to: message.type)
        guard octetsCount >= least, allowed >= least else { return nil }
        return SignalMessage.refusal(
            of: message.type, sequence: message.sequence, code: .cookieRequired, cookie: cookie, observed: source)
    }

    /// The answer whole, without TEXT, and without the server cookie as well.
    private static func smaller(_ whole: SignalMessage.Body) -> [SignalMessage.Body] {
        switch whole {
        case .maAnswer(var answer):
            answer.text = nil
            let withoutText = answer
            answer.cookie.server = nil
            return [whole, .maAnswer(withoutText), .maAnswer(answer)]
        case .haAnswer(var answer):
            answer.text = nil
            let withoutText = answer
            answer.cookie.server = nil
            return [whole, .haAnswer(withoutText), .haAnswer(answer)]
        default: return [whole]
        }
    }
}

extension SignalDatagram.Part {
    /// Of the smallest answer to it; 0 if it is no request.
    fileprivate var cookieAnswerOctets: Int {
        switch self {
        case .message(let message, _): message.type.isRequest ? SizeRule.cookieAnswerOctets(to: message.type) : 0
        case .draft: 0
        case .rejected(let rejection): rejection.answerCode != nil ? SizeRule.cookieAnswerOctets : 0
        }
    }
}

import MATSignal

/// Answers to requests that can't be read, as many as are good for finding out what is wrong.
package struct Rejections: Sendable {
    private var rate: RateLimit

    package init(perSecond: Int) { rate = RateLimit(perSecond: perSecond) }

    package mutating func reconfigure(perSecond: Int) { rate.reconfigure(perSecond: perSecond) }

    /// What is to be said of a part of a datagram.
    package struct OnRejection: Sendable {
        /// `nil` if it does not fit.
        package var answer: SignalMessage?
        package var line: String
    }

    /// - Parameter allowed: how many octets may go to a source that is not validated.
    /// - Returns: `nil` if it is not worth an answer.
    package mutating func rejected(
        _ rejection: SignalDatagram.Rejection, from source: Endpoint, _ cookies: CookieAuthority, allowed: Int, _ now: Now
    ) -> OnRejection? {
        guard let code = rejection.answerCode, let type = rejection.type, let cookie = rejection.cookie,
            rate.take(at: now.monotonic)
        else {
            return nil
        }
        let isValidated = cookies.isValid(cookie, from: source, now: now)
        let fresh = Cookie(client: cookie.client, server: cookies.make(for: source, clientCookie: cookie.client, now: now))
        var result = OnRejection(line: "refused \(type) from \(source): \(code) (\(rejection.error))")
        // TEXT tells a person what was wrong; it goes first if there is no room.
        for (cookie, text) in [(fresh, rejection.error.reason), (fresh, nil), (Cookie(client: cookie.client), nil)]
            as [(Cookie, String?)]
        {
            let answer = SignalMessage.refusal(of: type, sequence: rejection.sequence, code: code, cookie: cookie, text: text)
            guard isValidated || answer.octets.count <= allowed else { continue }
            result.answer = answer
            break
        }
        return result
    }
}

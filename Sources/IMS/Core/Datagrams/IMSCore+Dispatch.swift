import MATSignal

// Reading datagrams, the size rule, and sending answers (sections 1, 2 and 6).

extension IMSCore {
    /// A header and a COOKIE with both halves: the smallest answer, which says "cookie required".
    static let cookieAnswerOctets = 36
    /// A request of this size wants a server cookie whatever the answer is (section 6): header, COOKIE with both halves, HOA or MOA.
    static let cookieWantedOctets = 56

    mutating func dispatch(_ datagram: [UInt8], _ source: Endpoint, _ local: IPAddress, _ now: Now) {
        // Such a source can't be answered, and only a forger has it.
        guard source.address.isUsableUnicast || source.address.isLoopback || source.address.isLinkLocal, source.port != 0 else {
            counters.dropped += 1
            return
        }
        let parts = SignalDatagram.decode(datagram)
        var answers: [SignalMessage] = []
        // Octets that may go to this source before it has proven that it receives there: as many as came, over all answers,
        // with enough kept back for a cookie to each request that follows.
        var allowance = datagram.count
        var following = parts.reduce(0) { $0 + ($1.isRequest ? 1 : 0) }

        for part in parts {
            if part.isRequest { following -= 1 }
            let allowed = max(0, allowance - following * Self.cookieAnswerOctets)
            switch part {
            case .message(let message, let octetsCount):
                counters.received[message.type, default: 0] += 1
                guard message.type.isRequest else {
                    takeResponse(message, source, local, now)
                    continue
                }
                let request = request(message, source, local, now)
                if request.isValidated {
                    if case .now(let body) = handle(message, request, now) {
                        answers.append(SignalMessage(sequence: message.sequence, body))
                    }
                } else if let answer = answerUnvalidated(message, request, octetsCount, allowed, now) {
                    allowance -= answer.octets.count
                    answers.append(answer)
                }
            case .draft(let draft):
                answerDraft(draft, source, local, now)
            case .rejected(let rejection):
                if let answer = answerRejected(rejection, source, local, allowed, now) {
                    allowance -= answer.octets.count
                    answers.append(answer)
                }
            }
        }
        for answer in answers { count(answer) }
        for packed in SignalDatagram.pack(answers) { actions.append(.send(packed, from: local, to: source)) }
    }

    private func request(_ message: SignalMessage, _ source: Endpoint, _ local: IPAddress, _ now: Now) -> Request {
        let cookie = message.cookie
        let isValidated = cookies.isValid(cookie, from: source, now: now)
        return Request(
            source: source, local: local, type: message.type, sequence: message.sequence, clientCookie: cookie.client,
            isValidated: isValidated,
            isFresh: isValidated && cookies.isValid(cookie, from: source, now: now, ageMax: CookieAuthority.proofAgeMax))
    }

    private mutating func handle(_ message: SignalMessage, _ request: Request, _ now: Now) -> Answer {
        switch message.body {
        case .imsUpdate(let update): handle(update, request, now)
        case .maQuery(let query): .now(.maAnswer(answer(query, request, now)))
        case .haNotify(let notify): handle(notify, request, now)
        case .haQuery(let query): .now(.haAnswer(answer(query, request, now)))
        case .maNotify(let notify): handle(notify, request, now)
        case .imsUpdateReply, .maAnswer, .haNotifyAck, .haAnswer, .maNotifyAck: .later
        }
    }

    // MARK: The size rule

    /// Answers from memory if that fits, else asks for the cookie; writes nothing.
    private mutating func answerUnvalidated(
        _ message: SignalMessage, _ request: Request, _ octetsCount: Int, _ allowed: Int, _ now: Now
    ) -> SignalMessage? {
        var candidates: [SignalMessage.Body] = []
        switch message.body {
        case .maQuery(var query):
            query.subscribe = nil
            let full = answer(query, request, now)
            candidates = Self.ever(smaller: full, \.cookie, \.text).map { .maAnswer($0) }
        case .haQuery(let query):
            let full = answer(query, request, now)
            candidates = Self.ever(smaller: full, \.cookie, \.text).map { .haAnswer($0) }
        default:
            break
        }
        for body in candidates {
            let answer = SignalMessage(sequence: message.sequence, body)
            if answer.cookie.server == nil, octetsCount >= Self.cookieWantedOctets { break }
            if answer.octets.count <= allowed { return answer }
        }
        guard octetsCount >= Self.cookieAnswerOctets, allowed >= Self.cookieAnswerOctets else { return nil }
        return SignalMessage.refusal(
            of: message.type, sequence: message.sequence, code: .cookieRequired,
            cookie: freshCookie(request.source, request.clientCookie, now))
    }

    /// The answer whole, without TEXT, and without the server cookie as well.
    private static func ever<Body>(smaller full: Body, _ cookie: WritableKeyPath<Body, Cookie>, _ text: WritableKeyPath<Body, String?>)
        -> [Body]
    {
        var terse = full
        terse[keyPath: text] = nil
        var bare = terse
        bare[keyPath: cookie].server = nil
        return [full, terse, bare]
    }

    private mutating func answerRejected(
        _ rejection: SignalDatagram.Rejection, _ source: Endpoint, _ local: IPAddress, _ allowed: Int, _ now: Now
    ) -> SignalMessage? {
        if case .unknownType = rejection.error.code { counters.unknownTypes += 1 } else { counters.malformed += 1 }
        guard let code = rejection.answerCode, let type = rejection.type, let cookie = rejection.cookie else { return nil }
        guard errorAnswers.take(at: now.monotonic) else { return nil }
        logRefusal("refused \(type) from \(source): \(code) (\(rejection.error))", now)
        let isValidated = cookies.isValid(cookie, from: source, now: now)
        let fresh = freshCookie(source, cookie.client, now)
        // TEXT tells a person what was wrong; it goes first if there is no room.
        for (cookie, text) in [(fresh, rejection.error.reason), (fresh, nil), (Cookie(client: cookie.client), nil)] as [(Cookie, String?)] {
            let answer = SignalMessage.refusal(of: type, sequence: rejection.sequence, code: code, cookie: cookie, text: text)
            if isValidated || answer.octets.count <= allowed { return answer }
        }
        return nil
    }

    // MARK: Sending

    func freshCookie(_ client: Endpoint, _ clientCookie: UInt64, _ now: Now) -> Cookie {
        Cookie(client: clientCookie, server: cookies.make(for: client, clientCookie: clientCookie, now: now))
    }

    /// Every answer brings a fresh cookie, so that a client that talks to us always has one that also proves its location.
    func freshCookie(_ request: Request, _ now: Now) -> Cookie { freshCookie(request.source, request.clientCookie, now) }

    mutating func count(_ answer: SignalMessage) {
        counters.answered[IMSCounters.Answer(type: answer.type, code: answer.code), default: 0] += 1
    }

    /// Sends an answer that had to wait.
    mutating func reply(_ body: SignalMessage.Body, to request: Request) {
        let answer = SignalMessage(sequence: request.sequence, body)
        count(answer)
        actions.append(.send(answer.octets, from: request.local, to: request.source))
    }

    /// Sends a request of our own.
    mutating func send(_ message: SignalMessage, from local: IPAddress?, to peer: Endpoint) {
        counters.sent[message.type, default: 0] += 1
        actions.append(.send(message.octets, from: local, to: peer))
    }

    private mutating func takeResponse(_ message: SignalMessage, _ source: Endpoint, _ local: IPAddress, _ now: Now) {
        let isOurs =
            switch message.body {
            case .maAnswer(let answer): take(answer, message.sequence, source, now)
            case .maNotifyAck(let ack): take(ack, message.sequence, source, local, now)
            default: false
            }
        if !isOurs { counters.dropped += 1 }
    }
}

extension SignalDatagram.Part {
    fileprivate var isRequest: Bool {
        switch self {
        case .message(let message, _): message.type.isRequest
        case .draft: false
        case .rejected(let rejection): rejection.answerCode != nil
        }
    }
}

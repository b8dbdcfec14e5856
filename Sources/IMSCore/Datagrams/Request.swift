import MATSignal

/// Where a request came from and what its answer has to repeat.
struct Request: Hashable, Sendable {
    var source: Endpoint
    /// The server's address that it was sent to; the answer comes from there.
    var local: IPAddress
    var type: MessageType
    var sequence: UInt32
    var clientCookie: UInt64
    /// Under a server cookie of ours that is at most an hour old.
    var isValidated: Bool
    /// Under one of at most 300 s, as proof of location wants.
    var isFresh: Bool
    /// The server's half of the cookie that it came under, if it is valid.
    var serverCookie: ServerCookie?

    /// What machines put into answers. The server's half depends on when the answer leaves, so the wiring adds it then.
    var cookie: Cookie { Cookie(client: clientCookie) }
}

/// The answer to one request.
struct Reply: Sendable {
    var request: Request
    /// With the client's half of the cookie alone (`Request.cookie`).
    var body: SignalMessage.Body
    /// What to log, if it is a refusal.
    var refusal: Refusal?

    init(_ body: SignalMessage.Body, to request: Request, refusal: Refusal? = nil) {
        self.request = request
        self.body = body
        self.refusal = refusal
    }
}

/// What was refused and why, for the log. Made into a line only if the line is wanted: in a flood it is not.
struct Refusal: Sendable {
    enum Subject: Sendable {
        case update(IPPrefix)
        case haQuery(MobileAddress)
        case haNotify(HomeAddress, about: HomeAddress)
        case maNotify(IPPrefix)
        case bind(HomeAddress)
        /// By the key that it names.
        case join(String)
    }

    var subject: Subject
    var source: Endpoint
    var code: ResponseCode
    var reason: String

    var line: String {
        switch subject {
        case .update(let prefix): "refused IMS Update of \(prefix) from \(source): \(code) (\(reason))"
        case .haQuery(let moa): "refused HA Query for \(moa) from \(source): \(code) (\(reason))"
        case .haNotify(let hoa, let peerHoA): "refused HA Notify of \(hoa) about \(peerHoA) from \(source): \(code) (\(reason))"
        case .bind(let hoa): "refused Bind of \(hoa) from \(source): \(code) (\(reason))"
        case .join(let key): "refused Join of \(key) from \(source): \(code) (\(reason))"
        case .maNotify(let prefix): "refused MA Notify about \(prefix) from \(source): \(code) (\(reason))"
        }
    }
}

extension SignalMessage.Body {
    /// The same response under another cookie; requests are left as they are.
    func under(_ cookie: Cookie) -> Self {
        switch self {
        case .imsUpdateReply(var reply):
            reply.cookie = cookie
            return .imsUpdateReply(reply)
        case .maAnswer(var answer):
            answer.cookie = cookie
            return .maAnswer(answer)
        case .haNotifyAck(var ack):
            ack.cookie = cookie
            return .haNotifyAck(ack)
        case .haAnswer(var answer):
            answer.cookie = cookie
            return .haAnswer(answer)
        case .maNotifyAck(var ack):
            ack.cookie = cookie
            return .maNotifyAck(ack)
        case .bindAck(var ack):
            ack.cookie = cookie
            return .bindAck(ack)
        case .pathAnswer(var answer):
            answer.cookie = cookie
            return .pathAnswer(answer)
        case .joinReply(var reply):
            reply.cookie = cookie
            return .joinReply(reply)
        case .imsUpdate, .maQuery, .haNotify, .haQuery, .maNotify, .bind, .pathProbe, .join: return self
        }
    }
}

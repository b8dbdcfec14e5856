/// One message of the protocol: its sequence number and its body.
public struct SignalMessage: Hashable, Sendable {
    public enum Body: Hashable, Sendable {
        case imsUpdate(IMSUpdate)
        case imsUpdateReply(IMSUpdateReply)
        case maQuery(MAQuery)
        case maAnswer(MAAnswer)
        case haNotify(HANotify)
        case haNotifyAck(HANotifyAck)
        case haQuery(HAQuery)
        case haAnswer(HAAnswer)
        case maNotify(MANotify)
        case maNotifyAck(MANotifyAck)
        case bind(Bind)
        case bindAck(BindAck)
        case pathProbe(PathProbe)
        case pathAnswer(PathAnswer)
        case join(Join)
        case joinReply(JoinReply)
    }

    public var sequence: UInt32
    public var body: Body

    public init(sequence: UInt32, _ body: Body) {
        self.sequence = sequence
        self.body = body
    }

    public var type: MessageType {
        switch body {
        case .imsUpdate: .imsUpdate
        case .imsUpdateReply: .imsUpdateReply
        case .maQuery: .maQuery
        case .maAnswer: .maAnswer
        case .haNotify: .haNotify
        case .haNotifyAck: .haNotifyAck
        case .haQuery: .haQuery
        case .haAnswer: .haAnswer
        case .maNotify: .maNotify
        case .maNotifyAck: .maNotifyAck
        case .bind: .bind
        case .bindAck: .bindAck
        case .pathProbe: .pathProbe
        case .pathAnswer: .pathAnswer
        case .join: .join
        case .joinReply: .joinReply
        }
    }

    /// The outcome that a response carries; requests carry 0.
    public var code: ResponseCode {
        switch body {
        case .imsUpdateReply(let reply): reply.code
        case .maAnswer(let answer): answer.code
        case .haNotifyAck(let ack): ack.code
        case .haAnswer(let answer): answer.code
        case .maNotifyAck(let ack): ack.code
        case .bindAck(let ack): ack.code
        case .pathAnswer(let answer): answer.code
        case .joinReply(let reply): reply.code
        case .imsUpdate, .maQuery, .haNotify, .haQuery, .maNotify, .bind, .pathProbe, .join: .ok
        }
    }

    /// Read from the body alone: each request's is looked at before anything else.
    public var cookie: Cookie {
        switch body {
        case .imsUpdate(let m): m.cookie
        case .imsUpdateReply(let m): m.cookie
        case .maQuery(let m): m.cookie
        case .maAnswer(let m): m.cookie
        case .haNotify(let m): m.cookie
        case .haNotifyAck(let m): m.cookie
        case .haQuery(let m): m.cookie
        case .haAnswer(let m): m.cookie
        case .maNotify(let m): m.cookie
        case .maNotifyAck(let m): m.cookie
        case .bind(let m): m.cookie
        case .bindAck(let m): m.cookie
        case .pathProbe(let m): m.cookie
        case .pathAnswer(let m): m.cookie
        case .join(let m): m.cookie
        case .joinReply(let m): m.cookie
        }
    }

    private var options: SignalOptions {
        switch body {
        case .imsUpdate(let m): m.options
        case .imsUpdateReply(let m): m.options
        case .maQuery(let m): m.options
        case .maAnswer(let m): m.options
        case .haNotify(let m): m.options
        case .haNotifyAck(let m): m.options
        case .haQuery(let m): m.options
        case .haAnswer(let m): m.options
        case .maNotify(let m): m.options
        case .maNotifyAck(let m): m.options
        case .bind(let m): m.options
        case .bindAck(let m): m.options
        case .pathProbe(let m): m.options
        case .pathAnswer(let m): m.options
        case .join(let m): m.options
        case .joinReply(let m): m.options
        }
    }

    // MARK: Wire

    /// - Parameter view: a message that was read and found well-formed.
    /// - Returns: `nil` only if it was read by a table that lets it do without what it consists of.
    init?(_ type: MessageType, _ view: SignalView) {
        let options = SignalOptions(view)
        let code = view.code
        let body: Body? =
            switch type {
            case .imsUpdate: IMSUpdate(options).map(Body.imsUpdate)
            case .imsUpdateReply: IMSUpdateReply(code, options).map(Body.imsUpdateReply)
            case .maQuery: MAQuery(options).map(Body.maQuery)
            case .maAnswer: MAAnswer(code, options).map(Body.maAnswer)
            case .haNotify: HANotify(options).map(Body.haNotify)
            case .haNotifyAck: HANotifyAck(code, options).map(Body.haNotifyAck)
            case .haQuery: HAQuery(options).map(Body.haQuery)
            case .haAnswer: HAAnswer(code, options).map(Body.haAnswer)
            case .maNotify: MANotify(options).map(Body.maNotify)
            case .maNotifyAck: MANotifyAck(code, options).map(Body.maNotifyAck)
            case .bind: Bind(options).map(Body.bind)
            case .bindAck: BindAck(code, options).map(Body.bindAck)
            case .pathProbe: PathProbe(options).map(Body.pathProbe)
            case .pathAnswer: PathAnswer(code, options).map(Body.pathAnswer)
            case .join: Join(options).map(Body.join)
            case .joinReply: JoinReply(code, options).map(Body.joinReply)
            }
        guard let body else { return nil }
        self.init(sequence: view.sequence, body)
    }

    public func encode(into writer: inout SignalWriter) {
        let start = writer.count
        writer.uint8(type.rawValue)
        writer.uint8(code.rawValue)
        writer.uint8(SignalHeader.optionsFlag)
        writer.uint8(0)
        writer.uint32(sequence)
        options.encode(into: &writer)
        writer.patch(uint8: UInt8(truncatingIfNeeded: (writer.count - start) / 4), at: start + 3)
    }

    public var octets: [UInt8] {
        var writer = SignalWriter()
        encode(into: &writer)
        return writer.octets
    }

    /// The padding with which a message that has none comes to this size; `nil` if it is as large without.
    func padding(toOctets count: Int) -> Int? {
        let optionHead = 4
        let padding = count - octets.count - optionHead
        return padding >= 0 ? padding : nil
    }

    /// A response that says only a code: malformed, cookie required, unsupported.
    ///
    /// - Parameter observed: the source of the request, which Bind and Path Probe are told also with "cookie required" (section 6).
    public static func refusal(
        of type: MessageType, sequence: UInt32, code: ResponseCode, cookie: Cookie, observed: Endpoint? = nil, text: String? = nil
    ) -> SignalMessage {
        let body: Body
        switch type.response {
        case .imsUpdateReply: body = .imsUpdateReply(IMSUpdateReply(code: code, cookie: cookie, text: text))
        case .maAnswer: body = .maAnswer(MAAnswer(code: code, cookie: cookie, hoa: nil, text: text))
        case .haNotifyAck: body = .haNotifyAck(HANotifyAck(code: code, cookie: cookie, hoa: nil, text: text))
        case .haAnswer: body = .haAnswer(HAAnswer(code: code, cookie: cookie, moa: nil, text: text))
        case .bindAck: body = .bindAck(BindAck(code: code, cookie: cookie, observed: observed, text: text))
        case .pathAnswer: body = .pathAnswer(PathAnswer(code: code, cookie: cookie, hoa: nil, observed: observed, text: text))
        case .joinReply: body = .joinReply(JoinReply(code: code, cookie: cookie, text: text))
        default: body = .maNotifyAck(MANotifyAck(code: code, cookie: cookie, hoa: nil, text: text))
        }
        return SignalMessage(sequence: sequence, body)
    }
}

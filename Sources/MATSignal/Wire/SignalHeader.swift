/// The messages of protocol.md section 2. Types 1-4 are those of draft-inayat-mat-00.
public enum MessageType: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case imsUpdate = 1
    case imsUpdateReply = 2
    case maQuery = 3
    case maAnswer = 4
    case haNotify = 5
    case haNotifyAck = 6
    case haQuery = 7
    case haAnswer = 8
    case maNotify = 9
    case maNotifyAck = 10
    case bind = 11
    case bindAck = 12
    case pathProbe = 13
    case pathAnswer = 14
    case join = 15
    case joinReply = 16

    /// Requests have odd types, and each response is its request's type plus one.
    public var isRequest: Bool { rawValue % 2 == 1 }

    /// The type of the answer to this request; a response answers itself.
    public var response: MessageType { isRequest ? MessageType(rawValue: rawValue + 1) ?? self : self }

    public var description: String {
        switch self {
        case .imsUpdate: "IMS Update"
        case .imsUpdateReply: "IMS Update Reply"
        case .maQuery: "MA Query"
        case .maAnswer: "MA Answer"
        case .haNotify: "HA Notify"
        case .haNotifyAck: "HA Notify Ack"
        case .haQuery: "HA Query"
        case .haAnswer: "HA Answer"
        case .maNotify: "MA Notify"
        case .maNotifyAck: "MA Notify Ack"
        case .bind: "Bind"
        case .bindAck: "Bind Ack"
        case .pathProbe: "Path Probe"
        case .pathAnswer: "Path Answer"
        case .join: "Join"
        case .joinReply: "Join Reply"
        }
    }
}

/// The outcome that a response carries (section 2). A struct rather than an enum: a code that a later version adds must
/// still be readable.
public struct ResponseCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let ok = ResponseCode(rawValue: 0)
    public static let authenticationFailed = ResponseCode(rawValue: 1)
    public static let notFound = ResponseCode(rawValue: 2)
    public static let malformed = ResponseCode(rawValue: 3)
    public static let notAuthoritative = ResponseCode(rawValue: 4)
    public static let stale = ResponseCode(rawValue: 5)
    public static let refused = ResponseCode(rawValue: 6)
    public static let tryLater = ResponseCode(rawValue: 7)
    public static let upstreamFailed = ResponseCode(rawValue: 8)
    public static let cookieRequired = ResponseCode(rawValue: 9)
    public static let unsupported = ResponseCode(rawValue: 10)

    /// Section 7: these responses need only COOKIE.
    var needsOnlyCookie: Bool { self == .malformed || self == .cookieRequired || self == .unsupported }

    public var description: String {
        switch self {
        case .ok: "ok"
        case .authenticationFailed: "authentication failed"
        case .notFound: "not found"
        case .malformed: "malformed"
        case .notAuthoritative: "not authoritative"
        case .stale: "stale"
        case .refused: "refused"
        case .tryLater: "try later"
        case .upstreamFailed: "upstream failed"
        case .cookieRequired: "cookie required"
        case .unsupported: "unsupported"
        default: "code \(rawValue)"
        }
    }
}

/// The header of every message, 8 octets; `SignalView` reads it.
///
/// ```
///  0               1               2               3
/// +---------------+---------------+---------------+---------------+
/// |     Type      |     Code      |     Flags     |    Length     |   whole message, 32-bit words
/// +---------------+---------------+---------------+---------------+
/// |                   Sequence Number (32 bits)                   |   chosen by the requester, echoed
/// +---------------------------------------------------------------+
/// ```
public enum SignalHeader {
    public static let octetsCount = 8
    /// 255 words.
    public static let messageOctetsMax = 1020
    /// Flag X: the body is a sequence of options. Without it the body is the draft's (section 9).
    public static let optionsFlag: UInt8 = 0x01
}

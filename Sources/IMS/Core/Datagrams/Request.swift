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
}

/// The answer to one message of a datagram.
enum Answer {
    case now(SignalMessage.Body)
    /// It comes later, or never.
    case later
}

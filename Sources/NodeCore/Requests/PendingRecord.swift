import MATSignal

/// A record that is believed only after the DNS has given its keys.
struct PendingRecord: Hashable, Sendable {
    let record: OfferedRecord
    /// Whom it is wanted for: its HoA or, of a network's record, one address behind it.
    let hoa: HomeAddress
    /// The stranger for whom our IMS named it; it is entered only after its own IMS confirmed it.
    let stranger: MobileAddress?
    let ack: PendingAck?
}

/// Where the answer to a MA Notify goes when the record has been checked.
struct PendingAck: Hashable, Sendable {
    let sequence: UInt32
    let clientCookie: UInt64
    let source: Endpoint
    let local: IPAddress
    /// Whether the sender has shown, by our own valid cookie, that it is at its source address.
    let hasCookie: Bool
    /// That cookie is recent enough to show that it is there now.
    let provesPlace: Bool
    /// Of the request: without a cookie the answer must not be longer (section 6).
    let octetsCount: Int
    /// One of several HoAs that one MA Notify concerns answers for all.
    var isSilent = false
    /// The record's signature was good for another HoA that it concerns.
    var isVerified = false
}

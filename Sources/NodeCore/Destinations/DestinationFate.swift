/// What has become of a destination that is no peer.
enum DestinationFate: Hashable, Sendable {
    /// Nothing was sent to it lately: the next packet is held, and it is looked up.
    case unknown
    /// Its packets wait for the DNS. Why that has not answered yet, if it has failed.
    case lookedUp(failure: String?)
    /// Its packets wait for its IMS.
    case asked
    /// The DNS names no IMS for it.
    case absent
    /// Its IMS has no mapping of it.
    case unmapped
    /// The DNS says neither; its packets wait, unless it is plain meanwhile.
    case doubtful(isPlain: Bool, String)
}

import MATSignal

/// A binding that began, moved to another endpoint or ended, for people who look at the relay.
public struct RelayChange: Hashable, Sendable {
    /// Unix time.
    public var atMilliseconds: UInt64
    public var prefix: IPPrefix
    /// `nil`: it began.
    public var before: Endpoint?
    /// `nil`: it has ended.
    public var after: Endpoint?

    /// As many are kept.
    static let latestMax = 200
}

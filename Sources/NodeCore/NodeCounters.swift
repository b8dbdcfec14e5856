/// Counts that never go down, for `mat status`.
public struct NodeCounters: Hashable, Sendable {
    public var handovers: UInt64
    /// Own addresses that were left because nothing answered over them, or because they could not be registered.
    public var uplinkFailures: UInt64
    /// Peers' traffic that took another pair of addresses because the usual one was silent.
    public var detours: UInt64
    public var probesSent: UInt64
    public var registrations: UInt64
    /// The own IMS no longer had our record.
    public var recordsLost: UInt64
    public var messagesSent: UInt64
    public var messagesReceived: UInt64
    public var retransmissions: UInt64
    public var malformedDropped: UInt64
    public var unmatchedDropped: UInt64
    public var draftsDropped: UInt64
    public var recordsRefused: UInt64
    /// Answers to strangers on an own link that were not given, because there were too many.
    public var answersWithheld: UInt64
    /// HA Queries begun.
    public var strangersAsked: UInt64
    public var strangersIdentified: UInt64
    public var strangersPlain: UInt64
    public var destinationsResolved: UInt64
    public var destinationsPlain: UInt64
    /// Destinations that became plain because the DNS gave no answer.
    public var destinationsUndecided: UInt64

    public init() { self.init { _ in 0 } }

    /// Each counter gets its value here and nowhere else: one that is forgotten does not compile.
    init(_ value: (KeyPath<NodeCounters, UInt64>) -> UInt64) {
        handovers = value(\.handovers)
        uplinkFailures = value(\.uplinkFailures)
        detours = value(\.detours)
        probesSent = value(\.probesSent)
        registrations = value(\.registrations)
        recordsLost = value(\.recordsLost)
        messagesSent = value(\.messagesSent)
        messagesReceived = value(\.messagesReceived)
        retransmissions = value(\.retransmissions)
        malformedDropped = value(\.malformedDropped)
        unmatchedDropped = value(\.unmatchedDropped)
        draftsDropped = value(\.draftsDropped)
        recordsRefused = value(\.recordsRefused)
        answersWithheld = value(\.answersWithheld)
        strangersAsked = value(\.strangersAsked)
        strangersIdentified = value(\.strangersIdentified)
        strangersPlain = value(\.strangersPlain)
        destinationsResolved = value(\.destinationsResolved)
        destinationsPlain = value(\.destinationsPlain)
        destinationsUndecided = value(\.destinationsUndecided)
    }

    static func + (a: NodeCounters, b: NodeCounters) -> NodeCounters { NodeCounters { a[keyPath: $0] &+ b[keyPath: $0] } }
}

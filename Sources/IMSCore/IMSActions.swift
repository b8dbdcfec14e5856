import MATSignal
import MappingMemory

/// What `IMSCore` wants done. The shell does it, in order, and decides nothing itself.
///
/// Large contents are kept apart, so that the others can be handed on at little cost.
public enum IMSAction: Sendable, Equatable {
    /// One datagram. `from` is the local address to send from, `nil` if any will do.
    case send([UInt8], from: IPAddress?, to: Endpoint)
    /// One datagram, for the reachability test: from a port that no node sends to, and if that can be from another address than this one.
    /// Nothing is waited for.
    case check([UInt8], to: Endpoint, avoiding: IPAddress)
    /// Find the IMSs at a name of the reverse zone: a host prefix means that HoA's. `IMSCore.resolved` takes the result.
    case lookUp(IPPrefix)
    /// Make durable. `IMSCore.stored` is told the outcome; the answers that depend on it wait.
    indirect case commit(StoreTicket, StoreChange)
    /// Check signatures, in any thread. `IMSCore.verified` is told the outcome; the answers that depend on it wait.
    indirect case verify(VerificationTicket, VerificationJob)
    /// Ask an authority. `IMSCore.authorised` is told the answer; the Join waits.
    indirect case authorise(AuthorisationTicket, Authorisation)
    /// Tell an authority of a lease, however long it takes until that can be told.
    indirect case account(LeaseChange)
    case log(IMSLogLevel, String)
    /// Log it, unless there are too many of its kind.
    indirect case bindingChanged(BindingChange)
}

/// How much a log line matters, in swift-log's words; the core does not depend on a logging library.
public enum IMSLogLevel: String, Sendable, Hashable, CaseIterable {
    case trace, debug, info, notice, warning, error
}

/// Names a write in progress.
public struct StoreTicket: Hashable, Sendable {
    public let number: UInt64
    public init(number: UInt64) { self.number = number }
}

/// One durable step: all of it or nothing.
public struct StoreChange: Hashable, Sendable {
    public var mapping: StoredMapping?
    /// A certificate that was issued, so that no older one is accepted again.
    public var issued: Certificate?
    /// What the store holds about the HoA under certificates that begin later than this (Unix, ms) gives way, though it is newer: it was
    /// issued while a clock was wrong. Only a person may say so.
    public var latest: UInt64?
    /// What joining keeps, each over the version before; if the store holds another version of one, nothing of the change is done.
    public var rows: [StoredRow]
    /// Issued together with `rows`.
    public var certificates: [Certificate]
    /// Mappings that `rows` rely on: if the store holds another record of one of these HoAs, nothing of the change is done either.
    public var relied: [MappingVersion]

    public init(
        mapping: StoredMapping? = nil, issued: Certificate? = nil, latest: UInt64? = nil, rows: [StoredRow] = [], certificates: [Certificate] = [],
        relied: [MappingVersion] = []
    ) {
        self.mapping = mapping
        self.issued = issued
        self.latest = latest
        self.rows = rows
        self.certificates = certificates
        self.relied = relied
    }
}

/// Which record an HoA has.
public struct MappingVersion: Hashable, Sendable {
    public var prefix: IPPrefix
    /// `nil`: none.
    public var version: RecordVersion?

    public init(_ prefix: IPPrefix, _ version: RecordVersion?) {
        self.prefix = prefix
        self.version = version
    }
}

/// How often which message came and went, and with which code.
public struct IMSCounters: Hashable, Sendable {
    public struct Answer: Hashable, Sendable {
        public var type: MessageType
        public var code: ResponseCode

        public init(type: MessageType, code: ResponseCode) {
            self.type = type
            self.code = code
        }
    }

    public var received: [MessageType: UInt64] = [:]
    public var answered: [Answer: UInt64] = [:]
    public var sent: [MessageType: UInt64] = [:]
    /// Datagrams or parts of them that could not be read.
    public var malformed: UInt64 = 0
    public var unknownTypes: UInt64 = 0
    /// Responses that belong to no request of ours, and draft messages from where none are allowed.
    public var dropped: UInt64 = 0
    /// Datagrams of notifies that were told to come later, and datagrams that nobody looked at, because there were too many.
    public var putOff: UInt64 = 0
    public var droppedAtGate: UInt64 = 0
    public var verifications: UInt64 = 0
    public var pushesUnanswered: UInt64 = 0
    public var logLinesSuppressed: UInt64 = 0
    /// Updates refused because the quota of their prefix was used up.
    public var quotaRefusals: UInt64 = 0
    /// Updates refused, and durable mappings not held, because the system gave no memory.
    public var memoryRefusals: UInt64 = 0
    public var certificatesRenewed: UInt64 = 0
    public var bindingChanges: [BindingChange.Reason: UInt64] = [:]
}

/// What can be asked of matd: `{"command":"status"}`, or with `"arguments"`.
public enum NodeCommand: String, CaseIterable, Sendable {
    /// -> `NodeReport`
    case status
    /// -> `PeersReport`
    case peers
    /// `HandoverRequest` -> `NodeReport`
    case handover
    /// `WhyRequest` -> `WhyReport`
    case why
    /// -> `HistoryReport`
    case history
    /// `ExplainRequest` -> `TrafficReports`
    case explain
}

/// Whether conversations go by a mapping, and why.
public struct ExplainRequest: Codable, Hashable, Sendable {
    public struct Conversation: Codable, Hashable, Sendable {
        /// The address of the socket on this host; `nil`: as the kernel chooses it.
        public var local: String?
        public var remote: String

        public init(local: String?, remote: String) {
            self.local = local
            self.remote = remote
        }
    }

    /// What a request may ask about at once.
    public static let conversationsMax = 256

    public var conversations: [Conversation]

    public init(conversations: [Conversation]) { self.conversations = conversations }
}

/// How packets to a peer go, and why not otherwise.
public struct WhyRequest: Codable, Hashable, Sendable {
    /// Its home address.
    public var peer: String

    public init(peer: String) { self.peer = peer }
}

/// Uses the named interface first; without a name, the configured order again. With a peer, towards that peer only.
public struct HandoverRequest: Codable, Hashable, Sendable {
    public var interface: String?
    /// Its home address.
    public var peer: String?

    public init(interface: String?, peer: String?) {
        self.interface = interface
        self.peer = peer
    }
}

/// A command that takes no arguments.
public struct NoArguments: Codable, Hashable, Sendable {
    public init() {}
}

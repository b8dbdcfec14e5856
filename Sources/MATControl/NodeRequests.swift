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
    /// `TraceRequest` -> `NodeTraceReport`
    case trace
    /// `SteerRequest` -> `SteerReport`
    case steer
    /// -> `ProgramsReport`
    case programs
    /// `VisitedHomeRequest` -> `VisitedHomeReport`, when there is one: a home address of the network that the node is in, which is the program's until
    /// this connection ends, or `release`.
    case visit
    /// -> `ReleaseReport`: the visited home of this connection is not used any more.
    case release
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

/// A program wants a visited home.
public struct VisitedHomeRequest: Codable, Hashable, Sendable {
    public enum Family: String, Codable, Hashable, Sendable, CaseIterable { case ipv4, ipv6 }

    /// `nil`: that of the node's first home.
    public var family: Family?

    public init(family: Family?) { self.family = family }
}

/// What it gets: an address that its sockets can be bound to.
public struct VisitedHomeReport: Codable, Hashable, Sendable {
    public var address: String

    public init(address: String) { self.address = address }
}

public struct ReleaseReport: Codable, Hashable, Sendable {
    /// Whether the connection had one.
    public var released: Bool

    public init(released: Bool) { self.released = released }
}

/// How packets to a peer go, and why not otherwise.
public struct WhyRequest: Codable, Hashable, Sendable {
    /// Its home address.
    public var peer: String

    public init(peer: String) { self.peer = peer }
}

/// What this node and its kernel do with packets to an address.
public struct TraceRequest: Codable, Hashable, Sendable {
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

/// Has the sockets that a process makes from now on, and those of what it starts, start from other addresses than those of the rest of the host.
public struct SteerRequest: Codable, Hashable, Sendable {
    public enum Via: String, Codable, CaseIterable, Sendable {
        /// Home addresses, whatever `traffic` says.
        case home
        /// Likewise, and plain hosts by a gateway.
        case gateway
        /// A home address of the network that the node is in.
        case visited
        /// The network's own addresses.
        case plain
    }

    public var via: Via
    /// Which ones, one of each family at most; a family without one has the node's first.
    public var homes: [String]?
    /// Which process; the one that asks, if none is named.
    public var process: Int32?
    /// The network namespace that it is in, by the number of /proc/PID/ns/net, so that nobody wonders in another one.
    public var network: UInt64?

    public init(via: Via, homes: [String]? = nil, process: Int32? = nil, network: UInt64? = nil) {
        self.via = via
        self.homes = homes
        self.process = process
        self.network = network
    }
}

/// A command that takes no arguments.
public struct NoArguments: Codable, Hashable, Sendable {
    public init() {}
}

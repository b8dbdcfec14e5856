/// What the page at `view: listen` of imsd and mat-relay shows: who is where, and what happens. Points in time are Unix milliseconds.
public struct ViewReport: Codable, Hashable, Sendable {
    /// A number that is worth a look.
    public struct Figure: Codable, Hashable, Sendable {
        public enum Kind: String, Codable, Hashable, Sendable {
            /// As it is now.
            case level
            /// Since the start: what is shown is how much it grows in a second.
            case count
        }

        public enum Unit: String, Codable, Hashable, Sendable { case number, octets }

        public var title: String
        public var value: UInt64
        public var kind: Kind
        public var unit: Unit

        public init(_ title: String, _ value: UInt64, _ kind: Kind = .level, _ unit: Unit = .number) {
            self.title = title
            self.value = value
            self.kind = kind
            self.unit = unit
        }
    }

    /// A home address.
    public struct Node: Codable, Hashable, Sendable {
        public enum State: String, Codable, Hashable, Sendable { case registered, bound, visitor, withdrawn, expired, revoked }

        public var home: String
        /// Where it is, the preferred first.
        public var places: [String]
        public var state: State
        /// When it last said so; `nil` if that is not kept.
        @OrNull public var heardAtMilliseconds: UInt64?

        public init(home: String, places: [String], state: State, heardAtMilliseconds: UInt64?) {
            self.home = home
            self.places = places
            self.state = state
            self.heardAtMilliseconds = heardAtMilliseconds
        }

        /// Whether its address, or a place where it is, has the text in it.
        public func contains(_ text: String) -> Bool { home.contains(text) || places.contains { $0.contains(text) } }
    }

    /// Something happened to where a home address is.
    public struct Change: Codable, Hashable, Sendable {
        public var atMilliseconds: UInt64
        public var home: String
        /// registered, moved, withdrawn, expired, revoked, remembered, displaced; bound, ended.
        public var what: String
        public var before: [String]
        public var after: [String]

        public init(atMilliseconds: UInt64, home: String, what: String, before: [String], after: [String]) {
            self.atMilliseconds = atMilliseconds
            self.home = home
            self.what = what
            self.before = before
            self.after = after
        }
    }

    /// One that is told of the other's moves, since they talk.
    public struct Conversation: Codable, Hashable, Sendable {
        /// A home address, or where it asked from if that is not known.
        public var from: String
        public var to: String

        public init(from: String, to: String) {
            self.from = from
            self.to = to
        }
    }

    /// Nodes in one network, as far as addresses tell: 24 bits of IPv4, 48 of IPv6. A relay is one of its own; `others` are those of all that are not listed.
    public struct Network: Codable, Hashable, Sendable {
        public var name: String
        public var nodesCount: Int
        /// Of them, those that are not there: withdrawn, expired, revoked.
        public var awayCount: Int

        public init(name: String, nodesCount: Int, awayCount: Int) {
            self.name = name
            self.nodesCount = nodesCount
            self.awayCount = awayCount
        }
    }

    /// Conversations between nodes of two networks, or within one.
    public struct Traffic: Codable, Hashable, Sendable {
        /// In alphabetical order; the same network if it is within one.
        public var between: String
        public var and: String
        public var conversationsCount: Int

        public init(between: String, and: String, conversationsCount: Int) {
            self.between = between
            self.and = and
            self.conversationsCount = conversationsCount
        }
    }

    /// Nodes with a text in their address, or in a place where they are.
    public struct Found: Codable, Hashable, Sendable {
        /// At most `nodesMax`.
        public var nodes: [Node]
        /// That have it, of those that were looked at.
        public var foundCount: Int
        public var lookedAtCount: Int
        /// Whether these were all.
        public var isComplete: Bool

        public init(nodes: [Node] = [], foundCount: Int = 0, lookedAtCount: Int = 0, isComplete: Bool = false) {
            self.nodes = nodes
            self.foundCount = foundCount
            self.lookedAtCount = lookedAtCount
            self.isComplete = isComplete
        }

        /// Looks at one.
        public mutating func look(at node: Node, for text: String) {
            lookedAtCount += 1
            guard node.contains(text) else { return }
            foundCount += 1
            if nodes.count < ViewReport.nodesMax { nodes.append(node) }
        }

        /// Looks at one that is what was asked for.
        public mutating func putFirst(_ node: Node) {
            lookedAtCount += 1
            foundCount += 1
            nodes = [node] + nodes.prefix(ViewReport.nodesMax - 1)
        }
    }

    /// Of this shape; grows when keys get another meaning.
    public var format = 1
    public var program: String
    public var version: String
    /// What it serves.
    public var title: String
    public var nowMilliseconds: UInt64
    public var uptimeMilliseconds: Int64
    /// What is wrong, a sentence each; empty if nothing is.
    public var problems: [String] = []
    public var figures: [Figure] = []
    /// At most `nodesMax`.
    public var nodes: [Node] = []
    public var nodesCount = 0
    /// The latest first.
    public var changes: [Change] = []
    /// Among the nodes that are listed; at most `conversationsMax`.
    public var conversations: [Conversation] = []

    /// Nodes that `networks` and `traffic` are made of: all, or `surveyedMax`.
    public var surveyedCount = 0
    /// The largest first; at most `networksMax`, the last for all others.
    public var networks: [Network] = []
    public var networksCount = 0
    /// The busiest first; at most `trafficMax`.
    public var traffic: [Traffic] = []
    /// Conversations of the nodes that were looked at.
    public var conversationsCount = 0

    /// A person reads no more.
    public static let nodesMax = 500
    /// Of one node.
    public static let placesMax = 8
    /// More lines between single nodes nobody can follow; `traffic` tells of them all.
    public static let conversationsMax = 400
    /// What it takes to look at each has to be little beside what else the daemon does.
    public static let surveyedMax = 5000
    public static let networksMax = 32
    public static let trafficMax = 200

    public init(program: String, version: String, title: String, nowMilliseconds: UInt64, uptimeMilliseconds: Int64) {
        self.program = program
        self.version = version
        self.title = title
        self.nowMilliseconds = nowMilliseconds
        self.uptimeMilliseconds = uptimeMilliseconds
    }
}

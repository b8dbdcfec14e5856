/// One way in which nodes move, or something between them fails, while they talk; and by which path their packets go afterwards.
public struct Pattern: Sendable {
    /// How it is called in tables and on the command line: "3", "15b", "nat-reboot".
    public var id: String
    /// In the paper's notation where it has one: G is a global address, P(A) an address behind translator A; "mover before ⇒ after, peer".
    public var title: String
    /// Where mobile hosts are before.
    public var start: [Place]
    public var event: Event
    /// How packets go in the end, at both ends.
    public var expected: Path
    /// What the simulation has (milliseconds until packets arrive that were sent from the event on, at the peer and at the mover).
    public var simulated: (toPeer: Int, toMover: Int)?
    /// NTMobile's route after the move (its table 1).
    public var tunnel: Tunnel?

    public init(
        _ id: String, _ title: String, from start: [Place], _ event: Event, _ expected: Path, simulated: (toPeer: Int, toMover: Int)? = nil,
        tunnel: Tunnel? = nil
    ) {
        self.id = id
        self.title = title
        self.start = start
        self.event = event
        self.expected = expected
        self.simulated = simulated
        self.tunnel = tunnel
    }

    /// Whether it is about moves alone.
    public var isMove: Bool { if case .move = event { true } else { false } }

    public enum Path: String, Sendable, Codable {
        case direct, encapsulated, relayed
        /// With a host without MAT, through a gateway.
        case gateway
    }

    /// NTMobile's tunnel between nodes, or through its relay server.
    public enum Tunnel: String, Sendable {
        case endToEnd = "end to end"
        case relayServer = "relay server"
        case either = "either"
    }

    /// Where a mobile host is plugged in.
    public struct Place: Sendable, Equatable {
        public var host: String
        public var network: String
        /// The interface, if not the one that the network is usually entered by.
        public var device: String?

        public init(_ host: String, _ network: String, over device: String? = nil) {
            self.host = host
            self.network = network
            self.device = device
        }
    }

    public indirect enum Event: Sendable {
        /// All of these at once.
        case move([Place])
        /// A daemon ends and starts again.
        case restart(String)
        /// Likewise, and reads a clock that is so many seconds ahead of the others'.
        case setClock(String, aheadBy: Int)
        /// A gateway forgets its flows.
        case reboot(String, newAddress: Bool)
        /// One after the other; the last one is measured.
        case sequence([Event])
    }
}

/// Patterns of one pair of hosts, in such an order that each begins about where the one before ended. Their conversation lasts for all of them.
public struct Walk: Sendable {
    public var name: String
    public var summary: String
    public var near: Ending
    public var far: Ending
    public var patterns: [Pattern]
    public var setting: Setting

    public init(_ name: String, _ summary: String, _ near: Ending, _ far: Ending, setting: Setting = .usual, _ patterns: [Pattern]) {
        self.setting = setting
        self.name = name
        self.summary = summary
        self.near = near
        self.far = far
        self.patterns = patterns
    }

    /// What is other than usual in the lab while it lasts.
    public enum Setting: Sendable {
        case usual
        /// Hosts without MAT are talked to by a gateway.
        case gateway
        /// The nodes' mapping server is three instances, which share a store.
        case instances
    }

    /// A host, and the address by which it talks.
    public struct Ending: Sendable {
        public var host: String
        public var address: String

        public init(_ host: String, _ address: String) {
            self.host = host
            self.address = address
        }

        var isIPv4: Bool { !address.contains(":") }
    }
}

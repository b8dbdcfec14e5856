import MATSignal

/// How packets get to a peer, and why in this way. A core chooses it; the plan makes entries and routes of it.
public struct Carriage: Hashable, Sendable {
    /// What happens to the packet.
    public enum Way: Hashable, Sendable {
        /// Its addresses are exchanged: it leaves between two MoAs, as large as it was (protocol.md section 6).
        case rewritten(MobilePair)

        /// Of the header that the network sees.
        public var family: AddressFamily {
            switch self {
            case .rewritten(let mobile): mobile.own.family
            }
        }

        /// The own address that packets leave from, on whose link they go.
        public var own: MobileAddress {
            switch self {
            case .rewritten(let mobile): mobile.own
            }
        }

        /// Where the network takes them.
        public var destination: IPAddress {
            switch self {
            case .rewritten(let mobile): mobile.peer.address
            }
        }

        /// The largest packet that an application may send, by a route whose own limit this is; in octets with the IP header, 0 for the device's
        /// limit.
        public func mtu(over route: UInt32) -> UInt32 {
            switch self {
            case .rewritten: route
            }
        }
    }

    public enum Reason: Hashable, Sendable {
        /// From the own MoA that is preferred for this peer.
        case preferred
        /// From another one, since the preferred one's path to this peer is silent.
        case detour
    }

    public var way: Way
    public var reason: Reason

    public init(_ way: Way, because reason: Reason = .preferred) {
        self.way = way
        self.reason = reason
    }

    public static func rewritten(_ mobile: MobilePair, because reason: Reason = .preferred) -> Carriage {
        Carriage(.rewritten(mobile), because: reason)
    }
}

extension Carriage.Way: CustomStringConvertible {
    public var description: String {
        switch self {
        case .rewritten(let mobile): "\(mobile)"
        }
    }
}

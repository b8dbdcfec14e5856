import MATSignal

/// How packets get to a peer, and why in this way. A core chooses it; the plan makes entries and routes of it.
public struct Carriage: Hashable, Sendable {
    /// What happens to the packet.
    public enum Way: Hashable, Sendable {
        /// Its addresses are exchanged: it leaves between two MoAs, as large as it was (protocol.md section 6).
        case rewritten(MobilePair)
        /// It travels whole, between the two HoAs, in a datagram from an own endpoint to one of the peer's (protocol.md section 11.2).
        case encapsulated(own: Endpoint, peer: Endpoint)
        /// Likewise, to a relay that forwards it (protocol.md section 11.5).
        case relayed(own: Endpoint, relay: Endpoint)

        /// Of the header that the network sees.
        public var family: AddressFamily { own.family }

        /// The own address that packets leave from, on whose link they go.
        public var own: MobileAddress {
            switch self {
            case .rewritten(let mobile): mobile.own
            case .encapsulated(let own, _), .relayed(let own, _): MobileAddress(own.address)
            }
        }

        /// Where the network takes them.
        public var destination: IPAddress {
            switch self {
            case .rewritten(let mobile): mobile.peer.address
            case .encapsulated(_, let peer): peer.address
            case .relayed(_, let relay): relay.address
            }
        }

        /// The ends of the datagrams that packets travel in; `nil` if they are rewritten.
        public var endpoints: (own: Endpoint, far: Endpoint)? {
            switch self {
            case .rewritten: nil
            case .encapsulated(let own, let peer): (own, peer)
            case .relayed(let own, let relay): (own, relay)
            }
        }

        /// Octets that the network sees beside the packet: IP and UDP header.
        public var overhead: UInt32 {
            switch self {
            case .rewritten: 0
            case .encapsulated, .relayed: family == .ipv4 ? 28 : 48
            }
        }

        /// The same from another own address, as after a move; the port stays.
        package func leaving(from own: MobileAddress) -> Way {
            switch self {
            case .rewritten(let mobile): .rewritten(MobilePair(own: own, peer: mobile.peer))
            case .encapsulated(let endpoint, let peer): .encapsulated(own: Endpoint(own.address, port: endpoint.port), peer: peer)
            case .relayed(let endpoint, let relay): .relayed(own: Endpoint(own.address, port: endpoint.port), relay: relay)
            }
        }
    }

    public enum Reason: Hashable, Sendable {
        /// From the own MoA that is preferred for this peer.
        case preferred
        /// From another one, since the preferred one's path to this peer is silent.
        case detour
    }

    /// What every path carries, as far as applications need to know: where it does not pass, the datagram around it is cut up.
    public static let mtuAtFirst: UInt32 = 1280
    /// What Ethernet carries in a datagram over IPv4, and so the most that is tried for.
    public static let mtuUsual: UInt32 = 1472

    public var way: Way
    public var reason: Reason
    /// The largest packet that has been seen to arrive in a datagram, in octets with the IP header; of no meaning for rewritten ones. Below
    /// `mtuAtFirst` the path is so narrow that the datagrams of larger ones are cut up on their way out.
    public var largest: UInt32
    /// Its datagrams have to have a UDP sum, which the kernel's programs can't make: they are the agent's.
    public var needsSum: Bool

    public init(_ way: Way, because reason: Reason = .preferred, largest: UInt32 = Carriage.mtuAtFirst, needsSum: Bool = false) {
        self.way = way
        self.reason = reason
        self.largest = largest
        self.needsSum = needsSum
    }

    public static func rewritten(_ mobile: MobilePair, because reason: Reason = .preferred) -> Carriage {
        Carriage(.rewritten(mobile), because: reason)
    }

    /// The largest packet that an application may send, by a route whose own limit this is; in octets with the IP header, 0 for the device's
    /// limit.
    public func mtu(over route: UInt32) -> UInt32 {
        guard way.overhead > 0 else { return route }
        let fitting = route == 0 ? largest : min(largest, route - min(route, way.overhead))
        return max(Self.mtuAtFirst, fitting)
    }
}

extension Carriage {
    /// The largest TCP segment that connections ask the other end for, in octets of data. They ask once, when they begin, and the path may carry
    /// more later, or be another one: how large the other end's segments are meanwhile, its own route says.
    package func segment(of home: AddressFamily) -> UInt32 { max(largest, Self.mtuUsual) - (home == .ipv4 ? 40 : 60) }
}

extension Carriage.Way: CustomStringConvertible {
    public var description: String {
        switch self {
        case .rewritten(let mobile): "\(mobile)"
        case .encapsulated(let own, let peer): "\(own) in UDP to \(peer)"
        case .relayed(let own, let relay): "\(own) in UDP to relay \(relay)"
        }
    }
}

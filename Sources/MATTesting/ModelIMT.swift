import IMTPlan
import MATSignal

/// What the kernel holds, as far as a node's core decides it: the two maps, the plain addresses, and their meaning for a packet.
public struct ModelIMT: Sendable {
    public private(set) var outbound: [HomePair: MobilePair] = [:]
    /// How packets leave that are not rewritten.
    public private(set) var encapsulated: [HomePair: Carriage.Way] = [:]
    /// How large these may be.
    public private(set) var largest: [HomePair: UInt32] = [:]
    /// From where encapsulated packets of a peer are taken.
    public private(set) var accepted: [HomePair: [Endpoint]] = [:]
    private(set) var gateways: [HomeAddress: [Endpoint]] = [:]
    public private(set) var own: [MobileAddress: HomeAddress] = [:]
    public private(set) var arrivals: [Arrival: HomeAddress] = [:]
    private var plainUntil: [IPAddress: MonotonicTime] = [:]
    private var openUntil: [IPAddress: MonotonicTime] = [:]
    private var openersHeldUntil: [IPAddress: MonotonicTime] = [:]
    private var connectionsHeldUntil: [HomeAddress: MonotonicTime] = [:]
    /// Changes that a kernel would refuse, or that can't be meant.
    public private(set) var violations: [String] = []

    public init() {}

    /// One transaction. Later changes win, what is missing is removed without complaint: as `IMTKernel.commit` does it.
    public mutating func apply(_ changes: [IMTChange], now: MonotonicTime) {
        for change in changes {
            switch change {
            case .setOutbound(let home, let carriage):
                switch carriage.way {
                case .rewritten(let mobile):
                    check(home, mobile)
                    outbound[home] = mobile
                    encapsulated[home] = nil
                case .encapsulated(let own, let far), .relayed(let own, let far):
                    if own.address.family != far.address.family { violations.append("\(home) over \(carriage.way) mixes IPv4 and IPv6") }
                    encapsulated[home] = carriage.way
                    largest[home] = carriage.largest
                    outbound[home] = nil
                }
            case .removeOutbound(let home): (outbound[home], encapsulated[home]) = (nil, nil)
            case .moveOutbound(let from, let to):
                for (home, mobile) in outbound where mobile.own == from { outbound[home] = MobilePair(own: to, peer: mobile.peer) }
                for (home, way) in encapsulated where way.own == from { encapsulated[home] = way.leaving(from: to) }
            case .setOwn(let moa, let hoa):
                if moa.family != hoa.family { violations.append("\(moa) of \(hoa) mixes IPv4 and IPv6") }
                own[moa] = hoa
            case .removeOwn(let moa): own[moa] = nil
            case .setInbound(let moa, let home):
                if moa.family != home.own.family { violations.append("\(home) from \(moa) mixes IPv4 and IPv6") }
                arrivals[Arrival(peer: moa, own: home.own)] = home.peer
            case .removeInbound(let moa, let own): arrivals[Arrival(peer: moa, own: own)] = nil
            case .accept(let home, let endpoints): accepted[home] = endpoints.isEmpty ? nil : endpoints
            case .acceptGateways(let own, let endpoints): gateways[own] = endpoints.isEmpty ? nil : endpoints
            case .setPlain(let address, let lifetime): plainUntil[address] = now + lifetime
            case .removePlain(let address): plainUntil[address] = nil
            case .letOpen(let address, let lifetime):
                openUntil[address] = now + lifetime
                openersHeldUntil[address] = nil
            case .holdOpeners(let address, let lifetime):
                openersHeldUntil[address] = now + lifetime
                openUntil[address] = nil
            case .askAgain(let address):
                openUntil[address] = nil
                openersHeldUntil[address] = nil
            case .holdConnections(let home, let lifetime): connectionsHeldUntil[home] = now + lifetime
            case .letConnections(let home): connectionsHeldUntil[home] = nil
            // Nothing is captured here that a node has not asked for.
            case .setAlwaysPlain: break
            }
        }
    }

    private mutating func check(_ home: HomePair, _ mobile: MobilePair) {
        let family = home.own.family
        if home.peer.family != family || mobile.own.family != family || mobile.peer.family != family {
            violations.append("\(home) over \(mobile) mixes IPv4 and IPv6")
        }
        if mobile.own == mobile.peer { violations.append("\(home) over \(mobile): a packet to oneself") }
    }

    public func isPlain(_ address: IPAddress, now: MonotonicTime) -> Bool { plainUntil[address].map { $0 > now } ?? false }

    /// Whether what opens a connection from the address passes without a question.
    public func letsOpen(_ address: IPAddress, now: MonotonicTime) -> Bool { openUntil[address].map { $0 > now } ?? false }
    /// Whether it waits until the agent says more.
    public func holdsOpeners(_ address: IPAddress, now: MonotonicTime) -> Bool { openersHeldUntil[address].map { $0 > now } ?? false }

    /// Whether a connection that begins from an own HoA to a peer comes to the agent.
    public func holdsConnections(of home: HomeAddress, now: MonotonicTime) -> Bool { connectionsHeldUntil[home].map { $0 > now } ?? false }

    /// Which pairs of addresses on the wire are translated on arrival, and to whom.
    public var inbound: [MobilePair: HomePair] {
        var result: [MobilePair: HomePair] = [:]
        for (moa, hoa) in own {
            for (arrival, peer) in arrivals where arrival.own == hoa {
                result[MobilePair(own: moa, peer: arrival.peer)] = HomePair(own: hoa, peer: peer)
            }
        }
        return result
    }

    /// Whom a packet is from and for, if it is translated.
    public func home(of mobile: MobilePair) -> HomePair? {
        guard let hoa = own[mobile.own], let peer = arrivals[Arrival(peer: mobile.peer, own: hoa)] else { return nil }
        return HomePair(own: hoa, peer: peer)
    }

    /// What an earlier run left behind.
    public mutating func adopt(outbound: [HomePair: MobilePair], arrivals: [Arrival: HomeAddress], own: [MobileAddress: HomeAddress]) {
        self.outbound = outbound
        self.arrivals = arrivals
        self.own = own
    }
}

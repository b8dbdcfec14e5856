import MATCore
import MATSignal

/// Whose packets travel in datagrams, and between which endpoints: what the agent asks for each packet (protocol.md section 11.2).
///
///     out   inner source an own HoA (or behind it), inner destination a peer with a way  ──► from the own endpoint to the far one
///           any other                                                                    ──► held, as what finds no entry
///
///     in    not exactly one IP packet, or not for an own HoA                ──► dropped and counted
///           source a peer, from an endpoint that is accepted for it         ──► taken; in-path signalling (`InPathMessage`) by the agent
///           source a peer, from another endpoint                            ──► held until that has proven itself
///           source nobody that is known here, from an own gateway           ──► taken, if the agent makes an entry of it
///           source nobody that is known here                                ──► held, and asked about
///
/// It is changed by the same changes as tables and routes, once these are made.
package struct EncapsulationTable {
    /// Endpoints that one peer's packets are taken from: eight of its record, and relays of its record and the own one, four each.
    package static let endpointsMax = 16

    package struct Peer {
        package let pair: HomePair
        /// `nil` for one that is only taken from.
        package fileprivate(set) var endpoints: (own: Endpoint, far: Endpoint)?
        /// The path is narrower than what every path has to carry: datagrams are cut up on their way out.
        package fileprivate(set) var isCutUp = false
        /// The own endpoint's link leads to the far one now; meanwhile another link would take its datagrams, and its network drop them.
        package fileprivate(set) var hasLink = true
        package fileprivate(set) var accepted: [Endpoint] = []
        /// Of packets out and in, those on the present way.
        fileprivate var sentBefore: UInt64 = 0
        package fileprivate(set) var heard: UInt64 = 0
        /// In octets of the inner packets.
        package var packetsOut: UInt64 = 0, octetsOut: UInt64 = 0, packetsIn: UInt64 = 0, octetsIn: UInt64 = 0

        /// A packet came from there.
        package mutating func came(from endpoint: Endpoint, octets: Int) {
            packetsIn &+= 1
            octetsIn &+= UInt64(octets)
            if endpoints?.far == endpoint { heard &+= 1 }
        }

        /// What the present way has carried; `nil` if there is none.
        package var use: PathUse? {
            endpoints.map { PathUse(pair, far: $0.far, sent: packetsOut &- sentBefore, heard: heard, came: packetsIn) }
        }

        fileprivate var isUnused: Bool { endpoints == nil && accepted.isEmpty }
    }

    /// What becomes of a packet that came in a datagram.
    package enum Verdict: Equatable {
        /// The number is the peer's, for `peers`.
        case accepted(Int)
        /// From a peer, but not from an endpoint of it.
        case elsewhere(HomePair)
        case unknown(HomePair)
        /// Likewise, from an own gateway: the agent may make an entry of it at once.
        case ofGateway(HomePair)
        /// Not for an own HoA.
        case notOurs
    }

    private var homes: [HomeAddress]
    private let networks: [IPPrefix]
    private var gateways: [HomeAddress: [Endpoint]] = [:]
    private var slots: ContiguousArray<Peer> = []
    private var free: [Int] = []
    private var index = SlotIndex()
    // Of many packets in a row most are one conversation's.
    private var lastOut: (source: IPAddress, destination: IPAddress, slot: Int)?
    private var lastIn: (source: IPAddress, destination: IPAddress, endpoint: Endpoint, slot: Int)?

    /// - Parameter networks: home prefixes of mobile networks, whose base addresses are among the HoAs.
    package init(homes: [HomeAddress], networks: [IPPrefix] = []) {
        self.homes = homes
        self.networks = networks
    }

    package var isEmpty: Bool { index.count == 0 }
    package var count: Int { index.count }

    // MARK: Questions

    /// A peer by the number that an answer named.
    package subscript(slot: Int) -> Peer {
        _read { yield slots[slot] }
        _modify { yield &slots[slot] }
    }

    package subscript(pair: HomePair) -> Peer? { slot(of: pair).map { slots[$0] } }

    /// All that have a way out or in, in no order that means anything.
    package var peers: some Sequence<Peer> { slots.lazy.filter { !$0.isUnused } }

    /// The peer whose datagrams a packet leaves in; `nil` if it is to be held.
    package mutating func departure(from source: IPAddress, to destination: IPAddress) -> Int? {
        if let last = lastOut, last.destination == destination, last.source == source { return last.slot }
        guard let own = home(of: source), let slot = slot(of: HomePair(own: own, peer: HomeAddress(destination))), slots[slot].endpoints != nil,
            slots[slot].hasLink
        else { return nil }
        lastOut = (source, destination, slot)
        return slot
    }

    package mutating func arrival(from source: IPAddress, to destination: IPAddress, by endpoint: Endpoint) -> Verdict {
        if let last = lastIn, last.source == source, last.destination == destination, last.endpoint == endpoint { return .accepted(last.slot) }
        guard let own = home(of: destination) else { return .notOurs }
        let pair = HomePair(own: own, peer: HomeAddress(source))
        guard let slot = slot(of: pair) else { return gateways[own]?.contains(endpoint) == true ? .ofGateway(pair) : .unknown(pair) }
        guard slots[slot].accepted.contains(endpoint) else { return .elsewhere(pair) }
        lastIn = (source, destination, endpoint, slot)
        return .accepted(slot)
    }

    /// Whether this is an own HoA itself, not one of those behind it.
    package func isHome(_ address: IPAddress) -> Bool { homes.contains { $0.address == address } }

    private func home(of address: IPAddress) -> HomeAddress? {
        if let home = homes.first(where: { $0.address == address }) { return home }
        return networks.first { $0.contains(address) }.map { HomeAddress($0.address) }
    }

    /// A peer's number.
    package func slot(of pair: HomePair) -> Int? {
        index.first(hash: SlotIndex.hash(pair)) { slots[Int($0)].pair == pair }.map { Int($0) }
    }

    // MARK: Changes

    /// Visited homes came or went.
    package mutating func setHomes(_ homes: [HomeAddress]) {
        self.homes = homes
        (lastOut, lastIn) = (nil, nil)
    }

    package static func check(_ pair: HomePair, _ endpoints: [Endpoint]) throws(PlanError) {
        guard pair.own.family == pair.peer.family else { throw PlanError("accept encapsulated packets", "\(pair) mixes IPv4 and IPv6") }
        guard endpoints.count <= endpointsMax else {
            throw PlanError("accept encapsulated packets", "\(endpoints.count) endpoints of \(pair.peer), at most \(endpointsMax)")
        }
    }

    /// Applies the changes in order; those that are of no datagrams change nothing.
    package mutating func apply(_ changes: [IMTChange]) {
        for change in changes {
            switch change {
            case .setOutbound(let pair, let carriage):
                if let endpoints = carriage.way.endpoints {
                    let slot = place(pair)
                    if slots[slot].endpoints?.far != endpoints.far { (slots[slot].sentBefore, slots[slot].heard) = (slots[slot].packetsOut, 0) }
                    slots[slot].endpoints = endpoints
                    slots[slot].isCutUp = carriage.largest < Carriage.mtuAtFirst
                } else {
                    removeWay(pair)
                }
            case .removeOutbound(let pair): removeWay(pair)
            case .moveOutbound(let from, let to):
                for slot in slots.indices where slots[slot].endpoints?.own.address == from.address { slots[slot].endpoints?.own.address = to.address }
            case .acceptGateways(let own, let endpoints): gateways[own] = endpoints.isEmpty ? nil : Array(endpoints.prefix(Self.endpointsMax))
            case .accept(let pair, let endpoints):
                if endpoints.isEmpty {
                    guard let slot = slot(of: pair) else { continue }
                    slots[slot].accepted = []
                    freeIfUnused(slot)
                } else {
                    slots[place(pair)].accepted = endpoints
                }
            default: break
            }
        }
        (lastOut, lastIn) = (nil, nil)
    }

    /// Links came or went: whether a peer's packets leave now, or are held.
    package mutating func setLink(_ pair: HomePair, _ isThere: Bool) {
        guard let slot = slot(of: pair), slots[slot].hasLink != isThere else { return }
        slots[slot].hasLink = isThere
        lastOut = nil
    }

    private mutating func removeWay(_ pair: HomePair) {
        guard let slot = slot(of: pair) else { return }
        slots[slot].endpoints = nil
        freeIfUnused(slot)
    }

    private mutating func place(_ pair: HomePair) -> Int {
        if let known = slot(of: pair) { return known }
        let slot = free.popLast() ?? slots.count
        if slot == slots.count { slots.append(Peer(pair: pair)) } else { slots[slot] = Peer(pair: pair) }
        index.insert(UInt32(slot), hash: SlotIndex.hash(pair))
        return slot
    }

    private mutating func freeIfUnused(_ slot: Int) {
        guard slots[slot].isUnused else { return }
        index.remove(UInt32(slot), hash: SlotIndex.hash(slots[slot].pair))
        free.append(slot)
    }
}

import MATSignal

/// One change of what the kernel translates, routes or lets pass. A list of them is committed as one transaction.
public enum IMTChange: Hashable, Sendable {
    /// Packets between the two HoAs leave as the carriage says; adds or replaces. The route to the peer's HoA that mirrors the way from the
    /// carriage's own address to its destination comes with it, or one into our device, where packets are encapsulated. The HoAs are of
    /// one family; so are the addresses of the network, of the same one unless packets are encapsulated.
    case setOutbound(HomePair, Carriage)
    case removeOutbound(HomePair)
    /// Whatever left from one own MoA now leaves from the other, routes included: one step, whatever the number of peers.
    case moveOutbound(from: MobileAddress, to: MobileAddress)
    /// Packets that arrive at this own MoA are for this own HoA; adds or replaces. Those of unknown sources are questioned.
    case setOwn(MobileAddress, HomeAddress)
    case removeOwn(MobileAddress)
    /// Packets that arrive from this MoA at any MoA of the pair's own HoA are the pair's peer's; adds or replaces.
    case setInbound(peer: MobileAddress, HomePair)
    case removeInbound(peer: MobileAddress, own: HomeAddress)
    /// Encapsulated packets from the pair's peer to its own HoA are taken if they come from one of these endpoints (protocol.md section
    /// 11.2); replaces those of before, and none at all makes the peer unknown. At most `EncapsulationTable.endpointsMax`.
    case accept(HomePair, from: [Endpoint])
    /// Packets to the own HoA from sources without an entry are taken if they come from one of these endpoints, once the agent has made an entry
    /// of it (section 11.2, own relays that are gateways); replaces those of before. At most `EncapsulationTable.endpointsMax`.
    case acceptGateways(HomeAddress, from: [Endpoint])
    /// The address is no MAT node's HoA, as far as is known now: traffic to it leaves by the main routing table, and packets
    /// from it pass without a question, until removed or for the time given; but for those that open a connection (`letOpen`): they would
    /// be plain for their life, and whose the address is may change at any time.
    case setPlain(IPAddress, lifetime: Duration)
    case removePlain(IPAddress)
    /// Our IMS knows no HoA for the address: what opens a connection from it passes for so long. All else is questioned as ever.
    case letOpen(IPAddress, lifetime: Duration)
    /// Whose the address is, is being confirmed: what opens a connection from it waits, for so long at most.
    case holdOpeners(IPAddress, lifetime: Duration)
    /// Forgets both.
    case askAgain(IPAddress)
    /// The HoA has moved, and peers may not have heard: connections that it begins to peers by rewriting are copied to the agent, which sends them
    /// when the peer knows, for so long at most.
    case holdConnections(of: HomeAddress, lifetime: Duration)
    /// They go by themselves again.
    case letConnections(of: HomeAddress)
    /// Replaces the destinations that are never captured and the sources that are never questioned: resolvers, IMSs and the like. At most
    /// `IMTConfiguration.alwaysPlainMax`.
    case setAlwaysPlain([IPPrefix])
}

extension [IMTChange] {
    /// What is always plain after these changes, if they say so.
    package var alwaysPlain: [IPPrefix]? {
        for case .setAlwaysPlain(let prefixes) in reversed() { return prefixes }
        return nil
    }
}

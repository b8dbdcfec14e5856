import MATSignal

/// One change of what the kernel translates, routes or lets pass. A list of them is committed as one transaction.
public enum IMTChange: Hashable, Sendable {
    /// Packets between the two HoAs leave between the two MoAs; adds or replaces. The route to the peer's HoA that
    /// mirrors the kernel's route from the own MoA to the peer's MoA comes with it. All four addresses are of one family.
    case setOutbound(HomePair, MobilePair)
    case removeOutbound(HomePair)
    /// Packets that arrive between the two MoAs are delivered between the two HoAs; adds or replaces.
    case setInbound(MobilePair, HomePair)
    case removeInbound(MobilePair)
    /// The address is no MAT node's HoA, as far as is known now: traffic to it leaves by the main routing table, and packets
    /// from it pass without a question, until removed or for the time given.
    case setPlain(IPAddress, lifetime: Duration)
    case removePlain(IPAddress)
}

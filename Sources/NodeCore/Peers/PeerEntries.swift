import IMTPlan
import MATSignal

/// What the kernel has of a peer, or is to have: where its packets come from, and where packets to it go.
struct PeerEntries: Hashable, Sendable {
    /// Places from which packets are taken for the peer's.
    var inbound: Set<MobileAddress> = []
    /// The pair of addresses that packets to it travel between.
    var outbound: MobilePair?

    /// What makes these of the earlier ones. Accept first, send after, take away last: within one transaction it is all one, but routes are not
    /// part of it.
    ///
    /// - Parameters:
    ///   - reason: why packets to it travel between those addresses.
    ///   - stale: places of an earlier run that are to go, if they are not among these.
    ///   - isOutboundStale: an earlier run had an entry for packets to it, which is to go if there is none now.
    func changes(
        from before: PeerEntries, of pair: HomePair, because reason: Carriage.Reason, stale: Set<MobileAddress>, isOutboundStale: Bool
    ) -> [IMTChange] {
        var changes = inbound.subtracting(before.inbound).sorted().map { IMTChange.setInbound(peer: $0, pair) }
        if let outbound, outbound != before.outbound {
            changes.append(.setOutbound(pair, .rewritten(outbound, because: reason)))
        } else if outbound == nil, before.outbound != nil {
            changes.append(.removeOutbound(pair))
        }
        changes += before.inbound.union(stale).subtracting(inbound).sorted().map { .removeInbound(peer: $0, own: pair.own) }
        if outbound == nil, isOutboundStale { changes.append(.removeOutbound(pair)) }
        return changes
    }
}

import IMTPlan
import MATCore
import MATSignal

// Movement (paper 4.3): what to do when our own addresses change. With overlap the old address goes on working until each
// peer has acked the new one; without, everything happens at once from the new address.

extension NodeCore {
    /// Takes over the usable locators, orders them, and hands over if the first of a family changed.
    mutating func adopt(_ locators: [OwnLocator], _ now: Now) {
        let before = ownLocators
        uplinksChanged(
            gone: systemLocators.filter { old in !locators.contains { $0.isSame(as: old) } },
            new: locators.filter { new in !systemLocators.contains { $0.isSame(as: new) } }, now)
        systemLocators = locators
        ownLocators = ordered(locators)
        // From a dead address nothing can be sent, no more than from one that is gone; but what still comes there is accepted.
        let dead = Set(ownLocators.map(\.moa).filter { ways.uplinks[$0]?.isDead == true })
        defer { leftAddresses = dead }
        guard ownLocators != before else {
            // It was not the first, and still some peers' traffic left from it.
            if !dead.isSubset(of: leftAddresses) {
                for hoa in homes.keys.sorted() { movePaths(of: hoa, gone: dead, isWhole: false, now) }
                flushChanges()
            }
            return
        }
        let gone = Set(before.map(\.moa)).subtracting(ownLocators.map(\.moa)).union(dead)
        applyOwn()
        for ipv4 in [true, false] {
            let old = before.map(\.moa).filter { $0.isIPv4 == ipv4 }
            let new = ownMoAs(ipv4: ipv4)
            if old != new { moved(ipv4: ipv4, from: old, to: new, gone: gone, now) }
        }
        // An own address is no peer's locator.
        reconsider(Set(before.map(\.moa.address)).symmetricDifference(ownLocators.map(\.moa.address)), now)
        if Self.scopes(before) != Self.scopes(ownLocators) {
            if peers.count <= Backlog.atOnceMax { reconsiderScope(now) } else { deadlines.set(.scope, at: now.monotonic) }
        }
    }

    /// Looks again at the peers that list these addresses as their locators.
    mutating func reconsider(_ addresses: Set<IPAddress>, _ now: Now) {
        for address in addresses.sorted() {
            for claimant in peers.claimants(of: MobileAddress(address)) { applyPeer(claimant, now) }
        }
    }

    private struct FamilyScope: Hashable {
        let isIPv4: Bool
        let scope: AddressScope
    }

    /// Which scopes own addresses have, by family: only of these, peers' are used without being named as routed.
    private static func scopes(_ locators: [OwnLocator]) -> Set<FamilyScope> {
        Set(locators.map { FamilyScope(isIPv4: $0.moa.isIPv4, scope: $0.moa.address.scope) }.filter { $0.scope != .global })
    }

    /// Looks again at the peers with locators of other than global scope.
    mutating func reconsiderScope(_ now: Now) {
        let affected = peers.slots.compactMap { slot in
            peers[slot].flatMap { peer in peer.locators.contains { $0.moa.address.scope != .global } ? peer.hoa : nil }
        }
        for peer in affected { applyPeer(peer, now) }
    }

    /// Tells the kernel which addresses are ours to be reached at, and as whom.
    private mutating func applyOwn() {
        var wanted: [MobileAddress: HomeAddress] = [:]
        for hoa in homes.keys { for moa in desiredLocators(of: hoa) { wanted[moa] = hoa } }
        for (moa, hoa) in wanted.sorted(by: { $0.key < $1.key }) where installedOwn[moa] != hoa { change(.setOwn(moa, hoa)) }
        for moa in installedOwn.keys.sorted() where wanted[moa] == nil { change(.removeOwn(moa)) }
        installedOwn = wanted
    }

    private mutating func moved(ipv4: Bool, from old: [MobileAddress], to new: [MobileAddress], gone: Set<MobileAddress>, _ now: Now) {
        guard let hoa = homes.keys.first(where: { $0.isIPv4 == ipv4 }) else { return }
        let places = new.map(\.description).joined(separator: ", ")
        guard let first = new.first else {
            log(.warning, "\(hoa) has no usable address now; packets are held until there is one")
            // Their entries stay: without a link to leave by, packets fall back into the agent's hands, and the next address
            // takes all entries over in one step.
            homes[hoa]?.phase = .waiting
            return
        }
        let isHandover = old.first != first && !(old.isEmpty && homes[hoa]?.registered == nil)
        let hasOverlap = old.first.map { !gone.contains($0) } ?? false
        if isHandover {
            counters.handovers += 1
            log(.notice, "handover of \(hoa): \(old.first?.description ?? "nowhere") -> \(first)\(hasOverlap ? " with overlap" : " without overlap") (\(places))")
        } else {
            log(.info, "\(hoa) can be reached at \(places)")
        }
        homes[hoa]?.unproven = []
        if ways.uplinks[first]?.isRefused != true { homes[hoa]?.failures = 0 }
        // Peers with a preference of their own switch when they know of an address, whether or not it is the first.
        if isHandover || hasPreferences && homes[hoa]?.registered != nil {
            homes[hoa]?.owesPeers = true
            homes[hoa]?.move &+= 1
        }
        // One step, whatever the number of peers, in one transaction with what we accept. Telling them is another matter.
        movePaths(of: hoa, gone: gone, isWhole: !hasOverlap, now)
        flushChanges()
        exchanges.cancel(from: gone)
        if !hasOverlap { resendAll(now) }
        register(hoa, now)
        checkNewUplink(first, now)
        // The overlap may end before our IMS or the peers have answered.
        let isCutShort = homes[hoa]?.owesPeers == true && gone.contains { ways.uplinks[$0]?.isDead != true }
        if isHandover && !hasOverlap || isCutShort { tellAtOnce(hoa, first, now) }
        flushChanges()
        if !peers.isEmpty { emit(.releaseRouted) }
        continueResolving(hoa.family, now)
    }

    /// Lets peers' traffic leave from our first address: all of it, or just what left from addresses that are gone or dead. Peers for
    /// whom something else was said, or was found to work, are looked at one by one.
    private mutating func movePaths(of hoa: HomeAddress, gone: Set<MobileAddress>, isWhole: Bool, _ now: Now) {
        let usable = desiredLocators(of: hoa)
        guard let first = usable.first else { return }
        let hasExceptions = hasPreferences || !ways.detours.isEmpty
        var moved: Set<UInt8> = []
        for moa in ownPaths.addresses(of: hoa).sorted() where moa != first {
            guard gone.contains(moa) || !usable.contains(moa) || isWhole && !hasExceptions else { continue }
            moved.formUnion(ownPaths.numbers(of: moa, hoa))
            change(.moveOutbound(from: moa, to: first))
            ownPaths.move(moa, to: first, of: hoa)
        }
        let entering = pathless.filter { home(for: $0) == hoa }
        pathless.subtract(entering)
        for peer in entering.sorted() { applyPeer(peer, now) }
        guard hasExceptions else { return }
        for slot in Array(peers.slots) {
            guard let peer = peers[slot], home(for: peer.hoa) == hoa else { continue }
            guard ways.detours[peer.hoa] != nil || isWhole || moved.contains(peer.path) else { continue }
            if isWhole || moved.contains(peer.path), let own = preferredOwnMoA(for: peer.hoa), ownPaths[peer.path] != own {
                let path = pathNumber(of: own, hoa)
                peers[peer.hoa]?.path = path
            }
            applyPeer(peer.hoa, now)
        }
    }

    /// Nothing works any more from the old address, so nothing is waited for: peers get a record from the new address at once,
    /// before the IMS has it. If further locators are still being proven, another record follows when that is done.
    private mutating func tellAtOnce(_ hoa: HomeAddress, _ first: MobileAddress, _ now: Now) {
        if homes[hoa]?.mapping?.record.locators.first?.moa != first {
            guard var home = homes[hoa], sign(&home, listedLocators(of: home), now) else { return }
            homes[hoa] = home
            emit(.remember(hoa, sequence: home.lastSequence))
        }
        let willSignAgain = homes[hoa]?.phase != .updating
        homes[hoa]?.owesPeers = willSignAgain
        // What they have acked so far was another record.
        homes[hoa]?.move &+= 1
        tell(hoa, [.tellPeer, .tellServer, .subscribe], now)
    }

    /// Our IMS holds our new record: peers and their IMSs can be told.
    mutating func registrationDone(_ hoa: HomeAddress, _ now: Now) {
        continueResolving(hoa.family, now)
        guard homes[hoa]?.owesPeers == true else { return }
        homes[hoa]?.owesPeers = false
        // What they have acked so far was another record.
        homes[hoa]?.move &+= 1
        tell(hoa, [.tellPeer, .tellServer, .subscribe], now)
    }

    /// Lets a peer's traffic leave from the preferred own address.
    mutating func switchPeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let own = home(for: hoa), let first = preferredOwnMoA(for: hoa), ownPaths[peer.path] != first else { return }
        let path = pathNumber(of: first, own)
        peers[hoa]?.path = path
        applyPeer(hoa, now)
        log(peers.count <= Self.peersLoggedMax ? .info : .debug, "traffic to \(hoa) leaves from \(first)")
    }

    /// With more peers than this, what happens to each alone is no news for the log.
    static let peersLoggedMax = 256

    /// The number by which peers know an own address that their traffic leaves from.
    mutating func pathNumber(of moa: MobileAddress, _ own: HomeAddress) -> UInt8 {
        let peers = peers
        return ownPaths.number(of: moa, own) {
            Set(peers.slots.flatMap { slot in peers[slot].map { [$0.path, $0.installedPath] } ?? [] })
        }
    }

    /// Where the kernel sends the peer's packets, and from where; `nil` if it has no entry.
    func installedOutbound(of peer: Peer) -> MobilePair? {
        guard let own = ownPaths[peer.installedPath], let target = peer.locators.first(where: { $0.roles.contains(.target) }) else { return nil }
        return MobilePair(own: own, peer: target.moa)
    }

    /// Someone has a record of ours that is newer than ours: sign one beyond it.
    mutating func signBeyond(_ own: HomeAddress, _ sequence: UInt64, _ now: Now) {
        guard var home = homes[own], sequence >= home.lastSequence, let most = clock.sequenceMax(now), sequence < most else { return }
        home.lastSequence = sequence
        home.owesPeers = true
        homes[own] = home
        register(own, now)
    }
}

import IMTKernel
import MATSignal

// Movement (paper 4.3): what to do when our own addresses change. With overlap the old address goes on working until each
// peer has acked the new one; without, everything happens at once from the new address.

extension NodeCore {
    /// Takes over the usable locators, orders them, and hands over if the first of a family changed.
    mutating func adopt(_ locators: [OwnLocator], _ now: Now) {
        let before = ownLocators
        uplinksChanged(gone: systemLocators.filter { !locators.contains($0) }, new: locators.filter { !systemLocators.contains($0) }, now)
        systemLocators = locators
        ownLocators = ordered(locators)
        guard ownLocators != before else { return }
        // From a dead address nothing can be sent, no more than from one that is gone; but what still comes there is accepted.
        let dead = Set(ownLocators.map(\.moa).filter { ways.uplinks[$0]?.isDead == true })
        let gone = Set(before.map(\.moa)).subtracting(ownLocators.map(\.moa)).union(dead)
        applyOwn()
        for ipv4 in [true, false] {
            let old = before.map(\.moa).filter { $0.isIPv4 == ipv4 }
            let new = ownMoAs(ipv4: ipv4)
            if old != new { moved(ipv4: ipv4, from: old, to: new, gone: gone, now) }
        }
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
            homes[hoa]?.phase = .waiting
            for peer in peers.keys where peer.isIPv4 == ipv4 { applyPeer(peer, now) }
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
        homes[hoa]?.failures = 0
        // Peers with a preference of their own switch when they know of an address, whether or not it is the first.
        if isHandover || hasPreferences && homes[hoa]?.registered != nil { homes[hoa]?.owesPeers = true }

        // Without overlap nobody's traffic waits for anything: one step for all peers, before each is looked at.
        if let left = old.first, left != first, !hasOverlap {
            change(.moveOutbound(from: left, to: first))
            flushChanges()
            for peer in peers.keys where peers[peer]?.installedOutbound?.own == left {
                peers[peer]?.installedOutbound?.own = first
                peers[peer]?.switches += 1
            }
        }
        // The kernel accepts at the new address before anyone is told of it.
        let affected = peers.keys.filter { $0.isIPv4 == ipv4 }.sorted()
        for peer in affected {
            if isHandover {
                peers[peer]?.knowsUs = false
                peers[peer]?.notifyFailures = 0
            }
            if !hasOverlap || peers[peer]?.ownMoA.map(gone.contains) ?? true {
                let own = preferredOwnMoA(for: peer) ?? first
                peers[peer]?.ownMoA = own
            }
            applyPeer(peer, now)
        }
        for exchange in exchanges.values where exchange.source.map({ gone.contains(MobileAddress($0)) }) ?? false { cancel(exchange.purpose) }
        if !hasOverlap { resendAll(now) }
        register(hoa, now)
        checkNewUplink(first, now)
        // The overlap may end before our IMS or the peers have answered.
        let isCutShort = homes[hoa]?.owesPeers == true && gone.contains { ways.uplinks[$0]?.isDead != true }
        if isHandover && !hasOverlap || isCutShort { tellAtOnce(hoa, first, now) }
        flushChanges()
        for peer in affected where peers[peer]?.installedOutbound != nil { emit(.releaseOutbound(to: peer.address)) }
        for destination in destinations.keys where destination.isIPv4 == ipv4 { continueResolving(destination, now) }
    }

    /// Nothing works any more from the old address, so nothing is waited for: peers get a record from the new address at once,
    /// before the IMS has it. If further locators are still being proven, another record follows when that is done.
    private mutating func tellAtOnce(_ hoa: HomeAddress, _ first: MobileAddress, _ now: Now) {
        if homes[hoa]?.mapping?.record.locators.first?.moa != first {
            guard var home = homes[hoa], sign(&home, desiredLocators(of: hoa), now) else { return }
            homes[hoa] = home
            emit(.remember(hoa, sequence: home.lastSequence))
        }
        let willSignAgain = homes[hoa]?.phase != .updating
        homes[hoa]?.owesPeers = willSignAgain
        tellPeers(hoa, now)
        tellServers(hoa, now)
    }

    /// Our IMS holds our new record: peers and their IMSs can be told.
    mutating func registrationDone(_ hoa: HomeAddress, _ now: Now) {
        for destination in destinations.keys where destination.isIPv4 == hoa.isIPv4 { continueResolving(destination, now) }
        guard homes[hoa]?.owesPeers == true else { return }
        homes[hoa]?.owesPeers = false
        tellPeers(hoa, now)
        tellServers(hoa, now)
    }

    /// MA Notify directly to each peer; its ack lets that peer's traffic switch.
    mutating func tellPeers(_ hoa: HomeAddress, _ now: Now) {
        for peer in peers.keys.sorted() where peer.isIPv4 == hoa.isIPv4 { tellPeer(peer, now) }
    }

    /// MA Notify to where the peer is, or was last.
    mutating func tellPeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        guard let target = outboundLocator(of: peer) ?? peer.listed.first, !isOwn(target.address) else {
            switchPeer(hoa, now)
            return
        }
        // A peer that only a detour reaches is told by it.
        let source = ways.detours[hoa]?.own == nil ? nil : ownMoA(of: peer)?.address
        start(.notifyPeer(hoa), .maNotify, to: [Endpoint(signallingAddress(of: target, hoa), port: SignalPort.node)], source: source, triesMax: Retransmission.failoverTry, now)
    }

    /// HA Notify to each peer's IMS, and the subscription again from the new address, which also finds a peer that moved at
    /// the same time.
    private mutating func tellServers(_ hoa: HomeAddress, _ now: Now) {
        for peer in peers.keys.sorted() where peer.isIPv4 == hoa.isIPv4 {
            guard let servers = knownServers(of: peer, now) else {
                lookUp(peer, for: .peer, now)
                continue
            }
            notifyServers(of: peer, servers, now)
            start(.queryPeer(peer), .maQuery, to: servers.endpoints, now)
        }
    }

    /// HA Notify, from a locator that our record lists: an IMS_CN believes a notifier only at such a source (section 7 (3)).
    mutating func notifyServers(of peer: HomeAddress, _ servers: ServerSet, _ now: Now) {
        guard let own = home(for: peer), let source = desiredLocators(of: own).first else { return }
        let targets = servers.endpoints.filter { $0.address.isIPv4 == source.isIPv4 }
        guard !targets.isEmpty else {
            serverNotified(peer, nil, "it has no \(source.isIPv4 ? "IPv4" : "IPv6") address", now)
            return
        }
        start(.notifyServer(peer), .haNotify, to: targets, now)
    }

    /// A peer acked our record, refused it, or stayed silent (`nil`) for the three tries of section 7: in each case its
    /// traffic follows.
    mutating func peerNotified(_ hoa: HomeAddress, _ ack: MANotifyAck?, _ now: Now) {
        guard peers[hoa] != nil else { return }
        if let ack {
            switch ack.code {
            case .ok:
                peers[hoa]?.knowsUs = true
            case .stale:
                // Believed only with our own signature: anyone could name a sequence that nothing can go beyond.
                if let own = home(for: hoa), let current = ack.current, current.record.hoa == own, let home = homes[own],
                    (try? CertifiedMapping(mapping: current, certificate: home.certificate).verifySignature()) != nil
                {
                    goBeyond(own, current.record.sequence, now)
                }
            default:
                log(.info, "peer \(hoa) did not take our record: \(ack.code)\(ack.text.map { " (\($0))" } ?? ""); it will learn it from our IMS")
            }
        } else {
            log(.info, "peer \(hoa) did not ack our record; it will learn it from our IMS")
        }
        switchPeer(hoa, now)
    }

    /// Lets a peer's traffic leave from the preferred own address.
    mutating func switchPeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let first = preferredOwnMoA(for: hoa), peer.ownMoA != first else { return }
        peers[hoa]?.ownMoA = first
        applyPeer(hoa, now)
        log(.info, "traffic to \(hoa) leaves from \(first)")
    }

    /// Someone has a record of ours that is newer than ours: sign one beyond it.
    private mutating func goBeyond(_ own: HomeAddress, _ sequence: UInt64, _ now: Now) {
        guard var home = homes[own], sequence >= home.lastSequence, sequence <= Self.sequenceMax(now) else { return }
        home.lastSequence = sequence
        home.owesPeers = true
        homes[own] = home
        register(own, now)
    }
}

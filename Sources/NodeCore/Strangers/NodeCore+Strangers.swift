import MATCore
import MATSignal

// What comes of unknown sources: what `Strangers` is told of them, and what is done about what it says.

extension NodeCore {
    /// A packet of a source that the kernel's map does not have is held.
    mutating func identify(_ packet: Strangers.Packet, _ now: Now) {
        let moa = packet.source
        if let holder = peers.holder(of: moa), let peer = peers[holder], peer.locators.has(moa, .accepted) {
            // It was on its way when the entry was made.
            admit(moa, at: packet.own)
            return
        }
        for claimant in peers.claimants(of: moa) { checkRefused(claimant, at: moa, now) }
        perform(
            strangers.hold(
                packet, canAsk: strangers.mayAsk(because: packet, now: now.monotonic) && question(about: moa) != nil,
                openersWait: packet.opensConnection ? openersWait() : .zero, hasPeers: hasPeers(like: moa), now: now.monotonic),
            now)
    }

    mutating func strangerAnswered(_ moa: MobileAddress, _ answer: HAAnswer?, _ now: Now) {
        perform(strangers.answered(moa, answer, surroundings(of: moa), now: now.monotonic), now)
    }

    mutating func strangerDue(_ moa: MobileAddress, _ now: Now) { perform(strangers.due(moa, surroundings(of: moa), now: now.monotonic), now) }

    /// A peer that listed the address is not there: nothing more is waited for.
    mutating func settleClaimed(_ moa: MobileAddress, _ now: Now) {
        if !strangers.isEmpty { perform(strangers.settle(moa, surroundings(of: moa), now: now.monotonic), now) }
    }

    /// The HoA that our IMS named for some strangers is not theirs: its own IMS says so.
    mutating func strangersAreNot(_ hoa: HomeAddress, _ now: Now) {
        for moa in strangers.named(hoa) { perform(strangers.denied(moa, by: hoa, surroundings(of: moa), now: now.monotonic), now) }
    }

    /// A question to a peer's IMS has had its answer or its end.
    mutating func settleStrangers(askedFor hoa: HomeAddress, _ now: Now) {
        for moa in strangers.waiting(for: hoa) { perform(strangers.settle(moa, surroundings(of: moa), now: now.monotonic), now) }
    }

    /// Strangers that have become known as this peer's places are none any more.
    mutating func releaseKnownStrangers(of hoa: HomeAddress, _ now: Now) {
        guard !strangers.isEmpty, let peer = peers[hoa] else { return }
        for locator in peer.locators where locator.roles.isSuperset(of: [.claimed, .accepted]) { perform(strangers.identified(locator.moa), now) }
    }

    // MARK: What Strangers asks for

    /// Entries of an earlier run tell of peers too, who are being asked for.
    private func hasPeers(like moa: MobileAddress) -> Bool { peers.count(of: moa.family) > 0 || adoption.hasEntries }

    private func surroundings(of moa: MobileAddress) -> Strangers.Surroundings {
        Strangers.Surroundings(
            hasPeers: hasPeers(like: moa), isBeingChecked: isBeingChecked(moa),
            isAskingSuspects: strangers.suspects(of: moa).contains { isUnderWay(.queryPeer($0)) })
    }

    /// Two smoothed round trips to our IMS (section 7): twice what its answer needs, so that one which is a little late is still in time.
    private func openersWait() -> Duration {
        let roundTrip = homes.keys.sorted().compactMap { homes[$0]?.servers?.endpoints.first }.compactMap { servers.roundTrip($0.address) }.max()
        // Not known yet: as for a request's first repetition.
        return min(configuration.strangerWaitMax, max(configuration.strangerWaitMin, (roundTrip ?? .milliseconds(125)) * 2))
    }

    /// Whom to ask about it, and from which address; `nil` while this node is not registered.
    private func question(about moa: MobileAddress) -> (servers: [Endpoint], source: IPAddress?)? {
        guard let hoa = home(in: moa.family), let home = homes[hoa], home.isKnown, let set = home.servers,
            let source = desiredLocators(of: hoa).first
        else { return nil }
        let targets = set.endpoints.filter { $0.family == source.family }
        return targets.isEmpty ? (set.endpoints, nil) : (targets, source.address)
    }

    // MARK: What Strangers wants done

    mutating func perform(_ actions: [Strangers.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .pass(let moa, let own): emit(.releaseInbound(from: moa.address, to: own))
            case .passOpeners(let moa, let own): emit(.releaseOpeners(from: moa.address, to: own))
            case .drop(let moa, let own): emit(.dropInbound(from: moa.address, to: own))
            case .admit(let moa, let own): admit(moa, at: own)
            case .ask(let moa): ask(about: moa, now)
            case .confirm(let hoa, let record, let moa):
                lookUp(hoa, for: .record(PendingRecord(record: record, hoa: hoa, stranger: moa, ack: nil)), now)
            case .suspectLoss(let family): if let own = home(in: family) { suspectLoss(of: own, now) }
            case .change(let change): self.change(change)
            case .commit: flushChanges()
            case .wake(let moa, let time): deadlines.set(.stranger(moa), at: time)
            case .stopWaiting(let moa):
                deadlines.cancel(.stranger(moa))
                cancel(.identify(moa))
            case .count(let counter): counters[keyPath: counter] += 1
            case .log(let level, let text): log(level, text)
            }
        }
    }

    /// Our IMS is asked whose it is, and the peers' that may have moved there whether they have.
    private mutating func ask(about moa: MobileAddress, _ now: Now) {
        guard let question = question(about: moa) else { return }
        start(.identify(moa), to: question.servers, source: question.source, now)
        let suspects = busiest.suspects(for: moa, in: peers, now: now.monotonic)
        strangers.suspect(suspects, of: moa)
        for peer in suspects where !isUnderWay(.queryPeer(peer)) { query(peer, now) }
    }

    /// Lets in what a peer sent to an own address, if that address is still ours: without an entry for the pair it would come in
    /// untranslated, and be answered by a reset.
    private mutating func admit(_ moa: MobileAddress, at own: IPAddress) {
        let isEntered = peers.claimants(of: moa).contains { peers[$0]?.locators.has(moa, .accepted) ?? false }
        emit(isEntered && isReachable(at: own) ? .releaseInbound(from: moa.address, to: own) : .dropInbound(from: moa.address, to: own))
    }
}

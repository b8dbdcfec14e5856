import IMTKernel
import MATSignal

// Unknown sources (paper 4.2 (6), (7)): a packet from a MoA that the IMT does not know waits while our IMS is asked whose it is.

/// A source that packets are held from.
struct Stranger: Sendable {
    let started: MonotonicTime
    /// When what has not been let in by then is dropped, or judged anew.
    var due: MonotonicTime
    /// The own addresses that it sent to.
    var owns: Set<IPAddress>
    /// Every packet of it so far could be a plain stranger's first.
    var opensConnection: Bool
    /// When the packets that open connections pass, whatever is known then; `nil` while there are none that wait for that.
    var openersDue: MonotonicTime?
    /// They have waited for our IMS long enough: others pass as they come, until it answers.
    var isWaitOver = false
    /// A packet of it would be answered with a reset if it passed as plain.
    var mayBeReset: Bool
    /// The HoA that our IMS says it is; to be confirmed by that HoA's IMS.
    fileprivate(set) var candidate: HomeAddress?
    /// Peers whose IMSs' answers its fate waits for: one of them may have moved there.
    fileprivate(set) var suspects: [HomeAddress] = []
    /// Our IMS knows no HoA for it.
    var isNotFound = false
    /// Until when that may be remembered.
    var plainUntil = MonotonicTime.zero
    /// The kernel was told that what opens a connection passes.
    fileprivate(set) var isOpen = false

    static let ownsMax = 8
}

extension NodeCore {
    /// Active peers asked at a stranger's packet: one of them may have moved.
    static let peersAskedMax = 8
    /// Peers among which those are chosen: the busiest, if there are many.
    static let busiestMax = 64

    /// Keeps those with the most packets.
    static func keepBusiest(_ busy: inout [Busy], _ peer: Busy) {
        guard busy.count >= busiestMax else {
            busy.append(peer)
            return
        }
        guard let least = busy.indices.max(by: { Self.isBusier(busy[$0], busy[$1]) }), Self.isBusier(peer, busy[least]) else { return }
        busy[least] = peer
    }

    typealias Busy = (packets: UInt64, hoa: HomeAddress)

    /// The order does not depend on the one in which the kernel counts.
    static func isBusier(_ a: Busy, _ b: Busy) -> Bool { (b.packets, a.hoa) < (a.packets, b.hoa) }

    /// The peers that may have moved to a stranger's address, the likeliest first.
    private func suspects(for moa: MobileAddress, _ now: Now) -> [HomeAddress] {
        let some = peers.count <= Self.busiestMax ? peers.slots.compactMap { peers[$0] } : busiest.compactMap { peers[$0] }
        return some.filter { $0.hoa.isIPv4 == moa.isIPv4 && now.monotonic - $0.refreshed > .seconds(1) }
            .sorted { ($1.lastTraffic, $0.hoa) < ($0.lastTraffic, $1.hoa) }.prefix(Self.peersAskedMax).map(\.hoa)
    }

    /// Forgets a stranger, and what was noted of it elsewhere.
    @discardableResult
    private mutating func removeStranger(_ moa: MobileAddress) -> Stranger? {
        guard let stranger = strangers.removeValue(forKey: moa) else { return nil }
        setCandidate(nil, from: stranger.candidate, moa)
        for suspect in stranger.suspects {
            suspicions[suspect]?.remove(moa)
            if suspicions[suspect]?.isEmpty ?? false { suspicions[suspect] = nil }
        }
        deadlines.cancel(.stranger(moa))
        cancel(.identify(moa))
        return stranger
    }

    private mutating func setCandidate(_ new: HomeAddress?, from old: HomeAddress?, _ moa: MobileAddress) {
        if let old {
            candidates[old]?.remove(moa)
            if candidates[old]?.isEmpty ?? false { candidates[old] = nil }
        }
        if let new { candidates[new, default: []].insert(moa) }
        strangers[moa]?.candidate = new
    }

    mutating func identify(_ moa: MobileAddress, at own: IPAddress, _ opensConnection: Bool, _ isSegment: Bool, _ now: Now) {
        if let holder = peers.holder(of: moa), let peer = peers[holder], peer.locators.has(moa, .accepted) {
            letIn(moa, at: own, of: peer)
            return
        }
        for claimant in peers.claimants(of: moa) { checkRefused(claimant, at: moa, now) }
        if strangers[moa] != nil {
            join(moa, at: own, opensConnection, isSegment, now)
            return
        }
        if let until = plainSources[moa], until > now.monotonic, !(isSegment && hasPeers(like: moa)) {
            // The kernel still asks about packets that the stack would answer.
            emit(.releaseInbound(from: moa.address, to: own))
            return
        }
        let question = question(about: moa)
        let isAsked = question != nil && strangers.count < configuration.strangersMax && mayAsk(opensConnection, now)
        if opensConnection && !isAsked {
            // Nobody to ask (HA Query is answered to registered locators only), or no room, or a flood: it passes, and nothing is
            // remembered; a flood must cost the kernel no transactions. The kernel lets others of this source pass by itself.
            counters.strangersPlain += 1
            notePassed(moa, until: now.monotonic)
            emit(.releaseInbound(from: moa.address, to: own))
            return
        }
        guard strangers.count < configuration.strangersMax else {
            // What does not open a connection is dropped, never answered.
            emit(.dropInbound(from: moa.address, to: own))
            return
        }
        strangers[moa] = Stranger(
            started: now.monotonic, due: now.monotonic + configuration.strangerHoldMax, owns: [own],
            opensConnection: opensConnection, openersDue: opensConnection ? now.monotonic + openersWait() : nil, mayBeReset: isSegment)
        armStranger(moa)
        // Without a question it waits for a MA Notify.
        guard isAsked, let question else { return }
        counters.strangersAsked += 1
        start(.identify(moa), .haQuery, to: question.servers, source: question.source, now)
        let suspects = suspects(for: moa, now)
        strangers[moa]?.suspects = suspects
        for peer in suspects {
            suspicions[peer, default: []].insert(moa)
            if !isUnderWay(.queryPeer(peer)) { query(peer, now) }
        }
    }

    /// Another packet of a stranger that is being found out about.
    private mutating func join(_ moa: MobileAddress, at own: IPAddress, _ opensConnection: Bool, _ isSegment: Bool, _ now: Now) {
        guard var stranger = strangers[moa] else { return }
        if stranger.owns.count < Stranger.ownsMax { stranger.owns.insert(own) }
        stranger.mayBeReset = stranger.mayBeReset || isSegment
        stranger.opensConnection = stranger.opensConnection && opensConnection
        if opensConnection {
            if stranger.isNotFound || stranger.isWaitOver && stranger.candidate == nil {
                emit(.releaseOpeners(from: moa.address, to: own))
            } else if stranger.candidate == nil, stranger.openersDue == nil {
                // A segment was first, and our IMS is being asked because of it.
                stranger.openersDue = now.monotonic + openersWait()
            }
        }
        strangers[moa] = stranger
        armStranger(moa)
    }

    private mutating func armStranger(_ moa: MobileAddress) {
        guard let stranger = strangers[moa] else { return }
        deadlines.set(.stranger(moa), at: min(stranger.due, stranger.openersDue ?? stranger.due))
    }

    /// Two smoothed round trips to our IMS (section 7): twice what its answer needs, so that one which is a little late is still in time.
    private func openersWait() -> Duration {
        let roundTrip = homes.keys.sorted().compactMap { homes[$0]?.servers?.endpoints.first }.compactMap { servers.roundTrip($0.address) }.max()
        // Not known yet: as for a request's first repetition.
        return min(configuration.strangerWaitMax, max(configuration.strangerWaitMin, (roundTrip ?? .milliseconds(125)) * 2))
    }

    /// Whom to ask about it, and from which address; `nil` while this node is not registered.
    private func question(about moa: MobileAddress) -> (servers: [Endpoint], source: IPAddress?)? {
        guard let hoa = homes.keys.first(where: { $0.isIPv4 == moa.isIPv4 }), let home = homes[hoa], home.registered != nil, let set = home.servers,
            let source = desiredLocators(of: hoa).first
        else { return nil }
        let targets = set.endpoints.filter { $0.address.isIPv4 == source.isIPv4 }
        return targets.isEmpty ? (set.endpoints, nil) : (targets, source.address)
    }

    private mutating func mayAsk(_ opensConnection: Bool, _ now: Now) -> Bool {
        opensConnection ? openerQueries.take(at: now.monotonic) : strangerQueries.take(at: now.monotonic)
    }

    /// Remembers that something of it went to the stack untranslated.
    private mutating func notePassed(_ moa: MobileAddress, until: MonotonicTime) {
        plainSources.makeRoom(for: moa, max: configuration.strangersMax) { $1 }
        plainSources[moa] = max(until, plainSources[moa] ?? until)
    }

    /// Our IMS answered HA Query, or not (`nil`).
    mutating func strangerAnswered(_ moa: MobileAddress, _ answer: HAAnswer?, _ now: Now) {
        guard strangers[moa] != nil else { return }
        switch answer?.code {
        case .ok?:
            guard let mapping = answer?.mapping, let certificate = answer?.certificate, let hoa = mapping.record.hoa(at: moa) else {
                log(.warning, "our IMS named an HoA for \(moa) whose record does not list it")
                return
            }
            setCandidate(hoa, from: strangers[moa]?.candidate, moa)
            // The wait for our IMS is over; what follows has a bound of its own, for what opens connections too, in the kernel as well.
            strangers[moa]?.openersDue = nil
            let due = now.monotonic + configuration.strangerHoldMax
            strangers[moa]?.due = due
            armStranger(moa)
            change(.holdOpeners(moa.address, lifetime: configuration.strangerHoldMax))
            lookUp(hoa, for: .record(PendingRecord(record: OfferedRecord(mapping, under: certificate), hoa: hoa, stranger: moa, ack: nil)), now)
        case .notFound?:
            strangers[moa]?.isNotFound = true
            strangers[moa]?.plainUntil = now.monotonic + .seconds(Int64(min(5, answer?.lifetime ?? 5)))
            settleNotFound(moa, now)
        default:
            // It answers its registered nodes only.
            if answer?.code == .refused, let own = homes.keys.first(where: { $0.isIPv4 == moa.isIPv4 }) { suspectLoss(of: own, now) }
            if let answer { log(.info, "our IMS does not say whose \(moa) is: \(answer.code)\(answer.text.map { " (\($0.printable))" } ?? "")") }
            if strangers[moa]?.opensConnection == true { strangerIsPlain(moa, until: now.monotonic + .seconds(1), now) } else { letOpen(moa, until: now.monotonic + .seconds(1), now) }
        }
    }

    /// Our IMS knows no HoA for it. One of our peers may have moved there all the same, before anyone was told. What opens a
    /// connection passes, alone: if the address as a whole passed, a moved peer's next segment would be answered with a reset.
    /// The rest waits for the peers' IMSs' answers, and a moment longer.
    private mutating func settleNotFound(_ moa: MobileAddress, _ now: Now) {
        guard let stranger = strangers[moa], stranger.isNotFound else { return }
        guard !isBeingChecked(moa) else {
            // A peer says that it is there, and is being asked: what opens waits for that too.
            strangers[moa]?.openersDue = nil
            let latest = stranger.started + configuration.strangerHoldMax
            strangers[moa]?.due = latest
            armStranger(moa)
            return
        }
        guard hasPeers(like: moa) else {
            strangerIsPlain(moa, until: stranger.plainUntil, now)
            return
        }
        letOpen(moa, until: stranger.plainUntil, now)
        let end = stranger.started + configuration.movedPeerWaitMax
        let latest = stranger.started + configuration.strangerHoldMax
        strangers[moa]?.openersDue = nil
        if now.monotonic < end {
            strangers[moa]?.due = end
            armStranger(moa)
        } else if mayBeMovedPeer(moa, stranger) || isAskingPeers(stranger) {
            strangers[moa]?.due = latest
            armStranger(moa)
        } else {
            strangerIsPlain(moa, until: stranger.plainUntil, now)
        }
    }

    /// What opens a connection from it passes: what waits now, and what comes while our IMS's answer may be remembered, in the kernel.
    private mutating func letOpen(_ moa: MobileAddress, until end: MonotonicTime, _ now: Now) {
        noteOpen(moa, until: end, now)
        flushChanges()
        for own in strangers[moa]?.owns.sorted() ?? [] { emit(.releaseOpeners(from: moa.address, to: own)) }
    }

    /// The same, for the next transaction.
    private mutating func noteOpen(_ moa: MobileAddress, until end: MonotonicTime, _ now: Now) {
        guard strangers[moa]?.isOpen == false else { return }
        strangers[moa]?.isOpen = true
        notePassed(moa, until: max(end, now.monotonic))
        if end > now.monotonic { change(.letOpen(moa.address, lifetime: end - now.monotonic)) }
    }

    /// A peer that listed the address is not there: nothing more is waited for.
    mutating func settleClaimed(_ moa: MobileAddress, _ now: Now) {
        if !strangers.isEmpty { settleNotFound(moa, now) }
    }

    /// Entries of an earlier run tell of peers too, who are being asked for.
    private func hasPeers(like moa: MobileAddress) -> Bool {
        peers.count(isIPv4: moa.isIPv4) > 0 || hasStale
    }

    private func isAskingPeers(_ stranger: Stranger) -> Bool { stranger.suspects.contains { isUnderWay(.queryPeer($0)) } }

    /// A segment or datagram of a conversation that no socket here has, while there are peers of this run or an earlier: rather one of theirs than a
    /// plain host's, which would have a socket. Passing it would reset a mapped flow, dropping it costs a plain one nothing.
    private func mayBeMovedPeer(_ moa: MobileAddress, _ stranger: Stranger) -> Bool {
        stranger.mayBeReset && hasPeers(like: moa)
    }

    /// The HoA that our IMS named for some strangers is not theirs: its own IMS says so.
    mutating func strangersAreNot(_ hoa: HomeAddress, _ now: Now) {
        for moa in candidates[hoa]?.sorted() ?? [] {
            log(.info, "our IMS took \(moa) for \(hoa), whose own IMS does not list it")
            setCandidate(nil, from: hoa, moa)
            strangers[moa]?.isNotFound = true
            strangers[moa]?.plainUntil = now.monotonic + .seconds(1)
            settleNotFound(moa, now)
        }
    }

    /// A question to a peer's IMS has had its answer or its end.
    mutating func settleStrangers(askedFor hoa: HomeAddress, _ now: Now) {
        for moa in suspicions[hoa]?.sorted() ?? [] { settleNotFound(moa, now) }
    }

    /// Lets packets from it in untranslated, but for those that could end a moved peer's conversation, and remembers that for a moment.
    mutating func strangerIsPlain(_ moa: MobileAddress, until end: MonotonicTime, _ now: Now) {
        // Both in one transaction, what opens a connection and what does not.
        noteOpen(moa, until: end, now)
        guard let stranger = removeStranger(moa) else { return }
        counters.strangersPlain += 1
        notePassed(moa, until: max(end, now.monotonic))
        // While there are peers the kernel is not told: the address as a whole would pass, and if it is a moved peer's after all, its
        // next segment or datagram would be answered by a reset or port unreachable. What may pass then passes here, one by one.
        if !hasPeers(like: moa) {
            change(.setPlain(moa.address, lifetime: max(end - now.monotonic, .seconds(1))))
        }
        flushChanges()
        for own in stranger.owns.sorted() { emit(.releaseInbound(from: moa.address, to: own)) }
    }

    /// Lets in the packets of strangers that have become known as this peer's locators.
    mutating func releaseKnownStrangers(of hoa: HomeAddress, _ now: Now) {
        guard !strangers.isEmpty, let peer = peers[hoa] else { return }
        for locator in peer.locators where locator.roles.isSuperset(of: [.claimed, .accepted]) {
            guard let stranger = removeStranger(locator.moa) else { continue }
            counters.strangersIdentified += 1
            flushChanges()
            for own in stranger.owns.sorted() { letIn(locator.moa, at: own, of: peer) }
        }
    }

    /// Lets in what a peer sent to an own address, if that address is still ours: without an entry for the pair it would come in
    /// untranslated, and be answered by a reset.
    private mutating func letIn(_ moa: MobileAddress, at own: IPAddress, of peer: Peer) {
        let isEntered = peer.locators.has(moa, .accepted) && isReachable(at: own)
        emit(isEntered ? .releaseInbound(from: moa.address, to: own) : .dropInbound(from: moa.address, to: own))
    }

    /// A record that lists a MoA clears a remembered not found (section 7).
    mutating func clearPlain(_ record: MappingRecord) {
        let listed = record.isNetwork ? plainSources.keys.filter(record.lists).sorted() : record.locators.map(\.moa)
        for moa in listed where plainSources.removeValue(forKey: moa) != nil {
            change(.removePlain(moa.address))
            change(.askAgain(moa.address))
        }
    }

    mutating func strangerDue(_ moa: MobileAddress, _ now: Now) {
        guard var stranger = strangers[moa] else { return }
        if let end = stranger.openersDue, end <= now.monotonic {
            // They pass, and nothing is remembered: the answer is still to come, and what is no opener waits for it.
            stranger.openersDue = nil
            stranger.isWaitOver = true
            strangers[moa] = stranger
            for own in stranger.owns.sorted() { emit(.releaseOpeners(from: moa.address, to: own)) }
            if now.monotonic < stranger.due {
                armStranger(moa)
                return
            }
        }
        let hasTimeLeft = now.monotonic < stranger.started + configuration.strangerHoldMax
        if stranger.isNotFound, hasTimeLeft {
            settleNotFound(moa, now)
            return
        }
        if stranger.isNotFound && !mayBeMovedPeer(moa, stranger) {
            strangerIsPlain(moa, until: stranger.plainUntil, now)
            return
        }
        if stranger.openersDue != nil { for own in stranger.owns.sorted() { emit(.releaseOpeners(from: moa.address, to: own)) } }
        removeStranger(moa)
        // Openers that are let in by now have nothing to do with it.
        if !(stranger.isWaitOver && stranger.opensConnection), strangerReports.take(at: now.monotonic) {
            log(
                .info,
                stranger.isNotFound
                    ? "\(moa) is no node's for our IMS, but what it sends fits no socket here and may be a moved peer's; it is dropped unanswered while this node has peers"
                    : "whose \(moa) is could not be found out; its packets are dropped unanswered")
        }
        for own in stranger.owns.sorted() { emit(.dropInbound(from: moa.address, to: own)) }
    }
}

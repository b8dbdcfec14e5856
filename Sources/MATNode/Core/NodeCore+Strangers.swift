import IMTKernel
import MATSignal

// Unknown sources (paper 4.2 (6), (7)): a packet from a MoA that the IMT does not know waits while our IMS is asked whose it is.

/// A source that packets are held from.
struct Stranger: Sendable {
    let started: MonotonicTime
    /// The own addresses that it sent to.
    var owns: Set<IPAddress>
    /// Every packet of it so far could be a plain stranger's first.
    var opensConnection: Bool
    /// A packet of it would be answered with a reset if it passed as plain.
    var mayBeReset: Bool
    /// The HoA that our IMS says it is; to be confirmed by that HoA's IMS.
    var candidate: HomeAddress?
    /// Our IMS knows no HoA for it.
    var isNotFound = false
    /// For how long that may be remembered.
    var plainFor: Duration = .seconds(1)

    static let ownsMax = 8
}

extension NodeCore {
    /// Active peers asked at a stranger's packet: one of them may have moved.
    static let peersAskedMax = 8

    mutating func identify(_ moa: MobileAddress, at own: IPAddress, _ opensConnection: Bool, _ isSegment: Bool, _ now: Now) {
        if let owner = locatorOwners[moa], let peer = peers[owner], peer.installedInbound.contains(moa) {
            letIn(moa, at: own, of: peer)
            return
        }
        if var stranger = strangers[moa] {
            if stranger.owns.count < Stranger.ownsMax { stranger.owns.insert(own) }
            if stranger.isNotFound && opensConnection { emit(.releaseOpeners(from: moa.address, to: own)) }
            if stranger.opensConnection && !opensConnection && !stranger.isNotFound {
                stranger.opensConnection = false
                deadlines.set(.stranger(moa), at: stranger.started + configuration.strangerHoldMax)
            }
            stranger.mayBeReset = stranger.mayBeReset || isSegment
            strangers[moa] = stranger
            return
        }
        guard strangers.count < configuration.strangersMax else {
            // Beyond the bound nobody is asked; an opening packet passes as plain, any other is dropped, never answered.
            emit(opensConnection ? .releaseInbound(from: moa.address, to: own) : .dropInbound(from: moa.address, to: own))
            return
        }
        strangers[moa] = Stranger(started: now.monotonic, owns: [own], opensConnection: opensConnection, mayBeReset: isSegment)
        deadlines.set(.stranger(moa), at: now.monotonic + (opensConnection ? configuration.strangerWaitMax : configuration.strangerHoldMax))

        guard let hoa = homes.keys.first(where: { $0.isIPv4 == moa.isIPv4 }), let home = homes[hoa], home.registered != nil, let set = home.servers,
            let source = desiredLocators(of: hoa).first
        else {
            // Nobody to ask: HA Query is answered to registered locators only.
            if opensConnection { strangerIsPlain(moa, .seconds(1), now) }
            return
        }
        guard strangerQueries.take(at: now.monotonic) else {
            if opensConnection { strangerIsPlain(moa, .seconds(1), now) }
            return
        }
        let targets = set.endpoints.filter { $0.address.isIPv4 == source.isIPv4 }
        start(.identify(moa), .haQuery, to: targets.isEmpty ? set.endpoints : targets, source: targets.isEmpty ? nil : source.address, now)
        let suspects = peers.values.filter { $0.hoa.isIPv4 == moa.isIPv4 && now.monotonic - $0.refreshed > .seconds(1) && !isUnderWay(.queryPeer($0.hoa)) }
        for peer in suspects.sorted(by: { $0.lastTraffic > $1.lastTraffic }).prefix(Self.peersAskedMax) { query(peer.hoa, now) }
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
            strangers[moa]?.candidate = hoa
            // Its own wait is over; what follows has a bound of its own.
            deadlines.set(.stranger(moa), at: now.monotonic + configuration.strangerHoldMax)
            lookUp(hoa, for: .record(PendingRecord(mapping: CertifiedMapping(mapping: mapping, certificate: certificate), hoa: hoa, stranger: moa, ack: nil)), now)
        case .notFound?:
            strangers[moa]?.isNotFound = true
            strangers[moa]?.plainFor = .seconds(Int64(min(5, answer?.lifetime ?? 5)))
            settleNotFound(moa, now)
        default:
            if let answer { log(.info, "our IMS does not say whose \(moa) is: \(answer.code)\(answer.text.map { " (\($0))" } ?? "")") }
            if strangers[moa]?.opensConnection == true { strangerIsPlain(moa, .seconds(1), now) }
        }
    }

    /// Our IMS knows no HoA for it. One of our peers may have moved there all the same, before anyone was told. What opens a
    /// connection passes, alone: if the address as a whole passed, a moved peer's next segment would be answered with a reset.
    /// The rest waits for the peers' IMSs' answers, and a moment longer.
    private mutating func settleNotFound(_ moa: MobileAddress, _ now: Now) {
        guard let stranger = strangers[moa], stranger.isNotFound else { return }
        guard hasPeers(like: moa) else {
            strangerIsPlain(moa, stranger.plainFor, now)
            return
        }
        for own in stranger.owns.sorted() { emit(.releaseOpeners(from: moa.address, to: own)) }
        let end = stranger.started + configuration.movedPeerWaitMax
        if now.monotonic < end {
            deadlines.set(.stranger(moa), at: end)
        } else if mayBeMovedPeer(moa, stranger) || isAskingPeers(like: moa) {
            deadlines.set(.stranger(moa), at: stranger.started + configuration.strangerHoldMax)
        } else {
            strangerIsPlain(moa, stranger.plainFor, now)
        }
    }

    /// Entries of an earlier run tell of peers too, who are being asked for.
    private func hasPeers(like moa: MobileAddress) -> Bool {
        peers.keys.contains { $0.isIPv4 == moa.isIPv4 } || !staleOutbound.isEmpty || !staleInbound.isEmpty
    }

    private func isAskingPeers(like moa: MobileAddress) -> Bool {
        peers.keys.contains { $0.isIPv4 == moa.isIPv4 && isUnderWay(.queryPeer($0)) }
    }

    /// A segment of a connection that no socket here has, while there are peers of this run or an earlier: rather one of theirs than a plain host's, whose
    /// connection would have a socket. Passing it would reset a mapped flow, dropping it costs a plain one nothing.
    private func mayBeMovedPeer(_ moa: MobileAddress, _ stranger: Stranger) -> Bool {
        stranger.mayBeReset && hasPeers(like: moa)
    }

    /// The HoA that our IMS named for some strangers is not theirs: its own IMS says so.
    mutating func strangersAreNot(_ hoa: HomeAddress, _ now: Now) {
        for moa in strangers.keys.sorted() where strangers[moa]?.candidate == hoa {
            log(.info, "our IMS took \(moa) for \(hoa), whose own IMS does not list it")
            strangers[moa]?.candidate = nil
            strangers[moa]?.isNotFound = true
            settleNotFound(moa, now)
        }
    }

    /// A question to a peer's IMS has had its answer or its end.
    mutating func settleStrangers(_ now: Now) {
        for moa in strangers.keys.sorted() { settleNotFound(moa, now) }
    }

    /// Lets packets from it in untranslated, and remembers that for a moment.
    mutating func strangerIsPlain(_ moa: MobileAddress, _ lifetime: Duration, _ now: Now) {
        guard let stranger = strangers.removeValue(forKey: moa) else { return }
        deadlines.cancel(.stranger(moa))
        cancel(.identify(moa))
        counters.strangersPlain += 1
        plainSources[moa] = now.monotonic + lifetime
        change(.setPlain(moa.address, lifetime: max(lifetime, .seconds(1))))
        flushChanges()
        for own in stranger.owns.sorted() { emit(.releaseInbound(from: moa.address, to: own)) }
        prunePlainSources(now)
    }

    /// Lets in the packets of strangers that have become known as peers' locators, and clears remembered not-founds.
    mutating func releaseKnownStrangers(_ now: Now) {
        for (moa, stranger) in strangers.sorted(by: { $0.key < $1.key }) {
            guard let owner = locatorOwners[moa], let peer = peers[owner], peer.installedInbound.contains(moa) else { continue }
            strangers[moa] = nil
            deadlines.cancel(.stranger(moa))
            cancel(.identify(moa))
            counters.strangersIdentified += 1
            flushChanges()
            for own in stranger.owns.sorted() { letIn(moa, at: own, of: peer) }
        }
    }

    /// Lets in what a peer sent to an own address, if that address is still ours: without an entry for the pair it would come in
    /// untranslated, and be answered by a reset.
    private mutating func letIn(_ moa: MobileAddress, at own: IPAddress, of peer: Peer) {
        let isEntered = peer.installedInbound.contains(moa) && isReachable(at: own)
        emit(isEntered ? .releaseInbound(from: moa.address, to: own) : .dropInbound(from: moa.address, to: own))
    }

    /// A record that lists a MoA clears a remembered not found (section 7).
    mutating func clearPlain(_ mapping: CertifiedMapping) {
        let listed = mapping.record.isNetwork ? plainSources.keys.filter(mapping.record.lists) : mapping.record.locators.map(\.moa)
        for moa in listed where plainSources.removeValue(forKey: moa) != nil { change(.removePlain(moa.address)) }
    }

    private mutating func prunePlainSources(_ now: Now) {
        guard plainSources.count > configuration.strangersMax else { return }
        plainSources = plainSources.filter { $0.value > now.monotonic }
        while plainSources.count > configuration.strangersMax { plainSources.remove(at: plainSources.startIndex) }
    }

    mutating func strangerDue(_ moa: MobileAddress, _ now: Now) {
        guard let stranger = strangers[moa] else { return }
        if stranger.opensConnection, stranger.candidate == nil, !stranger.isNotFound, isUnderWay(.identify(moa)) {
            // Its first packet passes, but nothing is remembered: the answer is still to come, and what follows waits for it.
            for own in stranger.owns.sorted() { emit(.releaseOpeners(from: moa.address, to: own)) }
            strangers[moa]?.opensConnection = false
            deadlines.set(.stranger(moa), at: stranger.started + configuration.strangerHoldMax)
            return
        }
        let hasTimeLeft = now.monotonic < stranger.started + configuration.strangerHoldMax
        if stranger.isNotFound, hasTimeLeft {
            settleNotFound(moa, now)
            return
        }
        if stranger.isNotFound && !mayBeMovedPeer(moa, stranger) || stranger.opensConnection && stranger.candidate == nil && !hasPeers(like: moa) {
            strangerIsPlain(moa, stranger.plainFor, now)
            return
        }
        if stranger.opensConnection, stranger.candidate == nil {
            for own in stranger.owns.sorted() { emit(.releaseOpeners(from: moa.address, to: own)) }
        }
        strangers[moa] = nil
        cancel(.identify(moa))
        log(.info, "whose \(moa) is could not be found out; its packets are dropped unanswered")
        for own in stranger.owns.sorted() { emit(.dropInbound(from: moa.address, to: own)) }
    }
}

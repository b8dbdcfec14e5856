import IMTPlan
import MATSignal

// What becomes of a destination of which the DNS says neither that it is a MAT node nor that it is none (protocol.md section 7):
//
//                            found ──► its IMS is asked; never plain
//                            absent ─► plain, for as long as the answer says, 300 s at most
//   first packet ─ look-up ──┤
//                            │ nothing (time-out, SERVFAIL, refused), asked again each second
//                            │    was a peer, or the configuration names it as MAT ──► waits; with known IMSs these are asked
//                            │    any other ─ after 2 s ──► plain, asked again every 30 s while in use     } both are shown by
//                            └ bogus, or an IMS that can't be used ──► waits                               } `mat status`
//
// And what a local resolver of this host needs to answer: its own questions. They go on at once, since the look-up waits for them.

/// A destination about which the DNS leaves us in doubt.
struct Doubt: Sendable {
    /// When the first packet to it came.
    let since: MonotonicTime
    /// When the DNS was last asked.
    var asked: MonotonicTime
    /// When a packet to it last came into our hands: every 30 s while it is in use.
    var used: MonotonicTime
    var reason: String
    /// It is talked to plainly meanwhile; otherwise its packets wait.
    var isPlain: Bool
}

extension NodeCore {
    /// How long packets to an unknown destination wait for a DNS that gives no answer.
    static let silentNamesMax: Duration = .seconds(2)
    /// How often it is asked again about a destination that is plain for lack of an answer.
    static let doubtInterval: Duration = .seconds(30)
    /// For how long packets that must wait do so before the next question; and others, within their 2 s.
    static let askAgainAfter: Duration = .seconds(1)
    /// One that was not used for so long is held anew, like any other.
    static let doubtMax: Duration = .seconds(300)
    /// What `mat status` counts as in use.
    static let doubtShownFor: Duration = .seconds(90)
    static let doubtsMax = 1024
    /// Destinations whose absence is remembered here, to be forgotten in another network. Those before them lapse by themselves.
    static let absencesMax = 4096
    /// Questions about destinations of a local resolver's own questions: each can make it ask some more.
    static let backgroundMax = 2

    // MARK: Who may be plain

    /// Whether the configuration says that this is a MAT node's.
    func isNamed(_ hoa: HomeAddress) -> Bool {
        configuration.namedPrefixes.contains { $0.isIPv4 == hoa.isIPv4 && $0.contains(hoa.address) }
    }

    /// Whether the DNS named IMSs for it in this run, or an earlier run left it in the kernel.
    func wasPeer(_ hoa: HomeAddress) -> Bool { formerPeers.contains(hoa) || serverSet(of: hoa) != nil }

    func mayBePlain(_ hoa: HomeAddress) -> Bool { !isNamed(hoa) && !wasPeer(hoa) }

    /// A question of a process of this host, to a DNS server that nobody has looked up: where names are found by such a process, each
    /// look-up would wait for the next.
    ///
    /// - Returns: whether the packet went on, so that there is nothing to hold.
    mutating func passesNames(to hoa: HomeAddress, _ now: Now) -> Bool {
        guard resolvesLocally, home(for: hoa) != nil, peers[hoa] == nil, mayBePlain(hoa), hoa.address.isUsableUnicast, !isOwn(hoa.address) else { return false }
        emit(.passNames(to: hoa.address))
        // Found out about all the same, if slowly: as plain it passes us by, and a name server may be a MAT node.
        guard destinations[hoa] == nil, destinations.values.count(where: \.isBackground) < Self.backgroundMax else { return true }
        if let doubt = doubts[hoa], now.monotonic - doubt.asked < Self.doubtInterval { return true }
        begin(hoa, isBackground: true, now)
        return true
    }

    // MARK: Doubt

    /// A packet to a destination that was plain for lack of an answer is in our hands again: it goes on, and the DNS is asked anew.
    ///
    /// - Returns: whether it was such a one.
    mutating func resolveDoubtful(_ hoa: HomeAddress, _ now: Now) -> Bool {
        guard let doubt = doubts[hoa] else { return false }
        guard doubt.isPlain, mayBePlain(hoa), now.monotonic - doubt.used < Self.doubtMax else {
            if doubt.isPlain { doubts[hoa] = nil }
            return false
        }
        doubts[hoa]?.used = now.monotonic
        goPlain(hoa, now)
        if destinations[hoa] == nil, now.monotonic - doubt.asked >= Self.doubtInterval - .seconds(1) { begin(hoa, isBackground: true, now) }
        return true
    }

    /// The DNS gave no answer about a destination, or none in time.
    mutating func doubt(_ hoa: HomeAddress, _ reason: String, isPlain: Bool, _ now: Now) {
        let old = doubts[hoa]
        // Those that were not used for longest.
        doubts.makeRoom(for: hoa, max: share(of: Self.doubtsMax)) { $1.used }
        let since = destinations[hoa]?.started ?? now.monotonic
        doubts[hoa] = Doubt(since: old?.since ?? since, asked: old?.asked ?? since, used: old?.used ?? now.monotonic, reason: reason, isPlain: isPlain)
        guard old?.isPlain != isPlain else { return }
        let level: NodeLogLevel = doubtReports.take(at: now.monotonic) ? .warning : .debug
        log(level, "whether \(hoa) is a MAT node can't be found out: \(reason); \(isPlain ? "it is talked to plainly, and asked for again every \(Self.doubtInterval.components.seconds) s" : "packets to it wait")")
    }

    private mutating func goPlain(_ hoa: HomeAddress, _ now: Now) {
        change(.setPlain(hoa.address, lifetime: Self.doubtInterval))
        flushChanges()
        emit(.releaseOutbound(to: hoa.address))
    }

    /// The 2 s are over.
    mutating func destinationIsDoubtful(_ hoa: HomeAddress, _ reason: String, _ now: Now) {
        doubt(hoa, reason, isPlain: true, now)
        counters.destinationsUndecided += 1
        forgetDestination(hoa)
        goPlain(hoa, now)
    }

    /// The DNS has spoken.
    ///
    /// - Returns: whether it was plain for lack of an answer.
    @discardableResult
    mutating func settle(_ hoa: HomeAddress) -> Bool {
        guard let doubt = doubts.removeValue(forKey: hoa) else { return false }
        log(.info, "the DNS answers about \(hoa) again")
        return doubt.isPlain
    }

    // MARK: Another network, another resolver

    /// The network or the resolvers changed: what was not validated on this host is asked for anew (protocol.md section 8), and who waits for
    /// an answer asks at once.
    ///
    /// - Parameter isLocal: names are found by a process of this host, whose own questions can't wait for a look-up.
    public mutating func namesChanged(isLocal: Bool, now: Now) -> [NodeAction] {
        resolvesLocally = isLocal
        forgetNames(now)
        guard !ownLocators.isEmpty else { return endEvent() }
        for hoa in homes.keys.sorted() where homes[hoa]?.servers.map({ $0.expires <= now.monotonic }) ?? true {
            // Whatever pause it was in.
            deadlines.cancel(.lookUp(hoa))
            homes[hoa]?.lookUpFailures = 0
            lookUp(hoa, for: .home, now)
        }
        for hoa in destinations.keys.sorted() where destinations[hoa]?.isFound == false { lookUp(hoa, for: .destination, now) }
        return endEvent()
    }

    /// Known IMSs are used until they are known anew: right after a move the DNS may not be reachable yet. Absence is forgotten.
    mutating func forgetNames(_ now: Now) {
        for (hoa, set) in otherServers where !set.isValidated { otherServers[hoa]?.expires = min(set.expires, now.monotonic) }
        for hoa in homes.keys { if let set = homes[hoa]?.servers, !set.isValidated { homes[hoa]?.servers?.expires = min(set.expires, now.monotonic) } }
        // Not all at the moment at which most is to be done.
        peers.expireServers(by: now.monotonic + configuration.pollInterval / 2)
        forgetAbsence(now)
    }

    /// Destinations that were found absent, or are in doubt, are looked up when the next packet to them comes.
    mutating func forgetAbsence(_ now: Now) {
        for (hoa, until) in absences.sorted(by: { $0.key < $1.key }) where until > now.monotonic { change(.removePlain(hoa.address)) }
        absences = [:]
        for (hoa, doubt) in doubts.sorted(by: { $0.key < $1.key }) where doubt.isPlain {
            // It stays plain until it lapses, so that no conversation stands still for 2 s once more.
            doubts[hoa]?.asked = .zero
        }
    }

    mutating func rememberAbsence(_ hoa: HomeAddress, until: MonotonicTime) {
        absences.makeRoom(for: hoa, max: share(of: Self.absencesMax)) { $1 }
        absences[hoa] = until
    }
}

import MATSignal

/// The own addresses as ways out: which of them work, and since when; see `Uplink` for the states of each.
///
/// An address is left for others only on evidence that it is at fault: nothing answers over it, and the same things answer over another
/// (`judge`); or the own IMS does not take it as a locator (`refuse`).
struct Uplinks: Sendable {
    /// A way out that has been found dead.
    struct Death: Hashable, Sendable {
        /// What answers over this one is silent over the dead one.
        let better: MobileAddress
        /// By what it shows that it works again.
        let recovery: [PathMonitor.Path]
    }

    /// Whether an address has behaved for long enough.
    enum Trial: Hashable, Sendable {
        /// The own IMS refused it: only that can say.
        case refused
        /// Not steadily yet.
        case goesOn
        /// It has its place in the order of preference again.
        case passed(wasDead: Bool)
    }

    /// Addresses that are remembered although they are gone; beyond that they are forgotten.
    private static let countMax = 64
    /// Servers, or peers, that tell whether a dead address works again.
    static let recoveryMax = 2

    private let configuration: PathConfiguration
    private var uplinks: [MobileAddress: Uplink] = [:]
    private var flaps = LinkFlaps()

    init(_ configuration: PathConfiguration) { self.configuration = configuration }

    // MARK: Questions

    subscript(own: MobileAddress) -> Uplink { uplinks[own] ?? Uplink() }

    func isDead(_ own: MobileAddress) -> Bool { self[own].isDead }
    func isRefused(_ own: MobileAddress) -> Bool { self[own].isRefused }
    /// Its place among the others, before any preference.
    func order(_ own: MobileAddress) -> Uplink.Order { self[own].order }
    func failures(of own: MobileAddress, now: MonotonicTime) -> Int {
        let history = self[own].history
        return history.isForgotten(at: now, configuration) ? 0 : history.failures
    }

    /// When the next of them may be trusted again.
    var nextTrial: MonotonicTime? { uplinks.values.compactMap(\.trustedAt).min() }

    /// Those that may be trusted again now, in order.
    func trials(now: MonotonicTime) -> [MobileAddress] {
        uplinks.filter { $0.value.trustedAt.map { $0 <= now } ?? false }.keys.sorted()
    }

    // MARK: Links

    /// The own addresses changed.
    ///
    /// - Returns: those that are gone, and those that must stay for so long before they are preferred, because their link comes and goes.
    mutating func linksChanged(
        from old: [OwnLocator], to present: [OwnLocator], now: MonotonicTime
    ) -> (gone: Set<MobileAddress>, flapping: [(locator: OwnLocator, pause: Duration)]) {
        let gone = old.filter { old in !present.contains { $0.isSame(as: old) } }
        let new = present.filter { new in !old.contains { $0.isSame(as: new) } }
        let lost = Set(gone.map(\.moa))
        for moa in lost where self[moa].history.isForgotten(at: now, configuration) { uplinks[moa] = nil }
        var flapping: [(locator: OwnLocator, pause: Duration)] = []
        for locator in new {
            // A new connection to the network is a new start: what was dead before may work now, and what flaps is told below.
            uplinks[locator.moa]?.state = .sound
            guard let pause = flaps.holdDown(LinkFlaps.Link(locator), at: now, configuration) else { continue }
            uplinks[locator.moa, default: Uplink()].state = .flapping(until: now + pause)
            flapping.append((locator, pause))
        }
        for link in Set(gone.map(LinkFlaps.Link.init)).sorted() { flaps.lost(link, at: now) }
        prune(keeping: Set(present.map(\.moa)))
        return (lost, flapping)
    }

    private mutating func prune(keeping present: Set<MobileAddress>) {
        guard uplinks.count > Self.countMax else { return }
        for moa in uplinks.keys.sorted() where !present.contains(moa) && uplinks.count > Self.countMax { uplinks[moa] = nil }
    }

    /// A person chose it: what was held against it counts no more.
    mutating func trust(_ own: MobileAddress) { uplinks[own]?.state = .sound }

    // MARK: Probes

    /// Whether an own address is a way out at all. It is not if an IMS is silent over it, nothing else has answered over it of late,
    /// and something answers over another address: a silent server or peer alone says nothing about the way there.
    ///
    /// - Parameters:
    ///   - servers: our IMSs, as probes of it.
    ///   - others: the other addresses by which the same HoA can be reached.
    /// - Returns: `nil` if nothing is held against it, or it is dead already.
    mutating func judge(_ own: MobileAddress, servers: [PathMonitor.Path], others: [MobileAddress], _ monitor: PathMonitor, now: MonotonicTime)
        -> Death?
    {
        guard !isDead(own) else { return nil }
        let over = monitor.over(own)
        guard over.contains(where: { $0.value.isSilent }), !over.contains(where: { $0.value.answered(within: PathMonitor.silenceMin, at: now) })
        else { return nil }
        let probed = over.filter { $0.key.target.isServer }
        guard servers.isEmpty || probed.contains(where: { $0.value.isSilent }), !probed.contains(where: { $0.value.askedSince != nil }) else {
            return nil
        }
        // Something that is silent here answers there, and has done so since: what was not asked here proves nothing.
        let better = others.first { other in
            over.contains { path, state in
                guard let since = state.silentSince, let there = monitor[PathMonitor.Path(other, path.target)] else { return false }
                return !there.isSilent && there.answered(within: configuration.interval * 2, at: now) && there.lastAnswer.map { $0 >= since } ?? false
            }
        }
        guard let better else { return nil }
        var uplink = self[own]
        uplink.state = .dead(since: over.compactMap(\.value.silentSince).max() ?? now)
        uplink.history.failed(at: now, configuration)
        uplinks[own] = uplink
        // Our servers, or where there are none the peers that it was used for.
        let known = Set(servers).union(probed.map(\.key))
        return Death(better: better, recovery: known.isEmpty ? Array(over.map(\.key).sorted().prefix(Self.recoveryMax)) : known.sorted())
    }

    /// Something answered over it.
    ///
    /// - Returns: for how long it was silent, and has to answer before it is preferred again; `nil` if it was not dead.
    mutating func answered(_ own: MobileAddress, now: MonotonicTime) -> (silence: Duration, pause: Duration)? {
        guard let uplink = uplinks[own], case .dead(let since) = uplink.state else { return nil }
        let pause = uplink.history.holdDown(configuration)
        uplinks[own]?.state = .returning(since: since, until: now + pause)
        return (now - since, pause)
    }

    /// The time has come at which it may be trusted again: on what it did all the time, not on what it did at first.
    mutating func trial(_ own: MobileAddress, _ monitor: PathMonitor, now: MonotonicTime) -> Trial {
        guard let uplink = uplinks[own], let time = uplink.trustedAt, time <= now else { return .goesOn }
        switch uplink.state {
        case .refused:
            return .refused
        case .returning(let since, _):
            let pause = uplink.history.holdDown(configuration)
            let answering = monitor.over(own).filter { $0.value.answered(within: configuration.interval * 2, at: now) }.compactMap(
                \.value.answeringSince
            ).min()
            if let answering, now - answering >= pause {
                uplinks[own]?.state = .sound
                return .passed(wasDead: true)
            }
            uplinks[own]?.state = .returning(since: since, until: answering.map { $0 + pause } ?? now + configuration.interval)
            return .goesOn
        case .sound, .dead, .flapping:
            uplinks[own]?.state = .sound
            return .passed(wasDead: false)
        }
    }

    // MARK: The own IMS

    /// Which own addresses the IMS's refusal of a record (code 6) speaks against, and why.
    ///
    /// - Parameters:
    ///   - accepted: the addresses in the last record that the IMS took.
    ///   - hasFailedBefore: another try did not help either.
    /// - Returns: `nil` if it may be none: a proof may have been too old, and all are fetched anew.
    static func culprits(
        among all: [MobileAddress], isNetwork: Bool, _ reply: IMSUpdateReply, accepted: Set<MobileAddress>, hasFailedBefore: Bool
    ) -> (addresses: [MobileAddress], reason: String)? {
        guard let first = all.first else { return nil }
        if let observed = reply.observed, observed != Endpoint(first.address, port: SignalPort.node) {
            // The record's first locator must be where the datagram came from.
            return ([first], "a translator (NAT) stands before it: the IMS sees \(observed)")
        }
        let reason = "the IMS refuses it\(reply.text.map { " (\($0.printable))" } ?? "")"
        if all.count == 1 { return ([first], reason) }
        guard hasFailedBefore else { return nil }
        // It is one of those that were in no accepted record. A mobile network's first locator is proved like the others.
        let suspects = isNetwork ? all : Array(all.dropFirst())
        let fresh = suspects.filter { !accepted.contains($0) }
        return (fresh.isEmpty ? suspects : fresh, reason)
    }

    /// The own IMS does not take it as a locator, or answers no registration from it.
    ///
    /// - Parameter turn: several that may be at fault are tried again one after another, so that a good one does not share a bad one's fate.
    /// - Returns: whether that is nothing new, and when it is tried again.
    mutating func refuse(_ own: MobileAddress, _ reason: String, turn: Int, now: MonotonicTime) -> (wasRefused: Bool, pause: Duration) {
        var uplink = self[own]
        let wasRefused = uplink.isRefused
        uplink.history.failed(at: now, configuration)
        let pause = uplink.history.holdDown(configuration) * (turn + 1)
        uplink.state = .refused(since: now, until: now + pause, reason: reason)
        uplinks[own] = uplink
        return (wasRefused, pause)
    }

    /// The address to register from when the IMS answers no try from another: one over which an IMS of ours answers now.
    func standIn(among others: [MobileAddress], _ monitor: PathMonitor, now: MonotonicTime) -> MobileAddress? {
        others.first { other in
            !isRefused(other)
                && monitor.over(other).contains {
                    $0.key.target.isServer && !$0.value.isSilent && $0.value.answered(within: configuration.interval * 2, at: now)
                }
        }
    }

    /// Not tried again at once, whatever becomes of this try.
    mutating func postponeTrial(of own: MobileAddress, now: MonotonicTime) {
        guard var uplink = uplinks[own], case .refused(let since, _, let reason) = uplink.state else { return }
        uplink.history.failed(at: now, configuration)
        uplink.state = .refused(since: since, until: now + uplink.history.holdDown(configuration), reason: reason)
        uplinks[own] = uplink
    }

    /// The own IMS takes it now.
    ///
    /// - Returns: whether it had refused it.
    @discardableResult
    mutating func accept(_ own: MobileAddress) -> Bool {
        guard isRefused(own) else { return false }
        uplinks[own]?.state = .sound
        return true
    }
}

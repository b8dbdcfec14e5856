import MATSignal

/// Peers that are reached by another pair of addresses than the usual, because the usual is silent, and the memory of such failures.
///
/// ```
///              the present pair is silent, and another answers         the better one has answered for the hold-down
///   usual ────────────────────────────────────────────────► detour ───────────────────────────────────────────► usual
///                                                           │  ▲ the same again: a further one
///                                                           └──┘
/// ```
struct Detours: Sendable {
    /// Another pair that a peer is to be reached by.
    struct Choice: Hashable, Sendable {
        let pair: MobilePair
        /// The present one is silent; otherwise a better one works again.
        let isFailure: Bool
    }

    private let configuration: PathConfiguration
    private var detours: [HomeAddress: Detour] = [:]

    init(_ configuration: PathConfiguration) { self.configuration = configuration }

    subscript(peer: HomeAddress) -> Detour? { detours[peer] }
    var isEmpty: Bool { detours.isEmpty }
    func isTaken(by peer: HomeAddress) -> Bool { detours[peer]?.isTaken ?? false }

    /// Which pair a peer is to be reached by: the first in order of preference that answers, but back to a better one only after its hold-down.
    ///
    /// - Parameters:
    ///   - pairs: all pairs of addresses for it, the best first.
    ///   - current: the one that is used.
    /// - Returns: `nil` if that is to go on.
    func choose(for peer: HomeAddress, among pairs: [MobilePair], instead current: MobilePair, _ monitor: PathMonitor, now: MonotonicTime) -> Choice?
    {
        func state(_ pair: MobilePair) -> PathMonitor.State? { monitor[PathMonitor.Path(pair.own, .peer(peer, pair.peer))] }
        let silentSince = state(current)?.silentSince
        guard silentSince != nil || isTaken(by: peer) else { return nil }
        let window = configuration.interval * 2
        let pause = detours[peer]?.history.holdDown(configuration) ?? configuration.holdDown
        let choice = pairs.first { pair in
            guard pair != current, let state = state(pair), !state.isSilent, state.answered(within: window, at: now) else { return false }
            // What it answered before the present one fell silent may have been the last of it, too.
            if let silentSince { return state.lastAnswer.map { $0 >= silentSince } ?? false }
            return state.answeringSince.map { now - $0 >= pause } ?? false
        }
        guard let choice else { return nil }
        // Back only, never on: what comes later in the order is for when the present one is silent.
        if silentSince == nil, let here = pairs.firstIndex(of: current), let there = pairs.firstIndex(of: choice), there > here { return nil }
        return Choice(pair: choice, isFailure: silentSince != nil)
    }

    /// Makes room for one more: memories go first, then whichever is the oldest.
    ///
    /// - Returns: the peer that has lost its detour.
    mutating func makeRoom(for peer: HomeAddress) -> HomeAddress? {
        guard detours[peer] == nil, detours.count >= configuration.detoursMax else { return nil }
        let victim = detours.min { ($0.value.isTaken ? 1 : 0, $0.value.since, $0.key) < ($1.value.isTaken ? 1 : 0, $1.value.since, $1.key) }?.key
        if let victim { detours[victim] = nil }
        return victim
    }

    /// - Parameters:
    ///   - own: the address to leave from; `nil` if it is the usual one.
    ///   - moa: the peer's place; `nil` if it is the usual one.
    mutating func take(own: MobileAddress?, moa: MobileAddress?, by peer: HomeAddress, isFailure: Bool, now: MonotonicTime) {
        var detour = detours[peer] ?? Detour(since: now)
        if isFailure { detour.history.failed(at: now, configuration) }
        if !detour.isTaken { detour.since = now }
        (detour.own, detour.moa) = (own, moa)
        detours[peer] = detour
    }

    /// Ends what a detour was for: the address is gone, or has become the usual one.
    mutating func prune(_ peer: HomeAddress, own isOwn: (MobileAddress) -> Bool, moa isPeers: (MobileAddress) -> Bool) {
        guard let detour = detours[peer], detour.isTaken else { return }
        if let moa = detour.own, !isOwn(moa) { detours[peer]?.own = nil }
        if let moa = detour.moa, !isPeers(moa) { detours[peer]?.moa = nil }
    }

    mutating func remove(_ peer: HomeAddress) { detours[peer] = nil }
}

/// A peer that is reached by another pair of addresses than the usual, because the usual does not answer. Each half is `nil`
/// where it is the usual one, so that the detour follows handovers as far as it can.
struct Detour: Hashable, Sendable {
    var own: MobileAddress?
    var moa: MobileAddress?
    var since: MonotonicTime
    var history = FailureHistory()

    /// Without one there is only the memory of failures.
    var isTaken: Bool { own != nil || moa != nil }
}

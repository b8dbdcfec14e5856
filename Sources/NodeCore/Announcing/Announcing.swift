import MATSignal

/// What follows when peers and their IMSs hear of our moves, or don't. `Backlog` says whom to tell when; here is what their answers mean.
///
/// ```
///                      ok ──────────────────────────────────────────► it knows us ─────────────────────────┐
///                      stale, with a newer record of our own key ───► we sign one beyond that ─────────────┤
///   MA Notify ──ack──► any other code ──────────────────────────────► its IMS will tell it ────────────────┼──► its traffic follows us
///       ▲          │                                                                                       │
///       │          └── silence ──► its agent has shown since that it lives, or its path does not work ─────┘
///       │                      └─► else it keeps its path, for its kernel goes on accepting from there
///       │ it does not know us
///       │              ok ──────────────────► it knows us                 │ in vain (silence, code 8):
///   HA Notify ──ack──► code 7 ──────────────► later, with all others      │ again after 2, 4, 8 ... s
///                      any other, silence ──► the peer is told by us      │
/// ```
struct Announcing: Sendable {
    enum Action: Equatable, Sendable {
        /// MA Notify, unless that is under way.
        case tell(HomeAddress)
        /// The peer's traffic leaves from the own address that is the first for it.
        case follow(HomeAddress)
        /// There is a record of ours with this sequence.
        case goBeyond(HomeAddress, sequence: UInt64)
        /// Somebody answered as if our IMS did not know us.
        case suspectLoss(HomeAddress)
        /// Its IMS has answered HA Notify, or will not.
        case notified(HomeAddress, inVain: Bool)
        /// HA Notify is to be repeated before the next poll.
        case notifyAgain(HomeAddress)
        /// An IMS takes HA Notifies again then.
        case wake(IPAddress, at: MonotonicTime)
        case log(NodeLogLevel, String)
    }

    /// Whether HA Notify may go to a peer's IMS.
    enum OnNotify: Equatable, Sendable {
        case go(to: [Endpoint])
        /// The IMS has had as many as it takes; looked at again then.
        case later(IPAddress, at: MonotonicTime)
        case impossible(String)
    }

    /// What the own HoA that talks to a peer has to tell.
    struct Own: Sendable {
        let hoa: HomeAddress
        let announcement: Announcement
        let certificate: Certificate
        /// The addresses of its record, in order: an IMS believes a notifier only at such a source (protocol.md section 7 (3)).
        let places: [MobileAddress]

        /// Where an IMS is notified from: the first of a family that it has an address of.
        func source(to servers: ServerSet?) -> MobileAddress? {
            places.first { moa in servers?.endpoints.contains { $0.family == moa.family } ?? false } ?? places.first
        }
    }

    private var queues: NotifyQueues

    init(_ configuration: NodeCoreConfiguration) { queues = NotifyQueues(countMax: configuration.share(of: NotifyQueues.countMax)) }

    // MARK: Who knows

    /// Whether the peer, or its IMS for it, has acked our newest record.
    func knows(_ peer: Peer, _ own: Own) -> Bool { peer.telling.knows(own.announcement.number) }

    /// Whether it does not, and nobody is about to tell it.
    func isUntold(_ peer: Peer, _ own: Own) -> Bool { !knows(peer, own) && !own.announcement.isOwed }

    /// Whether a peer that kept its old path is told again: its agent has just given a sign of life, or it is polled anyway.
    func isToldAgain(_ peer: Peer, isBehind: Bool, _ own: Own) -> Bool {
        peer.telling.duties.isEmpty && isBehind && !own.announcement.isOwed
    }

    /// The peer, or its IMS for it, has acked our record of a move. What was on its way when we moved again says nothing of where we are now.
    func knowsUs(_ hoa: HomeAddress, of move: UInt32?, in peers: inout PeerTable, _ own: Own) {
        guard move == own.announcement.number else { return }
        peers.update(hoa) { $0.tell { $0.acked(own.announcement.number) } }
    }

    // MARK: The peer itself

    /// A peer acked our record, refused it, or stayed silent (`nil`) for the three tries of protocol.md section 7.
    ///
    /// - Parameters:
    ///   - move: which move the record was of. About another than our last there is nothing to do: the peer is told, or will be.
    ///   - began: when the first of the tries was sent.
    ///   - isBehind: its traffic leaves from an own address that is not its first, and works.
    func acked(
        _ hoa: HomeAddress, _ ack: MANotifyAck?, of move: UInt32?, since began: MonotonicTime, isBehind: Bool, in peers: inout PeerTable, _ own: Own
    ) -> [Action] {
        guard move == own.announcement.number, let peer = peers[hoa] else { return [] }
        guard let ack else {
            let log = Action.log(PeerRecords.level(peers), "peer \(hoa) did not ack our record; it will learn it from our IMS")
            return keepsPath(peer, isBehind, silentSince: began) ? [log] : [log, .follow(hoa)]
        }
        switch ack.code {
        case .ok:
            knowsUs(hoa, of: move, in: &peers, own)
            return [.follow(hoa)]
        case .stale:
            // Believed only with our own signature: anyone could name a sequence that nothing can go beyond.
            if let current = ack.current, current.record.hoa == own.hoa,
                (try? CertifiedMapping(mapping: current, certificate: own.certificate).verifySignature()) != nil
            {
                return [.goBeyond(own.hoa, sequence: current.record.sequence), .follow(hoa)]
            }
            return [.follow(hoa)]
        default:
            let reason = "\(ack.code)\(ack.text.map { " (\($0.printable))" } ?? "")"
            return (ack.code == .notFound ? [.suspectLoss(own.hoa)] : [])
                + [.log(.info, "peer \(hoa) did not take our record: \(reason); it will learn it from our IMS"), .follow(hoa)]
        }
    }

    /// Whether a peer whose agent says nothing at all keeps the path that its traffic has. Its kernel goes on accepting from all places that
    /// the agent had entered, and from no other: while our old address works, staying there is the one way that surely does.
    /// An agent that lives and has only not acked may be taken to know us by now (protocol.md section 7: three tries).
    private func keepsPath(_ peer: Peer, _ isBehind: Bool, silentSince began: MonotonicTime) -> Bool {
        isBehind && !peer.locators.contains { if case .proven(let at, _) = $0.state { at >= began } else { false } }
    }

    // MARK: Its IMS

    /// HA Notify for this peer is to go.
    mutating func notify(_ peer: HomeAddress, _ servers: ServerSet, from source: MobileAddress, now: MonotonicTime) -> OnNotify {
        let targets = servers.endpoints.filter { $0.family == source.family }
        guard let server = targets.first?.address else { return .impossible("it has no \(source.family) address") }
        return switch queues.admit(peer, to: server, now: now) {
        case .now: .go(to: targets)
        case .later(let time): .later(server, at: time)
        }
    }

    /// An IMS may take HA Notifies again: the peers whose turn it is now, one by one.
    mutating func next(for server: IPAddress, now: MonotonicTime) -> HomeAddress? { queues.next(for: server, now: now) }

    /// When it is to be looked at again.
    func due(_ server: IPAddress, now: MonotonicTime) -> MonotonicTime? { queues.due(server, now: now) }

    /// A peer's IMS answered HA Notify, or did not (`nil`).
    ///
    /// - Parameters:
    ///   - move: which move our record was of.
    ///   - servers: the peer's IMSs.
    ///   - isAwaited: packets to the peer are held. They go on now; what was in vain is repeated when communication begins.
    mutating func serverAnswered(
        _ hoa: HomeAddress, _ code: ResponseCode?, _ text: String?, of move: UInt32?, lifetime: UInt32?, _ servers: ServerSet?, isAwaited: Bool,
        in peers: inout PeerTable, _ own: Own, now: MonotonicTime
    ) -> [Action] {
        var actions: [Action] = []
        switch code {
        case .ok:
            knowsUs(hoa, of: move, in: &peers, own)
        case .tryLater:
            if let source = own.source(to: servers), let server = servers?.endpoints.first(where: { $0.family == source.family })?.address,
                let end = queues.pause(server, for: lifetime, then: hoa, now: now)
            {
                actions.append(.wake(server, at: end))
            }
            actions.append(.log(.debug, "the IMS of \(hoa) will take our HA Notify later\(text.map { " (\($0))" } ?? "")"))
        default:
            let reason = code.map { "\($0)\(text.map { " (\($0))" } ?? "")" } ?? text ?? "no answer"
            let level: NodeLogLevel = code == .authenticationFailed || code == .refused ? .warning : .info
            actions.append(.log(level, "the IMS of \(hoa) did not take our HA Notify: \(reason)"))
            // Nothing registered, or not confirmed by our IMS: if that has lost our record, we are the ones to tell it.
            if code == .notFound || code == .upstreamFailed { actions.append(.suspectLoss(own.hoa)) }
        }
        let isInVain = code == nil || code == .upstreamFailed
        if isAwaited { actions.append(.notified(hoa, inVain: isInVain)) }
        guard code != .ok, let peer = peers[hoa] else { return actions }
        // What the peer does not learn from its IMS it can learn from us.
        if !knows(peer, own) { actions.append(.tell(hoa)) }
        if !isInVain {
            peers.update(hoa) { _ = $0.tell { $0.failed() } }
        } else if !isAwaited {
            actions.append(.notifyAgain(hoa))
        }
        return actions
    }
}

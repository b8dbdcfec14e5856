import IMTPlan
import MATCore
import MATSignal

/// Unknown sources: those whose packets are held, those that turned out to be plain, and how many questions they may cause.
///
/// Each source goes through the states of `Stranger`. Here is what they have in common: the table and its bound, the budget of questions to our
/// IMS, and who waits for which HoA's IMS to answer. Anybody can make up sources, so a flood of them must cost no more than that.
struct Strangers: Sendable {
    /// A packet that the kernel handed over.
    struct Packet: Hashable, Sendable {
        var source: MobileAddress
        var own: IPAddress
        /// It could be a stranger's first packet, whom waiting would hurt.
        var opensConnection: Bool
        /// It belongs to a conversation that exists somewhere, but not here: the stack would end it.
        var isSegment: Bool
    }

    /// What the node knows of an address when its fate is decided.
    struct Surroundings: Hashable, Sendable {
        /// There are peers of its family, or entries of an earlier run, so that it may be a peer that has moved.
        var hasPeers = false
        /// A peer says that it is there, and is being asked.
        var isBeingChecked = false
        /// An IMS of a peer that it is suspected to be has not answered yet.
        var isAskingSuspects = false
    }

    enum Action: Equatable, Sendable {
        /// Let all its held packets to this own address in, untranslated.
        case pass(MobileAddress, to: IPAddress)
        /// Those only that open connections.
        case passOpeners(MobileAddress, to: IPAddress)
        case drop(MobileAddress, to: IPAddress)
        /// They are a peer's; let in if the kernel has an entry for both addresses.
        case admit(MobileAddress, at: IPAddress)
        /// Ask our IMS whose it is, and the IMSs of peers that may be there.
        case ask(MobileAddress)
        /// Our IMS says that it is this HoA: its IMS is to be found, and to confirm.
        case confirm(HomeAddress, OfferedRecord, at: MobileAddress)
        /// Our IMS gave no answer as it gives to nodes that are registered there: perhaps it has lost our record.
        case suspectLoss(AddressFamily)
        case change(IMTChange)
        /// The changes so far go before what follows.
        case commit
        case wake(MobileAddress, at: MonotonicTime)
        /// Neither its time nor our IMS's answer is waited for any more.
        case stopWaiting(MobileAddress)
        case count(WritableKeyPath<NodeCounters, UInt64> & Sendable)
        case log(NodeLogLevel, String)
    }

    private let strangersMax: Int
    /// How long any packet of an unknown source waits.
    private let holdMax: Duration
    /// How long a source that our IMS does not know may still turn out to be a peer that moved just now.
    private let movedPeerWaitMax: Duration

    private var strangers: [MobileAddress: Stranger] = [:]
    /// The budget of HA Query is in two parts, so that a flood of openers leaves some for what only an answer lets in.
    private var openerQueries: RateLimit
    private var otherQueries: RateLimit
    /// Lines of the log about them.
    private var reports = RateLimit(perSecond: 2)
    /// Sources of which something passed, and until when they are remembered as plain: a record that lists one clears it.
    private var plainSources: [MobileAddress: MonotonicTime] = [:]
    /// Strangers by the HoA that our IMS says they are, and by the peers whose IMSs were asked because of them.
    private var candidates: [HomeAddress: Set<MobileAddress>] = [:]
    private var suspicions: [HomeAddress: Set<MobileAddress>] = [:]

    init(_ configuration: NodeCoreConfiguration) {
        strangersMax = configuration.strangersMax
        holdMax = configuration.strangerHoldMax
        movedPeerWaitMax = configuration.movedPeerWaitMax
        let openers = max(1, configuration.strangerQueriesPerSecond * 2 / 3)
        openerQueries = RateLimit(perSecond: openers)
        otherQueries = RateLimit(perSecond: max(1, configuration.strangerQueriesPerSecond - openers))
    }

    // MARK: Questions

    var count: Int { strangers.count }
    var isEmpty: Bool { strangers.isEmpty }

    /// Whether our IMS says of some stranger that it is this HoA.
    func hasCandidate(_ hoa: HomeAddress) -> Bool { candidates[hoa] != nil }

    /// The strangers of which our IMS says so.
    func named(_ hoa: HomeAddress) -> [MobileAddress] { candidates[hoa]?.sorted() ?? [] }

    /// The strangers because of which this peer's IMS was asked.
    func waiting(for peer: HomeAddress) -> [MobileAddress] { suspicions[peer]?.sorted() ?? [] }

    func suspects(of moa: MobileAddress) -> [HomeAddress] { strangers[moa]?.suspects ?? [] }

    /// Whether something from there was let in untranslated, of late.
    func hasPassed(_ moa: MobileAddress) -> Bool { plainSources[moa] != nil }

    // MARK: Packets

    /// A packet of an unknown source is held.
    ///
    /// - Parameters:
    ///   - canAsk: our IMS would answer: this node is registered there.
    ///   - openersWait: how long what opens a connection waits for that answer.
    ///   - hasPeers: as `Surroundings.hasPeers`, which is all that counts here: what else they tell would be worked out for each packet of a flood.
    mutating func hold(_ packet: Packet, canAsk: Bool, openersWait: Duration, hasPeers: Bool, now: MonotonicTime) -> [Action] {
        let moa = packet.source
        if strangers[moa] != nil { return join(packet, openersWait: openersWait, now) }
        if let until = plainSources[moa], until > now, !(packet.isSegment && hasPeers) {
            // The kernel still asks about packets that the stack would answer.
            return [.pass(moa, to: packet.own)]
        }
        let isAsked = canAsk && strangers.count < strangersMax && takeQuestion(packet, now)
        if packet.opensConnection && !isAsked {
            // Nobody to ask (HA Query is answered to registered locators only), or no room, or a flood: it passes, and nothing is
            // remembered; a flood must cost the kernel no transactions. The kernel lets others of this source pass by itself.
            rememberPassed(moa, until: now)
            return [.count(\.strangersPlain), .pass(moa, to: packet.own)]
        }
        // What does not open a connection is dropped, never answered.
        guard strangers.count < strangersMax else { return [.drop(moa, to: packet.own)] }
        let stranger = Stranger(packet, openersWait: openersWait, holdMax: holdMax, now: now)
        strangers[moa] = stranger
        // Without a question it waits for a MA Notify.
        return [.wake(moa, at: stranger.nextDue)] + (isAsked ? [.count(\.strangersAsked), .ask(moa)] : [])
    }

    /// Another packet of a stranger that is being found out about.
    private mutating func join(_ packet: Packet, openersWait: Duration, _ now: MonotonicTime) -> [Action] {
        guard var stranger = strangers[packet.source] else { return [] }
        let passes = stranger.hold(packet, openersWait: openersWait, now: now)
        strangers[packet.source] = stranger
        return (passes ? [.passOpeners(packet.source, to: packet.own)] : []) + [.wake(packet.source, at: stranger.nextDue)]
    }

    /// Whether a question because of it would be within the bounds. In a flood it hardly ever is, and whom to ask need not be worked out.
    func mayAsk(because packet: Packet, now: MonotonicTime) -> Bool {
        guard strangers[packet.source] == nil, strangers.count < strangersMax else { return false }
        return (packet.opensConnection ? openerQueries : otherQueries).hasToken(at: now)
    }

    private mutating func takeQuestion(_ packet: Packet, _ now: MonotonicTime) -> Bool {
        packet.opensConnection ? openerQueries.take(at: now) : otherQueries.take(at: now)
    }

    /// These peers' IMSs are asked because of it.
    mutating func suspect(_ suspects: [HomeAddress], of moa: MobileAddress) {
        guard strangers[moa] != nil else { return }
        strangers[moa]?.suspects = suspects
        for peer in suspects { suspicions[peer, default: []].insert(moa) }
    }

    // MARK: Our IMS's answer

    /// Our IMS answered HA Query, or not (`nil`).
    mutating func answered(_ moa: MobileAddress, _ answer: HAAnswer?, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard strangers[moa] != nil else { return [] }
        switch answer?.code {
        case .ok?:
            guard let mapping = answer?.mapping, let certificate = answer?.certificate, let hoa = mapping.record.hoa(at: moa) else {
                return [.log(.warning, "our IMS named an HoA for \(moa) whose record does not list it")]
            }
            setAnswer(.named(hoa), of: moa)
            // The wait for our IMS is over; what follows has a bound of its own, for what opens connections too, in the kernel as well.
            return postpone(moa, to: now + holdMax) + [
                .change(.holdOpeners(moa.address, lifetime: holdMax)), .confirm(hoa, OfferedRecord(mapping, under: certificate), at: moa),
            ]
        case .notFound?:
            setAnswer(
                .notFound(plainUntil: now + .seconds(Int64(min(Self.notFoundSecondsMax, answer?.lifetime ?? Self.notFoundSecondsMax)))), of: moa)
            return settle(moa, around, now: now)
        default:
            var actions: [Action] = []
            // It answers its registered nodes only.
            if answer?.code == .refused { actions.append(.suspectLoss(moa.family)) }
            if let answer {
                actions.append(.log(.info, "our IMS does not say whose \(moa) is: \(answer.code)\(answer.text.map { " (\($0.printable))" } ?? "")"))
            }
            let end = now + .seconds(1)
            let isPlain = strangers[moa]?.sendsOpenersOnly == true
            return actions + (isPlain ? pass(moa, until: end, around, now) : passOpeners(moa, until: end, now))
        }
    }

    /// For how long it may be remembered at most that our IMS knows no HoA.
    private static let notFoundSecondsMax: UInt32 = 5

    /// The HoA that our IMS named for it is not there: its own IMS says so.
    mutating func denied(_ moa: MobileAddress, by hoa: HomeAddress, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        setAnswer(.notFound(plainUntil: now + .seconds(1)), of: moa)
        return [.log(.info, "our IMS took \(moa) for \(hoa), whose own IMS does not list it")] + settle(moa, around, now: now)
    }

    /// Something that its fate may wait for has ended, if our IMS knows no HoA for it. One of our peers may have moved there all the same,
    /// before anyone was told. What opens a connection passes, alone: if the address as a whole passed, a moved peer's next segment would be
    /// answered with a reset. The rest waits for the peers' IMSs' answers, and a moment longer.
    mutating func settle(_ moa: MobileAddress, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard let stranger = strangers[moa], case .notFound(let plainUntil) = stranger.answer else { return [] }
        let latest = stranger.started + holdMax
        // A peer says that it is there, and is being asked: what opens waits for that too.
        guard !around.isBeingChecked else { return postpone(moa, to: latest) }
        guard around.hasPeers else { return pass(moa, until: plainUntil, around, now) }
        let opened = passOpeners(moa, until: plainUntil, now)
        let end = stranger.started + movedPeerWaitMax
        if now < end { return opened + postpone(moa, to: end) }
        if mayBeMovedPeer(stranger, around) || around.isAskingSuspects { return opened + postpone(moa, to: latest) }
        return opened + pass(moa, until: plainUntil, around, now)
    }

    /// A segment or datagram of a conversation that no socket here has, while there are peers of this run or an earlier: rather one of theirs than a
    /// plain host's, which would have a socket. Passing it would reset a mapped flow, dropping it costs a plain one nothing.
    private func mayBeMovedPeer(_ stranger: Stranger, _ around: Surroundings) -> Bool { stranger.mayBeReset && around.hasPeers }

    /// Waits on until then, for all of its packets alike.
    private mutating func postpone(_ moa: MobileAddress, to due: MonotonicTime) -> [Action] {
        guard var stranger = strangers[moa] else { return [] }
        stranger.endOpenersWait()
        stranger.due = due
        strangers[moa] = stranger
        return [.wake(moa, at: stranger.nextDue)]
    }

    // MARK: How it ends

    /// What opens a connection from it passes: what waits now, and what comes while our IMS's answer may be remembered, in the kernel.
    private mutating func passOpeners(_ moa: MobileAddress, until end: MonotonicTime, _ now: MonotonicTime) -> [Action] {
        let owns = strangers[moa]?.owns.sorted() ?? []
        return letOpen(moa, until: end, now) + [.commit] + owns.map { .passOpeners(moa, to: $0) }
    }

    /// The kernel is told so.
    private mutating func letOpen(_ moa: MobileAddress, until end: MonotonicTime, _ now: MonotonicTime) -> [Action] {
        guard strangers[moa]?.isLetOpen == false else { return [] }
        strangers[moa]?.isLetOpen = true
        rememberPassed(moa, until: max(end, now))
        return end > now ? [.change(.letOpen(moa.address, lifetime: end - now))] : []
    }

    /// Lets packets from it in untranslated, but for those that could end a moved peer's conversation, and remembers that for a moment.
    private mutating func pass(_ moa: MobileAddress, until end: MonotonicTime, _ around: Surroundings, _ now: MonotonicTime) -> [Action] {
        // Both in one transaction, what opens a connection and what does not.
        var actions = letOpen(moa, until: end, now)
        guard let stranger = remove(moa) else { return actions }
        rememberPassed(moa, until: max(end, now))
        actions += [.stopWaiting(moa), .count(\.strangersPlain)]
        // While there are peers the kernel is not told: the address as a whole would pass, and if it is a moved peer's after all, its
        // next segment or datagram would be answered by a reset or port unreachable. What may pass then passes here, one by one.
        if !around.hasPeers { actions.append(.change(.setPlain(moa.address, lifetime: max(end - now, .seconds(1))))) }
        return actions + [.commit] + stranger.owns.sorted().map { .pass(moa, to: $0) }
    }

    /// The address has become known as a peer's place.
    mutating func identified(_ moa: MobileAddress) -> [Action] {
        guard let stranger = remove(moa) else { return [] }
        return [.stopWaiting(moa), .count(\.strangersIdentified), .commit] + stranger.owns.sorted().map { .admit(moa, at: $0) }
    }

    /// Its time has come: what opens a connection has waited long enough, or everything has.
    mutating func due(_ moa: MobileAddress, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard var stranger = strangers[moa] else { return [] }
        let openersPass = stranger.owns.sorted().map { Action.passOpeners(moa, to: $0) }
        var actions: [Action] = []
        if case .waiting(let end) = stranger.openers, end <= now {
            // They pass, and nothing is remembered: the answer is still to come, and what is no opener waits for it.
            stranger.openers = .passing
            strangers[moa] = stranger
            actions = openersPass
            if now < stranger.due { return actions + [.wake(moa, at: stranger.nextDue)] }
        }
        let isNotFound: Bool
        if case .notFound(let plainUntil) = stranger.answer {
            if now < stranger.started + holdMax { return actions + settle(moa, around, now: now) }
            if !mayBeMovedPeer(stranger, around) { return actions + pass(moa, until: plainUntil, around, now) }
            isNotFound = true
        } else {
            isNotFound = false
        }
        if case .waiting = stranger.openers { actions += openersPass }
        remove(moa)
        actions.append(.stopWaiting(moa))
        // Openers that are let in by now have nothing to do with it.
        if !(stranger.openers == .passing && stranger.sendsOpenersOnly), reports.take(at: now) {
            actions.append(
                .log(
                    .info,
                    isNotFound
                        ? "\(moa) is no node's for our IMS, but what it sends fits no socket here and may be a moved peer's; it is dropped unanswered while this node has peers"
                        : "whose \(moa) is could not be found out; its packets are dropped unanswered"))
        }
        return actions + stranger.owns.sorted().map { .drop(moa, to: $0) }
    }

    /// A record that lists an address clears a remembered not found (section 7).
    mutating func listed(by record: MappingRecord) -> [Action] {
        let listed = record.isNetwork ? plainSources.keys.filter(record.lists).sorted() : record.locators.map(\.moa)
        return listed.filter { plainSources.removeValue(forKey: $0) != nil }.flatMap {
            [.change(.removePlain($0.address)), .change(.askAgain($0.address))]
        }
    }

    // MARK: Tables

    private mutating func setAnswer(_ answer: Stranger.Answer, of moa: MobileAddress) {
        if let old = strangers[moa]?.candidate { Self.remove(moa, under: old, from: &candidates) }
        strangers[moa]?.answer = answer
        if case .named(let hoa) = answer { candidates[hoa, default: []].insert(moa) }
    }

    /// Forgets a stranger, and what stands of it in the other tables.
    @discardableResult
    private mutating func remove(_ moa: MobileAddress) -> Stranger? {
        guard let stranger = strangers.removeValue(forKey: moa) else { return nil }
        if let candidate = stranger.candidate { Self.remove(moa, under: candidate, from: &candidates) }
        for suspect in stranger.suspects { Self.remove(moa, under: suspect, from: &suspicions) }
        return stranger
    }

    private static func remove(_ moa: MobileAddress, under hoa: HomeAddress, from table: inout [HomeAddress: Set<MobileAddress>]) {
        table[hoa]?.remove(moa)
        if table[hoa]?.isEmpty ?? false { table[hoa] = nil }
    }

    /// Something of it went to the stack untranslated.
    private mutating func rememberPassed(_ moa: MobileAddress, until: MonotonicTime) {
        plainSources.makeRoom(for: moa, max: strangersMax) { $1 }
        plainSources[moa] = max(until, plainSources[moa] ?? until)
    }
}

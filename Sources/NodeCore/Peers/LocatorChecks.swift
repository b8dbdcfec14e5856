import MATCore
import MATSignal

/// Which peer is at which address (protocol.md section 6, "Locator check"). How far one locator is believed is `LocatorState`'s; here is whom to
/// ask, and what follows for all peers: an address belongs to whoever proved last that he is there.
///
/// ```
///    a record lists it;                  code 0, or MA Notify under our cookie
///    each poll; its own time ──► ask ──┬──────────────────────────────────────────► proved ──► the peer's alone, and in the kernel
///      ▲                               │                                               └──────► who was there before has lost it: its IMS is asked
///      │ packets wait, and             ├── code 4 ──────────────────────────────────► denied ─► its IMS is asked where it is
///      │ it was refused                └── nothing, though others answer us ────────► one check less that its proof lasts
///      └─ both within a budget: what strangers send can cause them
/// ```
struct LocatorChecks: Sendable {
    enum Action: Equatable, Sendable {
        /// MA Query to where the node that answers for the locator listens, unless that is under way: "are you this HoA, here?"
        case ask(HomeAddress, MobileAddress, at: Endpoint)
        case stopAsking(HomeAddress, MobileAddress)
        case wake(HomeAddress, MobileAddress, at: MonotonicTime)
        case stopWaking(HomeAddress, MobileAddress)
        /// What the kernel is to have of this peer has changed.
        case arrange(HomeAddress)
        /// A place of this peer's record does not answer: perhaps the record is refuted.
        case doubt(HomeAddress)
        /// Its IMS knows where it is.
        case askServers(HomeAddress)
        /// It can be asked only when there is an own address.
        case waitForAddress(HomeAddress)
        /// Who listed this address is not there: what came from there waits for nothing more.
        case settle(MobileAddress)
        /// Its agent lives.
        case heard(HomeAddress)
        case log(NodeLogLevel, String)
    }

    /// What the node knows of itself.
    struct Surroundings: Sendable {
        let addresses: UsableAddresses
        /// What an earlier run left.
        let adoption: Adoption
    }

    /// Checks and questions out of turn.
    private var outOfTurn: RateLimit

    init(_ configuration: NodeCoreConfiguration) { outOfTurn = RateLimit(perSecond: configuration.recheckedPerSecond) }

    // MARK: Who is found by which address

    /// Lets the peer be found by the places that it lists, and gives up those that it no longer lists.
    func claim(_ hoa: HomeAddress, in peers: inout PeerTable) -> [Action] {
        var actions: [Action] = []
        for locator in peers[hoa]?.locators ?? PeerLocators() {
            if locator.roles.isDisjoint(with: [.listed, .earlier]) {
                if locator.roles.contains(.claimed) { actions += giveUp(locator.moa, of: hoa, in: &peers) }
            } else if !locator.roles.contains(.claimed) {
                peers.claim(locator.moa, for: hoa)
            }
        }
        return actions
    }

    private func giveUp(_ moa: MobileAddress, of hoa: HomeAddress, in peers: inout PeerTable) -> [Action] {
        peers.release(moa, of: hoa)
        let isForgotten = peers.update(hoa) { $0.forget(moa) } ?? false
        return [.stopAsking(hoa, moa)] + (isForgotten ? [.stopWaking(hoa, moa)] : [])
    }

    /// The peer is one no more.
    func releaseAll(of hoa: HomeAddress, in peers: inout PeerTable) -> [Action] {
        (peers[hoa]?.locators ?? PeerLocators()).flatMap { locator -> [Action] in
            peers.release(locator.moa, of: hoa)
            return [.stopAsking(hoa, locator.moa), .stopWaking(hoa, locator.moa)]
        }
    }

    // MARK: Whom to ask

    /// Asks at all places that the record lists, standby ones too, those that have not been asked since they were learned.
    func askLearned(_ hoa: HomeAddress, in peers: inout PeerTable, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for locator in peers[hoa]?.locators ?? PeerLocators() where locator.roles.contains(.listed) && locator.state == .unchecked {
            guard around.addresses.canBeLocator(locator.moa, of: hoa), around.addresses.has(locator.moa.family) else { continue }
            tell(locator.moa, of: hoa, .listed, in: &peers, around, now, &actions)
            actions += ask(locator.moa, of: hoa, peers)
        }
        return actions
    }

    /// Asks at all places of the record again: with each poll.
    func askListed(_ hoa: HomeAddress, _ peers: PeerTable, _ addresses: UsableAddresses) -> [Action] {
        listed(hoa, peers, addresses).flatMap { ask($0.moa, of: hoa, peers) }
    }

    /// Asks once more at places that were refused, because somebody has packets for the peer or from there: what had failed may work
    /// again, and its own time would come too late.
    mutating func askRefused(
        _ hoa: HomeAddress, at moa: MobileAddress? = nil, _ peers: PeerTable, _ addresses: UsableAddresses, isBeingAsked: (MobileAddress) -> Bool,
        now: MonotonicTime
    ) -> [Action] {
        var actions: [Action] = []
        for locator in listed(hoa, peers, addresses) where locator.state.isRefused && moa ?? locator.moa == locator.moa {
            guard !isBeingAsked(locator.moa), outOfTurn.take(at: now) else { continue }
            actions += ask(locator.moa, of: hoa, peers)
        }
        return actions
    }

    private func listed(_ hoa: HomeAddress, _ peers: PeerTable, _ addresses: UsableAddresses) -> [PeerLocator] {
        peers[hoa]?.locators.filter { $0.roles.contains(.listed) && addresses.canBeLocator($0.moa, of: hoa) } ?? []
    }

    private func ask(_ moa: MobileAddress, of hoa: HomeAddress, _ peers: PeerTable) -> [Action] {
        peers[hoa].map { [.ask(hoa, moa, at: Endpoint($0.signallingAddress(of: moa), port: SignalPort.node))] } ?? []
    }

    /// Whether some peer says that it is there and is being asked.
    func isBeingChecked(_ moa: MobileAddress, _ peers: PeerTable) -> Bool {
        peers.claimants(of: moa).contains { peers[$0]?.locators[moa]?.state.isOpen ?? false }
    }

    // MARK: What was heard

    /// The node at this address says that it is not this HoA.
    ///
    /// - Parameter isAsked: its IMS is being asked already.
    mutating func denied(
        _ moa: MobileAddress, of hoa: HomeAddress, isAsked: Bool, in peers: inout PeerTable, _ around: Surroundings, now: MonotonicTime
    ) -> [Action] {
        guard let isListed = peers[hoa]?.lists(moa) else { return [] }
        var actions: [Action] = [.log(.info, "\(moa) says that it is not \(hoa)")]
        if tell(moa, of: hoa, .denied, in: &peers, around, now, &actions) { actions += Self.refused(moa, of: hoa) }
        actions.append(.doubt(hoa))
        // The peer moved, or its address went to another host: its IMS knows.
        if isListed, !isAsked, outOfTurn.take(at: now) { actions.append(.askServers(hoa)) }
        return actions + [.settle(moa)]
    }

    /// A check had no answer, though others answer us: while nobody does, silence says nothing about this peer.
    func unanswered(_ moa: MobileAddress, of hoa: HomeAddress, in peers: inout PeerTable, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        guard tell(moa, of: hoa, .unanswered, in: &peers, around, now, &actions) else { return actions }
        return actions + [.log(.info, "\(moa) has not answered \(LocatorState.unansweredMax) times whether it is \(hoa)")]
            + Self.refused(moa, of: hoa)
    }

    /// This peer has proved that it is there: who was taken to be there before is there no more. That is done first, for both have an entry of the
    /// same key in the kernel's map.
    ///
    /// - Parameter isAsked: whether a peer's IMS is being asked already.
    func displace(
        from moa: MobileAddress, by hoa: HomeAddress, isAsked: (HomeAddress) -> Bool, in peers: inout PeerTable, _ around: Surroundings,
        now: MonotonicTime
    ) -> [Action] {
        guard isKnown(moa, of: hoa, peers), let holder = peers.holder(of: moa), holder != hoa else { return [] }
        var actions: [Action] = [.log(.notice, "\(hoa) has proved that it is at \(moa), where \(holder) was")]
        tell(moa, of: holder, .lost, in: &peers, around, now, &actions)
        return actions + Self.refused(moa, of: holder) + (isAsked(holder) ? [] : [.askServers(holder)])
    }

    /// The node at this address has shown that it is this HoA, there.
    func proved(_ moa: MobileAddress, of hoa: HomeAddress, in peers: inout PeerTable, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard isKnown(moa, of: hoa, peers) else { return [] }
        var actions: [Action] = []
        peers.claim(moa, for: hoa, isCertain: true)
        if peers[hoa]?.locators[moa]?.state.isRefused ?? false { actions.append(.log(.info, "\(moa) has proved that it is \(hoa)")) }
        if tell(moa, of: hoa, .proved, in: &peers, around, now, &actions) { actions.append(.arrange(hoa)) }
        return actions + [.heard(hoa)]
    }

    private func isKnown(_ moa: MobileAddress, of hoa: HomeAddress, _ peers: PeerTable) -> Bool {
        peers[hoa]?.locators.has(moa, [.listed, .earlier]) ?? false
    }

    /// A valid MA Notify of this HoA came from this source: its packets count while it is checked, if nobody else is known to be there.
    func noticed(_ hoa: HomeAddress, from source: Endpoint, in peers: inout PeerTable, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard source.port == SignalPort.node, let peer = peers[hoa] else { return [] }
        var actions: [Action] = []
        var isNews = false
        for locator in peer.locators
        where locator.roles.isSuperset(of: [.listed, .claimed]) && peer.signallingAddress(of: locator.moa) == source.address {
            // What an earlier run took for another peer's may still be that one's.
            guard !locator.roles.contains(.guarded), around.addresses.canBeNoticed(locator.moa, of: hoa),
                peers.holder(of: locator.moa) ?? hoa == hoa, !around.adoption.isOthers(locator.moa, than: hoa)
            else { continue }
            isNews = tell(locator.moa, of: hoa, .noticed, in: &peers, around, now, &actions) || isNews
        }
        return actions + (isNews ? [.arrange(hoa)] : [])
    }

    /// The time of an unproven locator, or of a refused one, is up.
    func due(_ moa: MobileAddress, of hoa: HomeAddress, in peers: inout PeerTable, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard let locator = peers[hoa]?.locators[moa] else { return [] }
        var actions: [Action] = []
        if locator.state.isOpen, !around.addresses.has(moa.family) {
            // Without an address of our own nobody could be asked; the time counts anew when there is one.
            actions.append(.waitForAddress(hoa))
            if tell(moa, of: hoa, .stranded, in: &peers, around, now, &actions) { actions.append(.arrange(hoa)) }
            return actions
        }
        if locator.state.isOpen {
            actions.append(
                .log(
                    .warning,
                    "\(moa) did not prove within \(LocatorState.checkMax.components.seconds) s that it is \(hoa); it is not used for \(LocatorState.refusedTime.components.seconds) s unless it does"
                ))
        }
        tell(moa, of: hoa, .timeUp, in: &peers, around, now, &actions)
        switch peers[hoa]?.locators[moa]?.state {
        case .refused? where locator.state.isRefused:
            if locator.roles.contains(.listed), around.addresses.canBeLocator(moa, of: hoa) { actions += ask(moa, of: hoa, peers) }
        case .refused?:
            actions += Self.refused(moa, of: hoa)
        default:
            // Long enough ago to be new, or to be forgotten.
            actions.append(.arrange(hoa))
        }
        return actions
    }

    /// A locator counts no more: out of the kernel with it, in both directions.
    private static func refused(_ moa: MobileAddress, of hoa: HomeAddress) -> [Action] { [.doubt(hoa), .arrange(hoa), .settle(moa)] }

    /// Tells a locator's machine, and sets its clock.
    ///
    /// - Returns: whether packets to or from it are treated differently now.
    @discardableResult
    private func tell(
        _ moa: MobileAddress, of hoa: HomeAddress, _ event: LocatorState.Event, in peers: inout PeerTable, _ around: Surroundings,
        _ now: MonotonicTime, _ actions: inout [Action]
    ) -> Bool {
        guard case (let before, let after)?? = peers.update(hoa, { $0.hear(event, at: moa, now: now) }) else { return false }
        actions.append(after.due.map { .wake(hoa, moa, at: $0) } ?? .stopWaking(hoa, moa))
        if before.acceptsPackets != after.acceptsPackets || before.isProven != after.isProven { return true }
        // What an earlier run entered stays only while it is asked.
        return before.isOpen && !after.isOpen && around.adoption.hasEntries
    }
}

import IMTPlan
import MATSignal
import NodeCore

/// Tells a `Node` what happens and does what it says, in order. The same in the daemon and in the simulation, over a `NodeEnvironment`.
package final class NodeShell {
    /// How often the kernel's packet counts are read at most: which peers are in use decides whose paths are watched.
    private static let countInterval: Duration = .seconds(1)
    /// How much longer than a reading took it must be to the next: one half per cent of the time is spent on it, however many peers there are.
    private static let countRest = 200
    /// The longest that is still of use to tell idle peers.
    private static let countIntervalMax: Duration = .seconds(300)
    /// Likewise, of what paths in datagrams carry: 5 per cent of the time at most.
    private static let pathRest = 20
    /// Likewise, while a peer's new place is awaited, which lasts a second at most: its old network may go before we have seen that it left it.
    private static let awaitedRest = 4
    /// While there are no peers, or none in use. Often enough to tell those that are idle for long, and that the clock was set right.
    private static let idleInterval: Duration = .seconds(60)
    /// No peer has had packets for so long: from then on the kernel tells of the next one, and the counts are left alone.
    private static let restAfter: Duration = .seconds(10)

    package private(set) var node: Node
    private unowned let environment: any NodeEnvironment
    /// Sees each action before it is done.
    package var onAction: ((ShellAction) -> Void)?
    private var pending: [ShellAction] = []
    private var isPerforming = false
    private var wakeup: MonotonicTime?
    private var isReadingPaths = false
    private var isReadingOften = false
    /// What paths in datagrams carry is read no more often than that.
    private var pathUsesDue: MonotonicTime?
    private var counting = Counting.nobody

    /// How it is found out that peers are in use.
    ///
    ///     nobody ── the first peer ──► watched ── no packets for `restAfter` ──► told
    ///       ▲                           │  ▲                                      │
    ///       └──── the last peer goes ───┘  └── a packet leaves, or was counted ───┘
    ///
    /// So an agent whose peers are silent sleeps, and yet the first packet to one of them is noticed at once, and with it whether its path is dead.
    private enum Counting {
        case nobody
        /// The counts are read at short intervals; all of them together, when they last changed.
        case watched(sum: UInt64, since: MonotonicTime)
        /// The kernel will tell.
        case told(sum: UInt64)
    }

    package init(_ node: Node, over environment: any NodeEnvironment) {
        self.node = node
        self.environment = environment
    }

    /// Begins with what the kernel has of an earlier run, and the links as they are.
    package func start(_ adopted: AdoptedState, _ links: LinkSnapshot) {
        run { node, now in node.adopted(adopted, now: now) }
        run { node, now in node.linksChanged(links, now: now) }
        environment.set(.counts, at: environment.now.monotonic + Self.countInterval)
    }

    package func stop() {
        for timer in NodeTimer.allCases { environment.set(timer, at: nil) }
        (isReadingPaths, isReadingOften) = (false, false)
        if case .told = counting { _ = environment.awaitUse(false) }
        counting = .nobody
    }

    /// Lets the node decide and carries out what it says. A decision that is taken while another's actions are carried out (the DNS cache
    /// answers at once) has its actions done after those.
    package func run(_ decide: (inout Node, Now) -> [ShellAction]) {
        pending += decide(&node, environment.now)
        guard !isPerforming else { return }
        isPerforming = true
        var index = 0
        while index < pending.count {
            perform(pending[index])
            index += 1
        }
        pending.removeAll(keepingCapacity: pending.capacity < 4096)
        isPerforming = false
        sleepUntilDeadline()
        if case .nobody = counting, node.cores.peersCount > 0 {
            counting = .watched(sum: 0, since: environment.now.monotonic)
            environment.set(.counts, at: environment.now.monotonic + Self.countInterval)
        }
        let isOften = node.awaitsPlaces
        if isOften, !isReadingOften {
            // What has come before counts from now.
            readPaths(after: .zero)
        } else if !isReadingPaths, node.wantsPathUses {
            readPaths(after: Node.pathUseInterval)
        }
        isReadingOften = isOften
    }

    private func readPaths(after pause: Duration) {
        isReadingPaths = true
        environment.set(.pathUses, at: environment.now.monotonic + pause)
    }

    /// What paths in datagrams carry shows within half a second which of them is dead; only while packets go there is that of interest.
    private func readPathUses() {
        let start = environment.now.monotonic
        if pathUsesDue.map({ $0 <= start }) ?? true {
            pathUsesDue = start + Node.pathUseInterval
            let uses = environment.pathUses(of: node.pathsWatched)
            run { node, now in node.pathsUsed(uses, now: now) }
        }
        let watched = node.rewrittenWatched
        if !watched.isEmpty {
            let rewritten = environment.rewrittenUses(of: watched)
            run { node, now in node.rewritten(rewritten, now: now) }
        }
        isReadingPaths = false
        let took = environment.now.monotonic - start
        guard node.wantsPathUses else { return }
        let (interval, rest) = node.awaitsPlaces ? (Node.awaitedPlaceInterval, Self.awaitedRest) : (Node.pathUseInterval, Self.pathRest)
        readPaths(after: max(interval, took * rest))
    }

    private func sleepUntilDeadline() {
        let next = node.nextDeadline
        guard next != wakeup else { return }
        wakeup = next
        environment.set(.deadline, at: next)
    }

    package func timerFired(_ timer: NodeTimer) {
        switch timer {
        case .deadline:
            wakeup = nil
            run { node, now in node.timerFired(now: now) }
        case .counts: countPeriodically()
        case .pathUses: readPathUses()
        }
    }

    private func perform(_ action: ShellAction) {
        onAction?(action)
        switch action {
        case .send(let octets, let own, let target): environment.send(octets, from: own, to: target, ifRoom: false)
        case .sendIfRoom(let octets, let own, let target): environment.send(octets, from: own, to: target, ifRoom: true)
        case .sendInPath(let message): environment.sendInPath(message)
        case .usePort(let port, let own):
            if environment.use(port: port, for: own) { run { node, _ in node.usesPort(port, for: own) } }
        case .lookUp(let hoa, let core):
            environment.lookUp(hoa) { [weak self] result in
                self?.run { node, now in node.lookedUp(hoa, result, core: core, now: now) }
            }
        case .lookUpKeys(let prefix, let core):
            environment.lookUpKeys(prefix) { [weak self] result in
                self?.run { node, now in node.keysLookedUp(prefix, result, core: core, now: now) }
            }
        case .readNames:
            let (servers, areOthers) = environment.readNames()
            run { node, now in node.namesRead(servers, areOthers: areOthers, now: now) }
        case .findTranslator:
            environment.findTranslator { [weak self] answer in
                self?.run { node, now in node.translatorSought(answer, now: now) }
            }
        case .changeIMT(let changes, let linkAddresses): environment.commit(changes, linkAddresses: linkAddresses)
        case .release(let offer, let home):
            let exit = environment.release(offer, from: home)
            run { node, now in node.exited(offer.destination, exit, now: now) }
        case .pass(let packets, let destination, let interface): environment.pass(packets, to: destination, by: interface)
        case .deliver(let packets): environment.deliver(packets)
        case .remember(let hoa, let sequence): environment.keep(sequence: sequence, of: hoa)
        case .keepCertificate(let certificate): environment.keep(certificate)
        case .log(let level, let text): environment.log(level, text)
        case .enterHome(let home): environment.enter(home)
        case .leaveHome(let home): environment.leave(home)
        case .answerVisit(let program, let answer): environment.answer(program, answer)
        }
    }

    // MARK: Counting

    private func countPeriodically() {
        let start = environment.now.monotonic
        let isSynchronized = environment.isClockSynchronized
        run { node, now in
            node.timePassed(isClockSynchronized: isSynchronized, now: now)
            return []
        }
        // Without peers nobody counts, and the kernel need not be asked.
        guard node.cores.peersCount > 0 else {
            if case .told = counting { _ = environment.awaitUse(false) }
            counting = .nobody
            return environment.set(.counts, at: start + Self.idleInterval)
        }
        let counts = environment.packetCounts()
        tell(counts)
        counting = counting(with: counts.values.reduce(0) { $0 &+ $1.sum }, start)
        let now = environment.now.monotonic
        if case .told = counting { return environment.set(.counts, at: now + Self.idleInterval) }
        environment.set(.counts, at: now + min(Self.countIntervalMax, max(Self.countInterval, (now - start) * Self.countRest)))
    }

    /// What follows from the sum of all counts.
    private func counting(with sum: UInt64, _ now: MonotonicTime) -> Counting {
        switch counting {
        case .nobody: return .watched(sum: sum, since: now)
        case .watched(let before, let since):
            guard sum == before else { return .watched(sum: sum, since: now) }
            return now - since >= Self.restAfter && environment.awaitUse(true) ? .told(sum: sum) : counting
        case .told(let before):
            // What only comes in is not told of.
            guard sum != before else { return counting }
            _ = environment.awaitUse(false)
            return .watched(sum: sum, since: now)
        }
    }

    /// A packet leaves for a peer, for the first time in a while.
    package func used() {
        guard case .told(let sum) = counting else { return }
        _ = environment.awaitUse(false)
        counting = .watched(sum: sum, since: environment.now.monotonic)
        countPeriodically()
    }

    /// Tells how many packets each peer's entries have translated, so that idle peers can be told from used ones.
    package func tell(_ counts: [HomePair: PeerPackets]) {
        run { node, now in node.traffic(counts, now: now) }
    }
}

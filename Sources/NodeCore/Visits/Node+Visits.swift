import MATCore
import MATSignal

// Visited homes: what `Visits` is told, and what is done of what it says.

extension Node {
    /// In a `lookUp`, in the place of a core's number.
    static let visitsCore = -1

    /// A program wants a home address of the network that the node is in; `ShellAction.answerVisit` says what it gets.
    package mutating func visit(_ program: VisitingProgram, _ family: AddressFamily, now: Now) -> [ShellAction] {
        guard visits != nil else {
            return [.answerVisit(program, .refused("this node takes no visited homes; write `visited: yes` into matd.yaml"))]
        }
        let around = surroundings(family)
        return perform(visits?.request(program, family, around) ?? [], now)
    }

    /// The program is done, or gone.
    package mutating func endVisit(_ program: VisitingProgram, now: Now) -> [ShellAction] {
        visits?.release(program, now.monotonic)
        return []
    }

    /// Programs start from these homes, as they were told to (`mat run`), and from no others: visited ones among them are theirs.
    package mutating func programsSteered(from homes: Set<HomeAddress>, now: Now) -> [ShellAction] {
        visits?.steered(from: homes, now.monotonic)
        return []
    }

    /// Programs of an earlier run start from these, and their sockets are bound there.
    mutating func takeOver(visited homes: [HomeAddress], _ now: Now) -> [ShellAction] {
        guard !homes.isEmpty else { return [] }
        let identities = AddressFamily.allCases.reduce(into: [:]) { $0[$1] = surroundings($1).home }
        let unkept = visits?.takeOver(homes, home: { identities[$0] }, now.monotonic) ?? homes
        return unkept.flatMap {
            [.log(.warning, "programs were started as \($0), a visited home that can't be kept; their connections end"), .leaveHome($0)]
        }
    }

    /// What comes from or for a visited home that nobody speaks for yet is not another home's; whoever sent it does so again.
    func awaitsHome(_ address: IPAddress) -> Bool { visits?.isBeingTakenOver(address) ?? false }

    /// Visited homes, each with the number of programs that use it.
    package var visitedHomes: [(hoa: HomeAddress, programs: Int)] { visits?.held ?? [] }

    private func surroundings(_ family: AddressFamily = .ipv4) -> Visit.Surroundings {
        cores.surroundings(family, isTranslatable: { !StandIns.isStandIn($0) })
    }

    mutating func visitLookedUp(_ name: HomeAddress, _ result: ServerLookup, _ now: Now) -> [ShellAction] {
        let around = surroundings()
        return perform(visits?.lookedUp(name, result, around, now) ?? [], now)
    }

    mutating func visitsReceived(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, _ now: Now) -> [ShellAction] {
        guard visits?.isEmpty == false else { return [] }
        var done: [ShellAction] = []
        for case .message(let message, _) in SignalDatagram.decode(datagram) where !message.type.isRequest {
            if let actions = visits?.received(message, from: source, to: local, now) { done += perform(actions, now) }
        }
        return done
    }

    /// Whose IMS holds its record by now.
    mutating func visitsRegistered(_ now: Now) -> [ShellAction] {
        guard let awaited = visits?.awaited, !awaited.isEmpty else { return [] }
        var done: [ShellAction] = []
        for hoa in awaited where cores.isKnown(hoa) { done += perform(visits?.registered(hoa, now.monotonic) ?? [], now) }
        return done
    }

    mutating func visitsDue(_ now: Now) -> [ShellAction] {
        guard let due = visits?.nextDue, due <= now.monotonic else { return [] }
        let around = surroundings()
        return perform(visits?.due(around, now) ?? [], now)
    }

    private mutating func perform(_ visiting: [Visits.Action], _ now: Now) -> [ShellAction] {
        var done: [ShellAction] = []
        for action in visiting {
            switch action {
            case .lookUp(let name): done.append(.lookUp(name, core: Self.visitsCore))
            case .send(let octets, let own, let target): done.append(.send(octets, from: own, to: target))
            case .enter(let identity):
                // The kernel has the address before anything is said of its packets.
                done.append(.enterHome(identity.hoa))
                done += actions(cores.enter(identity, now: now), now)
            case .prolonged(let certificate): done += actions(cores.prolong(certificate, now: now), now)
            case .leave(let hoa):
                let (steps, sequence) = cores.leave(hoa, now: now)
                done += actions(steps, now) + [.leaveHome(hoa)]
                let around = surroundings()
                done += perform(visits?.left(hoa, sequence: sequence, around, now) ?? [], now)
            case .answer(let program, let answer): done.append(.answerVisit(program, answer))
            case .log(let level, let text): done.append(.log(level, text))
            }
        }
        return done
    }
}

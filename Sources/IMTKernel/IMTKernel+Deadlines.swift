import IMTPlan
import MATCore
import MATRuntime
import MATSignal

/// What the kernel side waits for.
enum KernelDeadline: Hashable, Sendable {
    /// A plain destination's time ends.
    case plainDestinations
    /// An own MoA that went away is forgotten.
    case retiredAddresses
    /// Plain flows with new peers may be searched for again.
    case plainSearch
    /// What others did to tables, routes and the order of rules is put back.
    case tableRepair, routeRepair, ruleOrder
    /// Routes of the main table changed, and what follows from it waits for more of the kind: a routing daemon makes many.
    case mainRoutes
    /// The routers of links with several are looked after.
    case routers
    /// More peers' routes are looked at.
    case peerRoutes
    /// Peers that an earlier run encapsulated, and that nobody has asked for since, are given up.
    case adoptedForwarding
    /// The sockets of ended programs are asked whether source NAT is still for them.
    case lastWords
    /// The rules for packets in datagrams go.
    case encapsulation
    /// Programs are tied to new links.
    case programs
}

// All deadlines stand in one queue, on one timer of the loop.
extension IMTKernel {
    /// - Parameter time: `nil` if nothing is to be waited for any more.
    func wait(for deadline: KernelDeadline, until time: MonotonicTime?) {
        if let time { deadlines.set(deadline, at: time) } else { deadlines.cancel(deadline) }
        setAlarm()
    }

    func cancelDeadlines() {
        deadlines = DeadlineQueue()
        setAlarm()
    }

    private func setAlarm() {
        let next = deadlines.next
        guard next != alarm?.time else { return }
        if let alarm { loop.cancel(alarm.timer) }
        alarm = next.map { time in
            (time, loop.schedule(at: time) { [weak self] in self?.alarmRang() })
        }
    }

    private func alarmRang() {
        alarm = nil
        let now = SystemClock.now().monotonic
        while let deadline = deadlines.takeDue(now) { came(deadline, now) }
        setAlarm()
    }

    private func came(_ deadline: KernelDeadline, _ now: MonotonicTime) {
        switch deadline {
        case .plainDestinations: expirePlain(now)
        case .retiredAddresses: releaseRetired(now)
        case .plainSearch: searchPlainFlows()
        case .tableRepair: repairTables(tableRepair.due(now), now)
        case .routeRepair: repairRoutes(routeRepair.due(isSettled: peerSweep.isSettled, now: now), now)
        case .ruleOrder:
            ruleOrder.due()
            reviewRules()
        case .mainRoutes: routesChanged()
        case .routers: probeRouters()
        case .peerRoutes: continueSweep()
        case .adoptedForwarding: endAdoptedForwarding()
        case .lastWords: endSourceTranslation()
        case .encapsulation: endEncapsulation()
        case .programs: placeAtNewLinks()
        }
    }
}

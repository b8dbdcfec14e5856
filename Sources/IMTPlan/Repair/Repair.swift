import MATSignal

/// When something of ours that others changed is put back.
///
///             news                        repaired, or nothing was wrong
///     quiet ────────► damaged ──► repair ────────────────────────────────► quiet
///                        │  ▲
///                        ▼  │ the time has come
///                      waiting: more news is likely, or it was put back too often lately (`RepairPace`)
///
/// The tables' damage says where to look; the routes' is looked for in all of them, since a flush goes on for as long as it finds routes.
package struct TableRepair {
    package enum OnDamage {
        /// A repair waits already.
        case nothing
        case repair(RulesetNews)
        /// Something keeps changing the tables.
        case contested(until: MonotonicTime)
    }

    /// What was heard of our tables and not looked at yet.
    private var damage = RulesetNews()
    private var pace = RepairPace()
    private var isWaiting = false

    package init() {}

    package mutating func heard(_ news: RulesetNews, now: MonotonicTime) -> OnDamage {
        damage.add(news)
        return isWaiting ? .nothing : decide(now)
    }

    /// The time that was waited for has come.
    package mutating func due(_ now: MonotonicTime) -> OnDamage {
        isWaiting = false
        return decide(now)
    }

    private mutating func decide(_ now: MonotonicTime) -> OnDamage {
        let time = pace.next(now)
        guard time <= now else {
            isWaiting = true
            return .contested(until: time)
        }
        defer { damage = RulesetNews() }
        return .repair(damage)
    }

    package mutating func repaired(_ now: MonotonicTime) { pace.made(now) }
}

/// Likewise for routes and rules, which are put back when the other program has finished: `ip route flush` goes on as long as it finds a
/// route, and would take what is put back meanwhile.
package struct RouteRepair {
    /// Routes are put back when no more of them has changed for so long,
    package static let quiet: Duration = .milliseconds(30)
    /// or after so long at the latest.
    package static let waitMax: Duration = .milliseconds(400)
    /// Routes that are still being given up in portions would look like damage; looked at again after so long.
    package static let unsettledPause: Duration = .milliseconds(100)

    package enum OnDamage: Equatable {
        case nothing
        case repair
        case wait(until: MonotonicTime, isContested: Bool)
    }

    /// When routes were first and last heard to change.
    private var news: (first: MonotonicTime, last: MonotonicTime)?
    private var pace = RepairPace()
    private var isWaiting = false

    package init() {}

    /// - Parameter isSettled: whether no routes of peers are about to change by themselves.
    package mutating func heard(isSettled: Bool, now: MonotonicTime) -> OnDamage {
        news = (isWaiting ? news?.first ?? now : now, now)
        return isWaiting ? .nothing : decide(isSettled, now)
    }

    package mutating func due(isSettled: Bool, now: MonotonicTime) -> OnDamage {
        isWaiting = false
        return decide(isSettled, now)
    }

    private mutating func decide(_ isSettled: Bool, _ now: MonotonicTime) -> OnDamage {
        guard let news else { return .nothing }
        let quiet = min(news.last + Self.quiet, news.first + Self.waitMax)
        let time = max(pace.next(now), quiet, isSettled ? now : now + Self.unsettledPause)
        guard time <= now else {
            isWaiting = true
            return .wait(until: time, isContested: isSettled && time > quiet)
        }
        return .repair
    }

    package mutating func repaired(_ now: MonotonicTime) { pace.made(now) }
}

/// Likewise for the place of our rules among others': ours move before what would take their packets, each time later if somebody else
/// wants to be first as well.
package struct RuleOrder {
    package enum OnRules {
        case unchanged
        /// To be written.
        case moved(RulePlace)
        /// Until then what stands before ours takes what is ours.
        case contested(until: MonotonicTime)
    }

    package private(set) var place: RulePlace
    private var pace = RepairPace()
    private var isWaiting = false

    package init(base: UInt32) { place = RulePlace(base: base) }

    /// At the start, whatever it costs.
    package mutating func begin(_ place: RulePlace) { self.place = place }

    /// Whether rules are to be read: while a move waits, they are read then.
    package var isDue: Bool { !isWaiting }
    package mutating func due() { isWaiting = false }

    package mutating func review(_ found: RulePlace, now: MonotonicTime) -> OnRules {
        guard found != place else { return .unchanged }
        if found.base != place.base {
            let time = pace.next(now)
            guard time <= now else {
                var waiting = found
                waiting.before = (found.before + found.passed).sorted()
                (waiting.passed, waiting.base) = ([], place.base)
                place = waiting
                isWaiting = true
                return .contested(until: time)
            }
            pace.made(now)
        }
        place = found
        return .moved(found)
    }
}

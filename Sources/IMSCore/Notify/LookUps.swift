import MATCore
import MATSignal

/// Servers and keys from DNS, shared by all that is being found out.
///
/// ```
///               wanted                      ended                          its time is over
///   (nothing) ─────────► asked, HoAs wait ─────────► known: result, until ──────────────────► (nothing)
///                          │ ▲  another HoA waits      │
///                          └─┘                         └─ wanted ─► the result at once
/// ```
/// What is known is kept as long as DNS allows, and gives way when the table is full; what is being asked does not.
struct LookUps: Sendable {
    private enum LookUp: Sendable {
        case asked(waiting: Set<HomeAddress>)
        case known(IMSLookupResult, until: MonotonicTime)

        var isAsked: Bool {
            if case .asked = self { return true }
            return false
        }

        func isOver(_ now: MonotonicTime) -> Bool {
            if case .known(_, let until) = self { return until <= now }
            return false
        }
    }

    private var lookUps = RecencyTable<IPPrefix, LookUp>()

    /// Failures are remembered briefly, so that a flood of notifies doesn't become one of questions.
    static let failureAge: Duration = .seconds(2)
    /// Section 8: what DNS says is believed for at most an hour.
    static let ageMax: Duration = .seconds(3600)
    /// Entries looked at to find one that can go.
    static let stepsToRoomMax = 4

    enum OnWanted: Sendable {
        case known(IMSLookupResult)
        /// The HoA is among those that `ended` names.
        case waits
        /// The same, and the name is to be asked for.
        case ask
    }

    var count: Int { lookUps.count }

    /// What DNS says at the name is wanted for the HoA.
    mutating func wanted(_ name: IPPrefix, for hoa: HomeAddress, _ limits: IMSLimits, _ now: MonotonicTime) -> OnWanted {
        switch lookUps[name] {
        case .known(let result, let until)? where until > now:
            return .known(result)
        case .asked(var waiting)?:
            waiting.insert(hoa)
            lookUps[name] = .asked(waiting: waiting)
            return .waits
        default:
            guard
                lookUps[name] != nil || lookUps.count < limits.lookUpsMax
                    || lookUps.removeOldest(within: Self.stepsToRoomMax, where: { !$1.isAsked })
            else { return .known(.failed("too many look-ups at once")) }
            lookUps.use(name, .asked(waiting: [hoa]))
            return .ask
        }
    }

    /// - Returns: the HoAs that wait for it, in order; none if it was not asked for.
    mutating func ended(_ name: IPPrefix, _ result: IMSLookupResult, _ now: MonotonicTime) -> [HomeAddress] {
        guard case .asked(let waiting)? = lookUps[name] else { return [] }
        let until: MonotonicTime
        switch result {
        case .found(let set): until = min(set.expires, now + Self.ageMax)
        case .absent(let end): until = min(end, now + Self.ageMax)
        case .failed, .unusable: until = now + Self.failureAge
        }
        // Even a record without a lifetime serves those who asked for it.
        lookUps.use(name, .known(result, until: max(until, now + .milliseconds(1))))
        return waiting.sorted()
    }

    mutating func sweep(_ now: MonotonicTime) { lookUps.sweep(steps: Sweep.steps(lookUps.count)) { $1.isOver(now) } }
}

import DequeModule
import MATCore
import MATSignal

/// One thing to be accounted: the attributes of its Accounting-Request.
package struct AccountingRecord: Hashable, Sendable {
    package enum Status: UInt32, Hashable, Sendable { case start = 1, stop = 2, interim = 3 }

    /// Names it among those that wait; grows.
    package let number: UInt64
    package let attributes: [RADIUSAttribute]

    package init(number: UInt64, _ attributes: [RADIUSAttribute]) {
        self.number = number
        self.attributes = attributes
    }

    package var status: Status? { attributes[RADIUSAttribute.Kind.accountingStatus]?.number.flatMap(Status.init) }
    package var session: [UInt8] { attributes[RADIUSAttribute.Kind.sessionID]?.value ?? [] }
}

/// What is to be accounted, until a server has it.
///
/// ```
///                  an earlier one of its session waits: behind that
///   add ─► waiting ───────────────────────────────────────────────► next, up to `underWayMax` ─► asked ─ recorded ──► gone
///             ▲                                                                                    │ unanswered
///             └───────────────────────── at the head again, after a pause of 1 s, doubled up to 60 s ┘
/// ```
/// Of a session one is under way at a time, so that a server hears of its end after its beginning. A new interim takes the place of one that
/// waits. Nothing else is ever left away: whoever could add more than `recordsMax` is told by `hasRoom` to begin nothing.
package struct AccountingQueue: Sendable {
    package enum Action: Sendable {
        /// Ask with this ticket (the record's number).
        case ask(AccountingRecord)
        /// A server has it, or nobody wants it any more.
        case done(UInt64)
    }

    /// Ends of sessions are taken also beyond it, of which there are as many as beginnings at most.
    package static let recordsMax = 100_000
    package static let underWayMax = 64
    package static let pauseMin: Duration = .seconds(1)
    package static let pauseMax: Duration = .seconds(60)

    private var sessions: [[UInt8]: Deque<AccountingRecord>] = [:]
    /// Sessions whose first record may be asked.
    private var ready: Deque<[UInt8]> = []
    private var underWay: [UInt64: [UInt8]] = [:]
    private var pause: Duration = .zero
    private var pausedUntil: MonotonicTime?
    package private(set) var count = 0

    package init() {}

    package var hasRoom: Bool { count < Self.recordsMax }
    /// When the pause ends, if something waits for that.
    package var nextDeadline: MonotonicTime? { ready.isEmpty ? nil : pausedUntil }

    package mutating func add(_ record: AccountingRecord, _ now: MonotonicTime) -> [Action] {
        let session = record.session
        if record.status == .interim, let waiting = sessions[session], let last = waiting.last, last.status == .interim, underWay[last.number] == nil
        {
            sessions[session]?[waiting.index(before: waiting.endIndex)] = record
            return [.done(last.number)] + next(now)
        }
        if sessions[session]?.isEmpty ?? true { ready.append(session) }
        sessions[session, default: []].append(record)
        count += 1
        return next(now)
    }

    /// The servers have answered for it, or not.
    package mutating func ended(_ number: UInt64, isRecorded: Bool, _ now: MonotonicTime) -> [Action] {
        guard let session = underWay.removeValue(forKey: number) else { return [] }
        var actions: [Action] = []
        if isRecorded {
            _ = sessions[session]?.popFirst()
            count -= 1
            actions.append(.done(number))
            if sessions[session]?.isEmpty ?? true { sessions[session] = nil } else { ready.append(session) }
            (pause, pausedUntil) = (.zero, nil)
        } else {
            ready.prepend(session)
            // Those that were asked together fail together; that is one failure.
            if pausedUntil.map({ $0 <= now }) ?? true {
                pause = min(Self.pauseMax, max(Self.pauseMin, pause + pause))
                pausedUntil = now + pause
            }
        }
        return actions + next(now)
    }

    /// The pause has ended.
    package mutating func due(_ now: MonotonicTime) -> [Action] { next(now) }

    private mutating func next(_ now: MonotonicTime) -> [Action] {
        guard pausedUntil.map({ $0 <= now }) ?? true else { return [] }
        // After a failure one is tried first.
        let places = pause == .zero ? Self.underWayMax : 1
        var actions: [Action] = []
        while underWay.count < places, let session = ready.popFirst() {
            guard let record = sessions[session]?.first else { continue }
            underWay[record.number] = session
            actions.append(.ask(record))
        }
        return actions
    }
}

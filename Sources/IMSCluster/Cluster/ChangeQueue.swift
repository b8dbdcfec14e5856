import DequeModule
import IMSCore
import MATSignal

/// Changes on their way to etcd: waiting, or in a transaction whose answer is awaited.
struct ChangeQueue: Sendable {
    struct Waiting: Sendable {
        var ticket: StoreTicket
        var change: StoreChange
        var since: MonotonicTime
        /// What etcd held about the HoA at this revision was compared with the change's record, and is older.
        var overRevision: Int64?
    }

    private var waiting: Deque<Waiting> = []
    private var batches: [UInt64: [Waiting]] = [:]
    /// What changes in transactions are about: the next about the same waits, since a transaction may put a key once.
    private var inFlight: Set<StoreChange.Subject> = []

    /// Whether transactions may be sent: not between an answer that there is no leader and the next good one.
    var canSend = true

    var waitingCount: Int { waiting.count }
    var batchesCount: Int { batches.count }
    var isEmpty: Bool { waitingCount == 0 && batches.isEmpty }

    mutating func add(_ ticket: StoreTicket, _ change: StoreChange, now: MonotonicTime) {
        waiting.append(Waiting(ticket: ticket, change: change, since: now))
    }

    /// The next changes for one transaction, in order, with at most so many puts. Those of HoAs that are on the way stay.
    mutating func nextBatch(operationsMax: Int) -> [Waiting] {
        var batch: [Waiting] = []
        var skipped: [Waiting] = []
        var touched = inFlight
        var operations = 0
        while let next = waiting.first {
            guard operations + next.change.operationsCount <= operationsMax, skipped.count < operationsMax else { break }
            waiting.removeFirst()
            let subjects = next.change.subjects
            if !touched.isDisjoint(with: subjects) {
                skipped.append(next)
            } else {
                batch.append(next)
                operations += next.change.operationsCount
            }
            // Behind one that was skipped, others of its HoA are skipped too.
            touched.formUnion(subjects)
        }
        waiting.prepend(contentsOf: skipped)
        return batch
    }

    mutating func sent(_ batch: [Waiting], as call: UInt64) {
        batches[call] = batch
        for waiting in batch { inFlight.formUnion(waiting.change.subjects) }
    }

    mutating func answered(_ call: UInt64) -> [Waiting] {
        guard let batch = batches.removeValue(forKey: call) else { return [] }
        for waiting in batch { inFlight.subtract(waiting.change.subjects) }
        return batch
    }

    /// Its answer is lost, so it is asked again, before what came later.
    mutating func putBack(_ call: UInt64) { putBack(answered(call)) }

    /// Back to where it stood: before all that came later, of its HoA too.
    mutating func putBack(_ batch: [Waiting]) {
        waiting.prepend(contentsOf: batch)
    }

    /// Takes out what has waited since before `time`.
    mutating func takeOverdue(since time: MonotonicTime) -> [Waiting] {
        // Those put back are the oldest and stand first, so a look at the first is enough most of the time.
        guard let first = waiting.first, first.since < time else { return [] }
        let overdue = waiting.filter { $0.since < time }
        waiting = Deque(waiting.filter { $0.since >= time })
        return Array(overdue)
    }
}

extension StoreChange {
    /// What a change is about: of two changes about one, the second waits for the first.
    enum Subject: Hashable, Sendable {
        case hoa(IPPrefix)
        case row(StoredRow.Kind, key: [UInt8])
    }

    /// One HoA, or a token and those that join by it.
    var subjects: Set<Subject> {
        var result: Set<Subject> = []
        if let mapping { result.insert(.hoa(mapping.record.prefix)) }
        if let issued { result.insert(.hoa(issued.prefix)) }
        for certificate in certificates { result.insert(.hoa(certificate.prefix)) }
        for row in rows { result.insert(.row(row.kind, key: row.key)) }
        return result
    }

    /// Rows and what is issued with them are one operation, a transaction of its own.
    var operationsCount: Int { (mapping == nil ? 0 : 1) + (issued == nil ? 0 : 1) + (rows.isEmpty ? 0 : 1) }
}

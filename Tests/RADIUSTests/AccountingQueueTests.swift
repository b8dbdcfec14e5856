import MATCore
import MATSignal
import SeededRandom
import Testing

@testable import RADIUS

@Suite("Accounts that wait")
final class AccountingQueueTests {
    private var queue = AccountingQueue()
    private var now = MonotonicTime(nanoseconds: 1_000_000_000)

    private func record(_ number: UInt64, _ status: AccountingRecord.Status, _ session: String) -> AccountingRecord {
        AccountingRecord(
            number: number,
            [
                RADIUSAttribute(RADIUSAttribute.Kind.accountingStatus, number: status.rawValue),
                RADIUSAttribute(RADIUSAttribute.Kind.sessionID, text: session),
            ])
    }

    private func asked(_ actions: [AccountingQueue.Action]) -> [UInt64] {
        actions.compactMap { if case .ask(let record) = $0 { record.number } else { nil } }
    }

    private func done(_ actions: [AccountingQueue.Action]) -> [UInt64] {
        actions.compactMap { if case .done(let number) = $0 { number } else { nil } }
    }

    @Test("The end of a session is told after its beginning was taken, other sessions meanwhile")
    func order() {
        #expect(asked(queue.add(record(1, .start, "a"), now)) == [1])
        #expect(asked(queue.add(record(2, .stop, "a"), now)) == [])
        #expect(asked(queue.add(record(3, .start, "b"), now)) == [3])
        let actions = queue.ended(1, isRecorded: true, now)
        #expect(done(actions) == [1] && asked(actions) == [2])
        #expect(done(queue.ended(2, isRecorded: true, now)) == [2] && done(queue.ended(3, isRecorded: true, now)) == [3])
        #expect(queue.count == 0 && queue.nextDeadline == nil)
    }

    @Test("A new interim takes the place of one that waits, and of nothing else")
    func interims() {
        _ = queue.add(record(1, .start, "a"), now)
        #expect(done(queue.add(record(2, .interim, "a"), now)) == [])
        #expect(done(queue.add(record(3, .interim, "a"), now)) == [2])
        #expect(done(queue.add(record(4, .stop, "a"), now)) == [])
        #expect(queue.count == 3)
        #expect(asked(queue.ended(1, isRecorded: true, now)) == [3])
        // One that is under way stays.
        #expect(done(queue.add(record(5, .interim, "b"), now)) == [] && done(queue.add(record(6, .interim, "b"), now)) == [])
    }

    @Test("Nothing is lost while no server answers: it waits longer and longer, one tries, and then all go")
    func outage() {
        var asked: [UInt64] = []
        for number in 1...100 { asked += self.asked(queue.add(record(UInt64(number), .start, "\(number)"), now)) }
        #expect(asked.count == AccountingQueue.underWayMax)
        var next: [UInt64] = []
        for number in asked { next += self.asked(queue.ended(number, isRecorded: false, now)) }
        #expect(next == [])
        var pauses: [Duration] = []
        for _ in 0..<8 {
            guard let deadline = queue.nextDeadline else { break }
            pauses.append(deadline - now)
            now = deadline
            let tried = self.asked(queue.due(now))
            #expect(tried.count == 1)
            for number in tried { _ = queue.ended(number, isRecorded: false, now) }
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 60, 60].map { .seconds($0) })
        now = queue.nextDeadline ?? now
        var open = self.asked(queue.due(now))
        var told: Set<UInt64> = []
        while let number = open.popLast() {
            #expect(told.insert(number).inserted)
            open += self.asked(queue.ended(number, isRecorded: true, now))
        }
        #expect(told.count == 100 && queue.count == 0)
    }

    @Test("Beyond its bound it says so, and takes what has to be told all the same")
    func bound() {
        for number in 0..<UInt64(AccountingQueue.recordsMax) { _ = queue.add(record(number, .start, "\(number)"), now) }
        #expect(!queue.hasRoom)
        _ = queue.add(record(1_000_000, .stop, "1"), now)
        #expect(queue.count == AccountingQueue.recordsMax + 1)
    }

    @Test("Whatever comes and fails in whatever order, each record is told once, those of a session in their order", arguments: 1...20)
    func random(seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed))
        var open: [UInt64] = []
        var told: [UInt64] = []
        var sessions: [UInt64: String] = [:]
        var number: UInt64 = 0
        func take(_ actions: [AccountingQueue.Action]) { open += asked(actions) }
        for _ in 0..<2000 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0 where number < 300:
                number += 1
                sessions[number] = "\(Int.random(in: 0..<20, using: &random))"
                take(queue.add(record(number, Bool.random(using: &random) ? .start : .stop, sessions[number] ?? ""), now))
            case 1:
                now = now + .seconds(1)
                take(queue.due(now))
            default:
                guard !open.isEmpty else { continue }
                let one = open.remove(at: Int.random(in: 0..<open.count, using: &random))
                let isRecorded = random.chance(0.5)
                let actions = queue.ended(one, isRecorded: isRecorded, now)
                told += done(actions)
                take(actions)
            }
        }
        for _ in 0..<10_000 where queue.count > 0 {
            now = now + .seconds(60)
            take(queue.due(now))
            while let one = open.popLast() {
                let actions = queue.ended(one, isRecorded: true, now)
                told += done(actions)
                take(actions)
            }
        }
        #expect(told.count == Int(number) && Set(told).count == told.count, "seed \(seed)")
        for session in Set(sessions.values) {
            let own = told.filter { sessions[$0] == session }
            #expect(own == own.sorted(), "seed \(seed), session \(session)")
        }
    }
}

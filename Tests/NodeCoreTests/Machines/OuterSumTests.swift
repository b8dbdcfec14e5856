import MATSignal
import Testing

@testable import NodeCore

@Suite("Whether datagrams over IPv6 need a sum") struct OuterSumTests {
    private func time(_ milliseconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: 1_000_000_000) + .milliseconds(milliseconds) }

    /// Lets time pass with packets once a second, and answers probes after a round trip while that is given; if it is not, those with a sum at once.
    private func run(_ sum: inout OuterSum, _ range: Range<Int64>, roundTrip: Int64?, inUse: Bool = true, isSilent: Bool = false)
        -> (asked: Int, changes: [Bool])
    {
        var (asked, changes, answers) = (0, [Bool](), [Int64]())
        var hasCompanion = false
        func take(_ actions: [OuterSum.Action], _ now: Int64, _ isNeeded: Bool) {
            for action in actions {
                switch action {
                case .changed: changes.append(isNeeded)
                case .ask:
                    asked += 1
                    if let roundTrip { answers.append(now + roundTrip) } else if !isSilent { hasCompanion = true }
                }
            }
        }
        for now in stride(from: range.lowerBound, to: range.upperBound, by: 10) {
            while let first = answers.first, first <= now {
                answers.removeFirst()
                let actions = sum.answered(time(now))
                take(actions, now, sum.isNeeded)
            }
            if inUse, now % 1000 == 0 {
                let actions = sum.use(packets: 10, time(now))
                take(actions, now, sum.isNeeded)
            }
            let actions = sum.takeDue(time(now))
            take(actions, now, sum.isNeeded)
            if hasCompanion { sum.answeredWithSum() }
            hasCompanion = false
        }
        return (asked, changes)
    }

    @Test("They have one until one without is answered, and from then on none", arguments: [40, 900, 2500] as [Int64])
    func passes(roundTrip: Int64) {
        var sum = OuterSum()
        #expect(sum.isNeeded)
        let seen = run(&sum, 0..<5000, roundTrip: roundTrip)
        #expect(seen.changes == [false] && !sum.isNeeded && !sum.isMissed)
    }

    @Test("Where none comes back they keep it, and it is asked again after 30 s, a minute, and 10 minutes at most")
    func dropped() {
        var sum = OuterSum()
        let first = run(&sum, 0..<29_000, roundTrip: nil)
        #expect(first.changes.isEmpty && first.asked == 3 && sum.isNeeded && sum.isMissed)
        #expect(run(&sum, 29_000..<3_600_000, roundTrip: nil).asked <= 3 * 11)
        #expect(run(&sum, 3_600_000..<4_300_000, roundTrip: 40).changes == [false])
    }

    @Test("When they begin to be dropped they have one again: within a second of a doubt, 20 s without one")
    func begins() {
        var sum = OuterSum()
        _ = run(&sum, 0..<5000, roundTrip: 40)
        #expect(sum.doubt(time(5000)) == [.ask])
        #expect(run(&sum, 5000..<6000, roundTrip: nil).changes == [true] && sum.isMissed)
        #expect(run(&sum, 6000..<60_000, roundTrip: 40).changes == [false])
        #expect(run(&sum, 60_000..<80_000, roundTrip: nil).changes == [true])
    }

    @Test("Where an earlier run sends without one they have none from the start, and one again within a second if those do not arrive any more")
    func adopted() {
        var sum = OuterSum(isNeeded: false)
        #expect(run(&sum, 0..<5000, roundTrip: 40) == (1, []) && !sum.isNeeded)
        sum = OuterSum(isNeeded: false)
        #expect(run(&sum, 0..<1000, roundTrip: nil) == (3, [true]) && sum.isNeeded && sum.isMissed)
    }

    @Test("A path on which nothing at all is answered for a while is not said to miss a sum, and has none again 2 s after it is back")
    func outage() {
        var sum = OuterSum()
        _ = run(&sum, 0..<5000, roundTrip: 40)
        #expect(sum.doubt(time(5000)) == [.ask])
        #expect(run(&sum, 5000..<9000, roundTrip: nil, isSilent: true).changes == [true] && !sum.isMissed)
        #expect(run(&sum, 9000..<14_000, roundTrip: 40).changes == [false])
    }

    @Test("A doubt while the answers come changes nothing, and what nobody uses is not asked about")
    func quiet() {
        var sum = OuterSum()
        _ = run(&sum, 0..<5000, roundTrip: 40)
        #expect(sum.doubt(time(5000)) == [.ask] && sum.answered(time(5040)).isEmpty && !sum.isNeeded)
        _ = run(&sum, 5040..<60_000, roundTrip: 40, inUse: false)
        #expect(run(&sum, 60_000..<200_000, roundTrip: nil, inUse: false).asked == 0)
    }
}

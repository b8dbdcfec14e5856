import MATSignal
import Testing

@testable import MATServer

func address(_ text: String) -> IPAddress { IPAddress(text) ?? .unspecifiedIPv6 }

@Suite("The admission gate")
struct AdmissionGateTests {
    @Test("The gate: a source has its share, strangers together theirs, and so has what can't be read; queries and answers need none of it")
    func gate() {
        var limits = AdmissionLimits(perSourcePerSecond: 100, strangersPerSecond: 1000, draftsPerSecond: 200, oddPerSecond: 100)
        var gate = AdmissionGate(limits: limits, key: (3, 4))
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        func verdicts(_ kind: DatagramKind, _ count: Int, at time: MonotonicTime, _ source: (Int) -> IPAddress) -> [AdmissionGate.Verdict: Int] {
            var result: [AdmissionGate.Verdict: Int] = [:]
            for number in 0..<count { result[gate.judge(kind, source: source(number), at: time), default: 0] += 1 }
            return result
        }
        let one = address("198.51.100.7")
        let many: (Int) -> IPAddress = { IPAddress(high: 0x2001_0db8_0000_0000 | UInt64($0), low: 1) }
        #expect(verdicts(.update, 150, at: now) { _ in one } == [.pass: 100, .drop: 50])
        // Addresses of one /64 are one source.
        #expect(verdicts(.update, 150, at: now) { IPAddress(high: 5, low: UInt64($0)) } == [.pass: 100, .drop: 50])
        #expect(verdicts(.regular, 10_000, at: now) { _ in one } == [.pass: 10_000])
        // From very many sources: a tenth of a second's worth at once, as many told to come later, and no more.
        #expect(verdicts(.notify, 5000, at: now, many) == [.pass: 100, .tryLater: 100, .drop: 4800])
        #expect(verdicts(.odd, 1000, at: now, many) == [.pass: 10, .drop: 990])
        #expect(verdicts(.unasked, 1000, at: now, many) == [.drop: 1000], "one budget for both")
        #expect(verdicts(.draft, 1000, at: now, many) == [.pass: 20, .drop: 980])
        // Other sources are not affected by the flood: one that was never seen has its share.
        let later = now + .milliseconds(100)
        #expect(verdicts(.notify, 50, at: later) { _ in address("203.0.113.200") } == [.pass: 50])
        // Nor do ten thousand sources, each within its share, take it from others.
        let refused = verdicts(.update, 10_000, at: later, many)[.drop] ?? 0
        #expect(refused < 10)
        // Without a configured budget, it grows with the number of workers.
        limits.strangersPerSecond = nil
        for threads in [1, 4] {
            gate = AdmissionGate(limits: limits, key: (3, 4), threads: threads)
            #expect(verdicts(.notify, 5000, at: now, many)[.pass] == AdmissionGate.strangersPerThread / 10)
        }
    }

    @Test("Other limits hold from the next datagram on, and what a source has taken of its share stays taken")
    func otherLimits() {
        let limits = AdmissionLimits(perSourcePerSecond: 100, strangersPerSecond: 10, draftsPerSecond: 10, oddPerSecond: 10)
        var gate = AdmissionGate(limits: limits, key: (5, 6))
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        let source = address("198.51.100.7")
        func taken(_ count: Int, at time: MonotonicTime) -> Int {
            var taken = 0
            for _ in 0..<count where gate.takeShare(of: source, at: time) { taken += 1 }
            return taken
        }
        #expect(taken(101, at: now) == 100)
        var wider = limits
        wider.perSourcePerSecond = 1000
        gate.setLimits(wider)
        #expect(taken(1, at: now) == 0, "its second is used up")
        // A tenth of a second later there is room for a tenth of a second's worth.
        let later = now + .milliseconds(100)
        #expect(taken(200, at: later) == 100)
        let other = gate.takeShare(of: address("198.51.100.8"), at: now)
        #expect(other)
    }

    @Test("Rules that change for another reason than limits give nobody a new budget")
    func equalLimits() {
        let limits = AdmissionLimits(perSourcePerSecond: 1000, strangersPerSecond: 10, draftsPerSecond: 10, oddPerSecond: 10)
        var gate = AdmissionGate(limits: limits, key: (7, 8))
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        func judge() -> AdmissionGate.Verdict { gate.judge(.notify, source: address("203.0.113.200"), at: now) }
        #expect([judge(), judge(), judge()] == [.pass, .tryLater, .drop])
        gate.setLimits(limits)
        #expect(judge() == .drop)
    }

    @Test("A share comes back by itself: after a second of silence all of it")
    func share() {
        var gate = AdmissionGate(
            limits: AdmissionLimits(perSourcePerSecond: 50, strangersPerSecond: nil, draftsPerSecond: 1, oddPerSecond: 1), key: (7, 8))
        var now = MonotonicTime(nanoseconds: 1)
        for _ in 0..<3 {
            var taken = 0
            for _ in 0..<80 where gate.takeShare(of: address("2001:db8::1"), at: now) { taken += 1 }
            #expect(taken == 50)
            now = now + .seconds(1)
        }
    }
}

import MATSignal
import Testing

@testable import MATCore

private func at(_ milliseconds: Int64) -> MonotonicTime { .zero + .milliseconds(milliseconds) }

@Suite("Deadlines") struct DeadlineQueueTests {
    @Test("They come due in the order of their times, each once")
    func order() {
        var queue = DeadlineQueue<String>()
        for (key, time) in [("c", Int64(30)), ("a", 10), ("b", 20)] { queue.set(key, at: at(time)) }
        #expect(queue["b"] == at(20) && queue["d"] == nil)
        var due: [String] = []
        while let key = queue.takeDue(at(20)) { due.append(key) }
        let next = queue.next
        #expect(due == ["a", "b"] && next == at(30) && queue["a"] == nil)
    }

    @Test("A later word about a key counts, in either direction, and a cancelled one never comes")
    func replaced() {
        var queue = DeadlineQueue<Int>()
        queue.set(1, at: at(10))
        queue.set(1, at: at(50))
        queue.set(2, at: at(40))
        queue.set(2, at: at(5))
        queue.set(3, at: at(1))
        queue.cancel(3)
        let first = queue.takeDue(at(20))
        let second = queue.takeDue(at(20))
        let next = queue.next
        #expect(first == 2 && second == nil && next == at(50))
    }

    @Test("It says the same as a dictionary that is looked through, however often deadlines are moved")
    func model() {
        var queue = DeadlineQueue<Int>()
        var model: [Int: Int64] = [:]
        var number: UInt64 = 7
        func random(_ bound: UInt64) -> Int {
            number = number &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(number >> 33 % bound)
        }
        var now: Int64 = 0
        for _ in 0..<20_000 {
            let key = random(50)
            switch random(4) {
            case 0:
                queue.cancel(key)
                model[key] = nil
            case 1:
                now += Int64(random(20))
                var due: Set<Int> = []
                while let key = queue.takeDue(at(now)) { due.insert(key) }
                #expect(due == Set(model.filter { $0.value <= now }.keys))
                model = model.filter { $0.value > now }
            default:
                let time = now + Int64(random(200))
                queue.set(key, at: at(time))
                model[key] = time
            }
            let next = queue.next
            #expect(next == model.values.min().map(at))
        }
    }
}

@Suite("Rates and tries") struct RateTests {
    @Test("A bucket gives its burst at once, then one at a time, and is idle when it is full")
    func bucket() {
        var limit = RateLimit(perSecond: 10, burst: 3)
        var granted: [Bool] = []
        for _ in 0..<4 { granted.append(limit.take(at: at(0))) }
        #expect(granted == [true, true, true, false] && !limit.isIdle(at: at(299)) && limit.isIdle(at: at(300)))
        #expect(!limit.hasToken(at: at(99)) && limit.hasToken(at: at(100)))
        let early = limit.take(at: at(99))
        let later = limit.take(at: at(100))
        let again = limit.take(at: at(100))
        #expect(!early && later && !again)
    }

    @Test("A request is sent five times, the pauses doubling from 250 ms, or from twice the round trip")
    func tries() {
        var requests = [
            Retransmission(type: .maQuery, now: at(0)), Retransmission(type: .maQuery, smoothedRTT: .milliseconds(40), now: at(0)),
            Retransmission(type: .maQuery, smoothedRTT: .milliseconds(3), now: at(0)),
            Retransmission(type: .haNotify, smoothedRTT: .milliseconds(3), now: at(0)),
        ]
        var pauses: [[Int64]] = []
        for index in requests.indices {
            var each: [Int64] = []
            while !requests[index].isExhausted {
                let now = requests[index].due
                requests[index].tried(at: now)
                each.append((requests[index].due - now).millisecondsSaturated)
            }
            pauses.append(each)
        }
        #expect(pauses == [[250, 500, 1000, 2000, 4000], [80, 160, 320, 640, 1280], [50, 100, 200, 400, 800], [250, 500, 1000, 2000, 4000]])
    }

    @Test("A round trip is smoothed by an eighth of each sample")
    func smoothed() {
        var rtt = SmoothedRTT()
        rtt.add(.milliseconds(80))
        #expect(rtt.value == .milliseconds(80))
        rtt.add(.milliseconds(160))
        #expect(rtt.value == .milliseconds(90))
    }

    @Test("Turns are given out one after the other, a burst at once after a pause; what goes at once is paid by the rest")
    func pace() {
        var pace = Pace(perSecond: 100, burst: 2)
        var turns: [Int64] = []
        for _ in 0..<4 { turns.append((pace.turn(at(1000)) - at(0)).millisecondsSaturated) }
        #expect(turns == [1000, 1000, 1010, 1020] && !pace.isOpen(at(1020)) && pace.isOpen(at(1030)))
        #expect(!pace.isIdle(at(1039)) && pace.isIdle(at(1040)))
        pace.charge(at(2000))
        pace.charge(at(2000))
        #expect(pace.opens(at(2000)) == at(2010))
    }
}

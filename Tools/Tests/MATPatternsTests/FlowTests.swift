import MATPatterns
import Testing

@Suite("What is measured of a conversation")
struct FlowTests {
    /// Ten packets, one every 10, under way for 25; those of `lost` do not arrive.
    private func flow(lost: Set<Int>) -> Flow {
        var flow = Flow()
        for number in 0..<10 { #expect(flow.send(at: Int64(number) * 10) == number) }
        for number in 0..<10 where !lost.contains(number) { flow.arrive(number, at: Int64(number) * 10 + 25) }
        return flow
    }

    @Test("It goes on when the first packet arrives that was sent since, whatever was under way before")
    func resumption() {
        let flow = flow(lost: [4, 5])
        #expect(flow.resumption(after: 35) == 85)
        #expect(flow.resumption(after: 30) == 55)
        #expect(flow.resumption(after: 91) == nil)
    }

    @Test("Lost is what was sent in the span and never arrived; twice is once")
    func lost() {
        var flow = flow(lost: [4, 5])
        flow.arrive(3, at: 500)
        flow.arrive(77, at: 500)
        #expect(flow.lost(from: 0, to: 100) == 2)
        #expect(flow.lost(from: 45, to: 100) == 1)
        #expect(flow.lost(from: 60, to: 100) == 0)
        #expect(flow.arrivedCount == 8)
    }

    @Test("A gap reaches to the ends of the span that is looked at")
    func gap() {
        let flow = flow(lost: [4, 5])
        #expect(flow.longestGap(from: 25, to: 115) == 30)
        #expect(flow.longestGap(from: 85, to: 300) == 185)
        #expect(flow.longestGap(from: 400, to: 500) == 100)
    }

    @Test("Of a stream octets that are missing, and those out of place, are told apart")
    func stream() {
        var stream = StreamCheck()
        let first = stream.next(100)
        stream.wrote(100, at: 10)
        let second = stream.next(100)
        stream.wrote(100, at: 20)
        stream.took(first, at: 30)
        #expect(stream.missing == 100 && !stream.isDamaged)
        #expect(stream.resumption(after: 15) == nil)
        stream.took(second, at: 40)
        #expect(stream.missing == 0 && !stream.isDamaged && stream.resumption(after: 15) == 40)
        stream.took(first, at: 50)
        #expect(stream.isDamaged)
    }

    @Test("Each pattern is called once, and begins at places for all hosts that it moves")
    func walks() {
        let patterns = Walk.all.flatMap(\.patterns)
        #expect(Set(patterns.map(\.id)).count == patterns.count)
        for pattern in patterns {
            guard case .move(let places) = pattern.event else { continue }
            #expect(Set(places.map(\.host)).isSubset(of: pattern.start.map(\.host)), "\(pattern.id)")
        }
    }
}

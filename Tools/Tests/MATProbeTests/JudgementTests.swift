import Testing

@testable import MATProbe

/// What decides the demo's exit status. A run of 1000 ms with a probe a millisecond in each direction, and handovers in it; times in
/// milliseconds.
private struct Run {
    /// Numbers of probes that never came to the server.
    var lost: Set<UInt64> = []
    /// The server got nothing between these times; what was sent then came at the end.
    var silence: Range<UInt64>?
    var events: [ProbeEvent] = []
    var transfer: TransferLog?

    static let count: UInt64 = 1000

    var report: ProbeReport {
        var arrived: [Reception] = []
        for number in 0..<Self.count where !lost.contains(number) {
            var time = number
            if let silence, silence.contains(number) { time = silence.upperBound }
            arrived.append(Reception(number: number, sent: at(Double(number)), received: at(Double(time) + 0.2)))
        }
        let undisturbed = (0..<Self.count).map { Reception(number: $0, sent: at(Double($0)), received: at(Double($0) + 0.2)) }
        return ProbeReport(
            streams: [Self.log(.server, arrived), Self.log(.client, undisturbed)], transfers: transfer.map { [$0] } ?? [], events: events,
            client: "mn", server: "cn")
    }

    private static func log(_ role: StreamLog.Role, _ receptions: [Reception]) -> StreamLog {
        let analysis = StreamAnalysis(receptions, sent: count, interval: ProbeClock.perMillisecond)
        let header = StreamLog.Header(
            role: role, family: .ipv4, intervalMicroseconds: 1000, started: 0, answeredAfterMilliseconds: 1, hasRealTimePriority: true,
            sent: count, sendErrors: 0, lastSendError: nil, largestSendDelayMilliseconds: 0, inbound: analysis)
        return StreamLog(header: header, receptions: receptions)
    }
}

private func at(_ milliseconds: Double) -> Nanoseconds { Nanoseconds(milliseconds * 1e6) }

private func event(
    _ name: String, _ milliseconds: Double, expect: ProbeEvent.Expectation? = nil, family: AddressFamily? = nil, interface: String? = nil
) -> ProbeEvent {
    ProbeEvent(time: at(milliseconds), event: name, text: name, expect: expect, family: family, interface: interface)
}

/// Of mn's direction to cn in the first handover.
private func judged(_ run: Run) throws -> Judgement { try #require(run.report.judgements().first) }

@Suite("What the demo promises")
struct JudgementTests {
    private static let overlap = [event("begin", 100, expect: .overlap)]

    @Test("With overlap an undisturbed stream holds, in each direction")
    func undisturbed() {
        let all = Run(events: Self.overlap).report.judgements()
        #expect(all.count == 2 && all.allSatisfy(\.held), "\(all)")
    }

    @Test("With overlap one lost probe breaks the promise, in its direction only")
    func oneLost() {
        let all = Run(lost: [500], events: Self.overlap).report.judgements()
        #expect(all.map(\.held) == [false, true] && all[0].text.contains("1 lost"), "\(all)")
    }

    @Test("What is lost before a handover begins is not the handover's")
    func lostBefore() throws { #expect(try judged(Run(lost: [50], events: Self.overlap)).held) }

    @Test("With overlap a gap of 20 ms is allowed, and a longer one is not")
    func gap() throws {
        #expect(try judged(Run(silence: 300..<319, events: Self.overlap)).held)
        let long = try judged(Run(silence: 300..<325, events: Self.overlap))
        #expect(!long.held && long.text.contains("0 lost"), "\(long)")
    }

    @Test("Silence after the handover is no success")
    func silent() throws {
        let judgement = try judged(Run(lost: Set(99..<Run.count), events: Self.overlap))
        #expect(!judgement.held && judgement.text.contains("nothing arrived"), "\(judgement)")
    }

    private static func interruption(
        address: Double, route: Double, interface: String = "wlan0", expect: ProbeEvent.Expectation = .interruption
    ) -> [ProbeEvent] {
        [
            event("begin", 100, expect: expect), event("address", address, family: .ipv4, interface: interface),
            event("route", route, family: .ipv4, interface: interface),
        ]
    }

    @Test("Without overlap traffic has 50 ms and one and a half round trips from the time at which address and route are there")
    func resumes() throws {
        // A round trip is 0.4 ms: 50.6 ms are allowed from 400 ms on.
        #expect(try judged(Run(lost: Set(200..<450), events: Self.interruption(address: 350, route: 400))).held)
        let late = try judged(Run(lost: Set(200..<451), events: Self.interruption(address: 350, route: 400)))
        #expect(!late.held && late.text.contains("allowed: 50.6 ms"), "\(late)")
    }

    @Test("Behind a translator it has 250 ms and four and a half round trips")
    func resumesTranslated() throws {
        #expect(try judged(Run(lost: Set(200..<651), events: Self.interruption(address: 350, route: 400, expect: .interruptionTranslated))).held)
        let late = try judged(Run(lost: Set(200..<653), events: Self.interruption(address: 350, route: 400, expect: .interruptionTranslated)))
        #expect(!late.held && late.text.contains("allowed: 251.8 ms"), "\(late)")
    }

    @Test("Without overlap traffic that stays away, or an address that never comes, is told as such")
    func staysAway() throws {
        let away = try judged(Run(lost: Set(200..<Run.count), events: Self.interruption(address: 300, route: 300)))
        #expect(!away.held && away.text.contains("did not resume"), "\(away)")
        let nowhere = try judged(Run(events: [event("begin", 100, expect: .interruption)]))
        #expect(!nowhere.held && nowhere.text.contains("no new IPv4 address"), "\(nowhere)")
    }

    @Test("The agent's own interface is no new network")
    func ownInterface() throws {
        #expect(!(try judged(Run(events: Self.interruption(address: 300, route: 300, interface: "mat0"))).held))
    }

    @Test("Each handover is judged by what happened between its beginning and the next one's")
    func phases() {
        let events = [event("begin", 100, expect: .overlap), event("begin", 500, expect: .overlap)]
        let held = Run(lost: [700], events: events).report.judgements().map(\.held)
        #expect(held == [true, true, false, true])
    }

    @Test("A phase that nobody judges is left out, and without handovers nothing is promised")
    func unjudged() {
        #expect(Run(lost: [500], events: [event("begin", 100)]).report.judgements().isEmpty)
        #expect(Run().report.judgements().isEmpty)
    }

    @Test(
        "A transfer holds if all octets came and the connection was not reset",
        arguments: [(true, false, true, "not reset"), (false, true, false, "connection reset"), (false, false, false, "broken after")])
    func transfers(isComplete: Bool, isReset: Bool, holds: Bool, text: String) throws {
        let header = TransferLog.Header(
            role: .server, family: .ipv4, isSender: false, started: 0, ended: at(1000), octets: 5_000_000,
            isComplete: isComplete, isReset: isReset, failure: nil, longestStallMilliseconds: 0, longestStallFrom: 0)
        let judgement = try judged(Run(transfer: TransferLog(header: header, progress: [])))
        #expect(judgement.held == holds && judgement.text.contains(text), "\(judgement)")
    }
}

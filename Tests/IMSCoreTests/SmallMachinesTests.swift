import MATCore
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCore

@Suite("The core's small machines")
struct SmallMachinesTests {
    @Test("Log lines beyond the rate are counted, and the next that is written says how many there were")
    func refusalLog() {
        var log = LimitedLog(perSecond: 2)
        let start = Sample.now().monotonic
        #expect([log.line(start), log.line(start)] == [.write(suppressedBefore: 0), .write(suppressedBefore: 0)])
        for _ in 0..<5 { #expect(log.line(start) == .suppress) }
        #expect(log.line(start + .seconds(1)) == .write(suppressedBefore: 5))
        log.reconfigure(perSecond: 2)
        #expect(log.line(start + .seconds(1)) == .write(suppressedBefore: 0))
        #expect(log.line(start + .seconds(1)) == .suppress, "the same rate keeps what was taken")
    }

    @Test("Refreshes have a share of log lines of their own")
    func bindingLogs() {
        var logs = BindingLogs(perSecond: 1)
        let start = Sample.now().monotonic
        #expect(logs.changed(.debug, start) == .write(suppressedBefore: 0) && logs.changed(.debug, start) == .suppress)
        #expect(logs.changed(.info, start) == .write(suppressedBefore: 0))
        #expect(logs.changed(.debug, start + .seconds(1)) == .write(suppressedBefore: 1))
    }

    @Test("A sweep is due a second after there is something to sweep, once")
    func sweep() {
        var sweep = Sweep()
        let start = Sample.now().monotonic
        #expect(sweep.nextDeadline == nil && !sweep.isDue(start))
        sweep.begin(start)
        sweep.begin(start + .milliseconds(500))
        #expect(sweep.nextDeadline == start + Sweep.interval && !sweep.isDue(start))
        #expect(sweep.isDue(start + Sweep.interval) && !sweep.isDue(start + Sweep.interval) && sweep.nextDeadline == nil)
    }

    @Test("News is kept only if somebody wants it, and told once")
    func sharing() {
        let item = SharedNews.unsubscribed(IPPrefix(ip("192.0.2.1")), Endpoint(ip("198.51.100.50"), port: SignalPort.node))
        var sharing = Sharing()
        sharing.learned(item)
        #expect(sharing.takeNews().isEmpty && !sharing.isShared)
        sharing.begin()
        sharing.learned(item)
        #expect(sharing.takeNews() == [item] && sharing.takeNews().isEmpty)
    }

    @Test("Equal checks are made once; strangers' take half of the places; what a check was for is told when it ends")
    func verifications() throws {
        var limits = IMSLimits()
        limits.verificationsPendingMax = 4
        var verifications = Verifications(limits)
        let jobs = (0..<4).map { number in
            VerificationJob(Sample.other.record([ip("198.51.100.7")], sequence: Sample.wall + UInt64(number)), issuers: [])
        }
        func want(_ job: VerificationJob, _ use: VerificationUse) throws(VerificationRefusal) -> VerificationTicket? {
            if case .begin(let ticket) = try verifications.wanted(job, for: use, source: nil, Sample.now()) {
                ticket
            } else {
                nil
            }
        }
        let update = VerificationUse.update(Sample.request(.imsUpdate, from: "198.51.100.7"))
        let truth = VerificationUse.truth(Sample.other.hoa)
        let ticket = try #require(try want(jobs[0], truth))
        #expect(try want(jobs[0], update) == nil && verifications.count == 1 && verifications.begunCount == 1)
        #expect(try want(jobs[1], truth) != nil)
        #expect(throws: VerificationRefusal.self) { try want(jobs[2], truth) }
        #expect(try want(jobs[2], update) != nil && (try want(jobs[3], update)) != nil)
        #expect(verifications.ended(ticket)?.waiting.count == 2 && verifications.ended(ticket) == nil)
    }

    @Test("The answers to one datagram have no more octets than it, with a cookie kept back for each request that follows")
    func sizeRule() throws {
        func query(_ sequence: UInt32) -> SignalMessage {
            SignalMessage(sequence: sequence, .maQuery(MAQuery(cookie: Cookie(client: 5), hoa: home("192.0.2.1"))))
        }
        let datagram = query(1).octets + query(2).octets
        let parts = SignalDatagram.decode(datagram)
        try #require(parts.count == 2)
        var rule = SizeRule(datagram, parts)
        #expect(rule.next(parts[0]) == datagram.count - SizeRule.cookieAnswerOctets)
        let cookie = Cookie(client: 5, server: ServerCookie(head: 1, hash: 2))
        let long = SignalMessage.Body.maAnswer(
            MAAnswer(code: .notAuthoritative, cookie: cookie, hoa: home("192.0.2.1"), text: String(repeating: "x", count: 200)))
        let source = Endpoint(ip("198.51.100.1"), port: SignalPort.node)
        let answer = SizeRule.answer(to: query(1), octetsCount: query(1).octets.count, long, cookie, allowed: 60, source: source)
        let withoutText = try #require(answer)
        #expect(withoutText.octets.count <= 60 && withoutText.code == .notAuthoritative)
        rule.answered(withoutText)
        #expect(rule.next(parts[1]) == datagram.count - withoutText.octets.count)
        let least = SizeRule.answer(
            to: query(1), octetsCount: query(1).octets.count, long, cookie, allowed: SizeRule.cookieAnswerOctets, source: source)
        #expect(least?.code == .cookieRequired && least?.octets.count == SizeRule.cookieAnswerOctets)
        #expect(SizeRule.answer(to: query(1), octetsCount: query(1).octets.count, long, cookie, allowed: 35, source: source) == nil)
    }

    @Test("A survey walks through all, counts what has expired once, and begins anew")
    func survey() {
        let stored = Sample.stored(Sample.own.record([ip("198.51.100.1")], sequence: Sample.wall, lifetime: 60))
        let registrations = Sample.view(holding: [stored]).registrations
        var survey = Survey()
        func walk(_ now: Now) -> [StoredMapping] {
            var expired: [StoredMapping] = []
            while true {
                let step = survey.step(registrations, now)
                expired += step.expired
                if !step.goesOn { return expired }
            }
        }
        #expect(walk(Sample.now()).isEmpty && survey.result.mappingsExpired == 0)
        #expect(walk(Sample.now(.seconds(61))) == [stored] && survey.result.mappingsExpired == 1)
        #expect(walk(Sample.now(.seconds(122))).isEmpty && survey.result.mappingsExpired == 1)
        #expect(survey.result.certificatesByKey == [Sample.authority.key.publicKey.id: 1])
    }

    @Test(
        "Dates are the calendar's",
        arguments: [
            (0, "1970-01-01", "00:00:00"), (951_782_400, "2000-02-29", "00:00:00"), (1_790_000_000, "2026-09-21", "14:13:20"),
            (4_107_542_399, "2100-02-28", "23:59:59"), (4_107_542_400, "2100-03-01", "00:00:00"), (-1, "1969-12-31", "23:59:59"),
            (253_402_300_799, "9999-12-31", "23:59:59"),
        ] as [(Int64, String, String)])
    func dates(seconds: Int64, day: String, clock: String) {
        #expect(UTCTime(unixSeconds: seconds)?.day == day && UTCTime(unixSeconds: seconds)?.clock == clock)
        #expect(UTCTime(unixSeconds: 253_402_300_800) == nil && UTCTime(unixSeconds: .min) == nil)
    }
}

import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Probes within paths") struct InPathProbesTests {
    private static let hoa = home("203.0.113.1")
    private static let own = Endpoint(ip("10.1.2.3"), port: 6289)
    private static let far = Endpoint(ip("192.0.2.9"), port: 40_001)
    private static let relay = Endpoint(ip("192.0.2.99"), port: 6290)

    private var random: any RandomNumberGenerator = SeededGenerator(seed: 1)

    private func probe(_ far: Endpoint = far, at milliseconds: Int64 = 0) -> InPathProbes.Probe {
        InPathProbes.Probe(hoa: Self.hoa, own: Self.own, far: far, purpose: .relay, sentAt: time(milliseconds))
    }

    @Test("Only an answer with its number and cookie, from the peer, over the same path, ends it, and once")
    mutating func answers() throws {
        var probes = InPathProbes(underWayMax: 8, perSecond: 100)
        let sent = probe()
        let question = try #require(probes.begin(sent, for: .milliseconds(500), random: &random))
        typealias Question = InPathProbes.Question
        let forged = [
            (Question(sequence: question.sequence, cookie: question.cookie &+ 1), Self.hoa, Self.far, Self.own),
            (Question(sequence: question.sequence &+ 1, cookie: question.cookie), Self.hoa, Self.far, Self.own),
            (question, home("203.0.113.2"), Self.far, Self.own), (question, Self.hoa, Self.relay, Self.own),
            (question, Self.hoa, Self.far, Endpoint(ip("10.1.2.4"), port: 6289)),
        ]
        for (question, hoa, far, own) in forged { #expect(probes.answered(question, by: hoa, from: far, to: own) == nil) }
        #expect(probes.answered(question, by: Self.hoa, from: Self.far, to: Self.own) == sent)
        #expect(probes.answered(question, by: Self.hoa, from: Self.far, to: Self.own) == nil)
        #expect(probes.count == 0 && probes.nextDue == nil)
    }

    @Test("Those without an answer end in time, in the order of their ends; a late answer counts for nothing")
    mutating func silence() throws {
        var probes = InPathProbes(underWayMax: 8, perSecond: 100)
        let slow = try #require(probes.begin(probe(Self.relay), for: .seconds(2), random: &random))
        let fast = try #require(probes.begin(probe(), for: .milliseconds(500), random: &random))
        #expect(slow != fast && probes.nextDue == time(500))
        #expect(probes.takeDue(time(499)) == nil)
        #expect(probes.takeDue(time(500)) == probe() && probes.takeDue(time(500)) == nil)
        #expect(probes.answered(fast, by: Self.hoa, from: Self.far, to: Self.own) == nil)
        #expect(probes.nextDue == time(2000) && probes.takeDue(time(2000)) == probe(Self.relay))
    }

    @Test("No more are under way, or sent in a second, than are allowed; a forgotten peer's are gone")
    mutating func bounds() {
        var probes = InPathProbes(underWayMax: 3, perSecond: 100)
        for _ in 0..<5 { _ = probes.begin(probe(), for: .seconds(1), random: &random) }
        #expect(probes.count == 3)
        probes.remove(Self.hoa)
        #expect(probes.count == 0 && probes.nextDue == nil)
        var slow = InPathProbes(underWayMax: 100, perSecond: 10)
        let begun = (0..<50).filter { _ in slow.begin(probe(), for: .seconds(1), random: &random) != nil }.count
        #expect(begun <= 10 && slow.begin(probe(at: 1000), for: .seconds(1), random: &random) != nil)
    }
}

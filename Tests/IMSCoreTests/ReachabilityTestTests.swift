import MATCore
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCore

@Suite("The reachability test")
struct ReachabilityTestTests {
    private var random = Sample.random()

    private func mapping(_ moas: [String], sequence: UInt64 = Sample.wall) -> StoredMapping {
        Sample.stored(Sample.own.record(moas.map(ip), sequence: sequence))
    }

    @Test("Each MoA of a new record gets a locator check three times within two seconds, and then no more")
    mutating func threeTries() {
        var tests = ReachabilityTests(IMSLimits())
        var checks = tests.registered(mapping(["198.51.100.1", "2001:db8:aa::1"]), &random, Sample.now())
        #expect(checks.map(\.target) == [Endpoint(ip("198.51.100.1"), port: 6289), Endpoint(ip("2001:db8:aa::1"), port: 6289)])
        #expect(checks.allSatisfy { $0.message.octets.count == 40 && $0.avoided == Sample.local })
        var times: [Duration] = []
        while let next = tests.nextDeadline {
            let now = Sample.now(next - Sample.now().monotonic)
            checks += tests.due(&random, now) ?? []
            times.append(next - Sample.now().monotonic)
        }
        #expect(times == [.milliseconds(500), .milliseconds(1500)])
        #expect(checks.count == 6 && Set(checks.map(\.message.sequence)).count == 1 && tests.count == 0)
        guard case .maQuery(let query)? = checks.first?.message.body else { return #expect(Bool(false), "no MA Query") }
        #expect(query.hoa == home("192.0.2.1") && query.cookie.server == nil && query.subscribe == nil)
    }

    @Test("A newer record takes the place of the one that is being tested; a withdrawal ends the test")
    mutating func replaced() {
        var tests = ReachabilityTests(IMSLimits())
        _ = tests.registered(mapping(["198.51.100.1"]), &random, Sample.now())
        let moved = tests.registered(mapping(["198.51.100.2"], sequence: Sample.wall + 1), &random, Sample.now(.milliseconds(400)))
        #expect(moved.map(\.target.address) == [ip("198.51.100.2")])
        #expect(tests.nextDeadline == Sample.now(.milliseconds(900)).monotonic && tests.count == 1)
        #expect(tests.registered(mapping([], sequence: Sample.wall + 2), &random, Sample.now(.milliseconds(500))).isEmpty)
        #expect(tests.count == 0 && tests.nextDeadline == nil)
    }

    @Test("Beyond the rate no test begins")
    mutating func rate() {
        var limits = IMSLimits()
        limits.reachabilityTestsPerSecond = 2
        var tests = ReachabilityTests(limits)
        let counts = (0..<3).map { _ in tests.registered(mapping(["198.51.100.1"]), &random, Sample.now()).count }
        #expect(counts == [1, 1, 0])
        #expect(tests.registered(mapping(["198.51.100.1"]), &random, Sample.now(.seconds(1))).count == 1)
    }
}

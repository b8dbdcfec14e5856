import MATCore
import MATSignal
import MappingMemory

/// The reachability test of section 11.1: locator checks to the MoAs of a new record, from a place that the node has sent nothing to. What gets
/// through there gets through from anywhere. A node that sees none within three seconds knows that its MoA is filtered; the server only sends,
/// and learns nothing.
///
/// ```
///               a new record is stored                                        third try
///   (nothing) ─────────────────────────► try 1 ─ 0.5 s ─► try 2 ─ 1 s ─► try 3 ─────────► (nothing)
///                                          ▲                                │
///                                          └──── a newer record: anew ──────┘
/// ```
struct ReachabilityTests: Sendable {
    private struct Test: Sendable {
        var hoa: HomeAddress
        var moas: [MobileAddress]
        /// Where the update was received: what is sent from there gets through any filter.
        var local: IPAddress
        var sequence: UInt32
        var triesLeft: Int
    }

    /// One locator check.
    struct Check: Sendable {
        var message: SignalMessage
        var target: Endpoint
        /// An address of this server that the node has sent to: another is better, if there is one.
        var avoided: IPAddress
    }

    private var tests: [IPPrefix: Test] = [:]
    private var deadlines = DeadlineQueue<IPPrefix>()
    /// Tests begun, per second.
    private var rate: RateLimit

    static let tries = 3
    /// After the first try and after the second.
    static let pauses: [Duration] = [.milliseconds(500), .seconds(1)]
    /// Tests going on at a time.
    static let testsMax = 65_536

    init(_ limits: IMSLimits) { rate = RateLimit(perSecond: limits.reachabilityTestsPerSecond) }

    mutating func reconfigure(_ limits: IMSLimits) { rate.reconfigure(perSecond: limits.reachabilityTestsPerSecond) }

    var count: Int { tests.count }

    /// A node's update is durable. A MoPre is not tested: nobody has proven to be at one address of it.
    ///
    /// - Parameter random: for the checks' sequence numbers and cookies.
    mutating func registered(_ mapping: StoredMapping, _ random: inout CoreRandom, _ now: Now) -> [Check] {
        let record = mapping.record
        let moas = record.isNetwork ? [] : record.locators.map(\.moa)
        let isKnown = tests[record.prefix] != nil
        guard !moas.isEmpty, isKnown || tests.count < Self.testsMax, rate.take(at: now.monotonic) else {
            end(record.prefix)
            return []
        }
        tests[record.prefix] = Test(
            hoa: record.hoa, moas: moas, local: mapping.local, sequence: random.sequence { _ in false }, triesLeft: Self.tries)
        return tryNow(record.prefix, &random, now)
    }

    // MARK: Time

    var nextDeadline: MonotonicTime? { mutating get { deadlines.next } }

    /// - Returns: `nil` if nothing is due.
    mutating func due(_ random: inout CoreRandom, _ now: Now) -> [Check]? {
        deadlines.takeDue(now.monotonic).map { tryNow($0, &random, now) }
    }

    private mutating func tryNow(_ prefix: IPPrefix, _ random: inout CoreRandom, _ now: Now) -> [Check] {
        guard var test = tests[prefix] else { return [] }
        test.triesLeft -= 1
        if test.triesLeft > 0 {
            tests[prefix] = test
            deadlines.set(prefix, at: now.monotonic + Self.pauses[min(Self.tries - test.triesLeft, Self.pauses.count) - 1])
        } else {
            end(prefix)
        }
        // Nobody waits for the answer, so its cookie need not be recognised.
        let query = MAQuery(cookie: Cookie(client: random.next()), hoa: test.hoa)
        return test.moas.map { moa in
            Check(
                message: SignalMessage(sequence: test.sequence, .maQuery(query)), target: Endpoint(moa.address, port: SignalPort.node),
                avoided: test.local)
        }
    }

    private mutating func end(_ prefix: IPPrefix) {
        tests[prefix] = nil
        deadlines.cancel(prefix)
    }
}

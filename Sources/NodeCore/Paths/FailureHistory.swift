import MATSignal

/// How often something failed lately, and for how long it must behave before it is trusted again: the more often, the longer.
struct FailureHistory: Hashable, Sendable {
    private(set) var failures = 0
    private(set) var last: MonotonicTime?

    mutating func failed(at now: MonotonicTime, _ configuration: PathConfiguration) {
        if isForgotten(at: now, configuration) { failures = 0 }
        failures = min(failures + 1, Self.failuresMax)
        last = now
    }

    /// The base after the first failure, doubled with each further one.
    func holdDown(_ configuration: PathConfiguration) -> Duration {
        var time = configuration.holdDown
        for _ in 1..<max(2, failures) where failures > 1 && time < configuration.holdDownMax { time *= 2 }
        return min(time, max(configuration.holdDownMax, configuration.holdDown))
    }

    func isForgotten(at now: MonotonicTime, _ configuration: PathConfiguration) -> Bool {
        last.map { now - $0 >= configuration.forgetAfter } ?? true
    }

    /// Beyond it doubling changes nothing: any base reaches any maximum.
    private static let failuresMax = 32
}

/// Links whose address comes and goes. The first returns are believed at once, for that is what a handover is; from the third
/// within a minute on, the link must stay for a hold-down before it is preferred again.
struct LinkFlaps: Sendable {
    struct Link: Hashable, Comparable, Sendable {
        let interface: String
        let family: AddressFamily

        init(_ locator: OwnLocator) {
            interface = locator.interface
            family = locator.moa.family
        }

        static func < (a: Link, b: Link) -> Bool { (a.interface, a.family) < (b.interface, b.family) }
    }

    static let window: Duration = .seconds(60)
    static let flapsFree = 2
    /// Links remembered, and losses of each; more push out the oldest.
    static let linksMax = 64
    static let lossesMax = 16

    private var losses: [Link: [MonotonicTime]] = [:]

    mutating func lost(_ link: Link, at now: MonotonicTime) {
        if losses.count >= Self.linksMax, losses[link] == nil {
            let oldest = losses.min { ($0.value.last ?? .zero, $0.key) < ($1.value.last ?? .zero, $1.key) }
            if let oldest { losses[oldest.key] = nil }
        }
        losses[link, default: []].append(now)
        losses[link] = losses[link]?.suffix(Self.lossesMax).filter { now - $0 < Self.window }
    }

    /// For how long a link that returns now is to wait.
    func holdDown(_ link: Link, at now: MonotonicTime, _ configuration: PathConfiguration) -> Duration? {
        let count = losses[link]?.count { now - $0 < Self.window } ?? 0
        guard count > Self.flapsFree else { return nil }
        var history = FailureHistory()
        for _ in 0..<(count - Self.flapsFree) { history.failed(at: now, configuration) }
        return history.holdDown(configuration)
    }
}

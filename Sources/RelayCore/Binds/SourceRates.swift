import MATCore
import MATSignal

/// How much of something a source may cause in a second, and how much an IPv4 address may at which several HoAs are bound, since a translator
/// gives one address to many (protocol.md sections 6 and 11.5).
struct SourceRates: Sendable {
    private var single: RateTable<IPPrefix>
    private var shared: RateTable<IPPrefix>

    init(perSecond: Int, sharedPerSecond: Int, keysMax: Int) {
        single = RateTable(perSecond: perSecond, keysMax: keysMax)
        shared = RateTable(perSecond: sharedPerSecond, keysMax: keysMax)
    }

    mutating func reconfigure(perSecond: Int, sharedPerSecond: Int, keysMax: Int) {
        single.reconfigure(perSecond: perSecond, keysMax: keysMax)
        shared.reconfigure(perSecond: sharedPerSecond, keysMax: keysMax)
    }

    /// - Parameter boundCount: how many HoAs are bound at the address.
    mutating func take(_ source: IPAddress, boundCount: Int, at now: MonotonicTime) -> Bool {
        source.family == .ipv4 && boundCount > 1 ? shared.take(source.sourceKey, at: now) : single.take(source.sourceKey, at: now)
    }

    /// Forgets some that are idle.
    mutating func sweep(_ now: MonotonicTime, steps: Int) {
        single.forgetIdle(at: now, steps: steps)
        shared.forgetIdle(at: now, steps: steps)
    }
}

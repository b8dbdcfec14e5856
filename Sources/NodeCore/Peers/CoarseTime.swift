import MATSignal

/// A monotonic time to a tenth of a second, in 4 octets: enough for what is compared with seconds and minutes. Reaches 13 years
/// from the machine's start and stays there.
struct CoarseTime: Hashable, Comparable, Sendable {
    private static let nanosecondsPerTick: Int64 = 100_000_000
    private let ticks: UInt32

    /// Rounds down, so that a time that has come has come here too.
    init(_ time: MonotonicTime) { ticks = UInt32(clamping: time.nanoseconds / Self.nanosecondsPerTick) }

    var time: MonotonicTime { MonotonicTime(nanoseconds: Int64(ticks) * Self.nanosecondsPerTick) }

    static func < (a: CoarseTime, b: CoarseTime) -> Bool { a.ticks < b.ticks }
}

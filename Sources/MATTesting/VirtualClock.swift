import MATSignal

/// Time that passes only when a test says so. Both clocks move together; the wall's may be set apart to try bad clocks.
public struct VirtualClock: Sendable {
    /// 2026-09-21, an arbitrary moment after which the protocol's clock checks pass.
    public static let wallAtStart: UInt64 = 1_790_000_000_000

    public private(set) var time: MonotonicTime
    /// How far the wall clock is off, milliseconds.
    public var wallOffset: Int64 = 0

    public init() { time = MonotonicTime(nanoseconds: 1_000_000_000) }

    public var now: Now {
        let passed = Int64(Self.wallAtStart) + time.nanoseconds / 1_000_000 + wallOffset
        return Now(monotonic: time, wallMilliseconds: UInt64(max(0, passed)))
    }

    /// Goes forward to this moment; time never goes back.
    public mutating func advance(to moment: MonotonicTime) { time = max(time, moment) }
}

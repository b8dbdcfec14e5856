import Glibc

/// A time as people read it, in UTC.
public struct UTCTime: Hashable, Sendable {
    /// `2026-11-21`
    public let day: String
    /// `05:49:10`
    public let clock: String

    /// Records and certificates carry any 64 bits.
    ///
    /// - Returns: `nil` for what no calendar holds, beyond the year 9999.
    public init?(unixSeconds: Int64) {
        var time = time_t(unixSeconds)
        var parts = tm()
        guard unixSeconds < 253_402_300_800, gmtime_r(&time, &parts) != nil else { return nil }
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        day = "\(1900 + parts.tm_year)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
        clock = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
    }
}

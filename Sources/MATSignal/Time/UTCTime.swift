/// A time as people read it, in UTC.
public struct UTCTime: Hashable, Sendable {
    /// `2026-11-21`
    public let day: String
    /// `05:49:10`
    public let clock: String

    /// The seconds of the years 0 to 9999 of the Gregorian calendar.
    private static let range: Range<Int64> = -62_167_219_200..<253_402_300_800

    /// Records and certificates carry any 64 bits.
    ///
    /// - Returns: `nil` for what no calendar holds, beyond the year 9999 or before the year 0.
    public init?(unixSeconds: Int64) {
        guard Self.range.contains(unixSeconds) else { return nil }
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        // Counted from 1 March of the year 0, so that a leap year's day is the last of its year, in eras of 400 years, which are all alike.
        let (days, seconds) = (unixSeconds + 62_167_219_200).quotientAndRemainder(dividingBy: 86_400)
        let shifted = days - 60 + 146_097
        let (era, dayOfEra) = shifted.quotientAndRemainder(dividingBy: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + (era - 1) * 400 + (month <= 2 ? 1 : 0)
        day = "\(year)-\(two(month))-\(two(dayOfYear - (153 * monthFromMarch + 2) / 5 + 1))"
        clock = "\(two(seconds / 3600)):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
    }

    /// For people: `2026-11-21 05:49:10 UTC`.
    public static func text(unixMilliseconds milliseconds: UInt64) -> String {
        UTCTime(unixSeconds: Int64(clamping: milliseconds / 1000)).map { "\($0.day) \($0.clock) UTC" } ?? "\(milliseconds) ms after 1970"
    }
}

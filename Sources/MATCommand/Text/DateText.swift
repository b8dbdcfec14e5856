import Glibc

/// Dates as people write them on a command line, in UTC.
enum DateText {
    /// - Returns: Unix time in ms; `nil` unless the text is like 2026-11-21 or 2026-11-21T10:00:00Z, and a moment that there is.
    static func parse(_ text: String) -> UInt64? {
        let halves = text.split(separator: "T", maxSplits: 1, omittingEmptySubsequences: false)
        guard let date = halves.first.flatMap({ numbers($0, "-", widths: [4, 2, 2]) }) else { return nil }
        var clock = [0, 0, 0] as [Int32]
        if halves.count == 2 {
            let half = halves[1].hasSuffix("Z") ? halves[1].dropLast() : halves[1]
            guard let found = numbers(half, ":", widths: [2, 2, 2]) else { return nil }
            clock = found
        }
        guard clock[0] < 24, clock[1] < 60, clock[2] < 60 else { return nil }
        var parts = tm()
        (parts.tm_year, parts.tm_mon, parts.tm_mday) = (date[0] - 1900, date[1] - 1, date[2])
        (parts.tm_hour, parts.tm_min, parts.tm_sec) = (clock[0], clock[1], clock[2])
        let seconds = timegm(&parts)
        // timegm() makes the 3rd of March of the 31st of February; that was not meant.
        guard seconds >= 0, parts.tm_mday == date[2], parts.tm_mon == date[1] - 1 else { return nil }
        return UInt64(seconds) * 1000
    }

    private static func numbers(_ text: Substring, _ separator: Character, widths: [Int]) -> [Int32]? {
        let parts = text.split(separator: separator, omittingEmptySubsequences: false)
        guard parts.map(\.count) == widths, parts.allSatisfy({ $0.allSatisfy { $0.isASCII && $0.isNumber } }) else { return nil }
        return parts.compactMap { Int32($0) }
    }
}

import MATSignal

/// Durations as people write them in configuration files.
enum ConfigurationDuration {
    /// The units, longest first, so that writing takes the largest that fits. Nanoseconds each.
    private static let units: [(name: String, nanoseconds: Int64)] = [
        ("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000),
        ("us", 1000),
    ]

    /// `nil` for what is no duration, or one of more than 292 years.
    static func parse(_ text: String) -> Duration? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let suffix = text[digits.endIndex...]
        guard let first = digits.first, first != ".", digits.last != ".", let amount = Double(digits) else { return nil }
        let unit = suffix.isEmpty ? 1_000_000_000 : units.first { $0.name == suffix }?.nanoseconds
        guard let unit, amount * Double(unit) < 9.2e18 else { return nil }
        return .nanoseconds(Int64((amount * Double(unit)).rounded()))
    }

    static func write(_ duration: Duration) -> String {
        let nanoseconds = duration.nanosecondsSaturated
        if nanoseconds == 0 { return "0s" }
        for unit in units where nanoseconds % unit.nanoseconds == 0 { return "\(nanoseconds / unit.nanoseconds)\(unit.name)" }
        return "\(nanoseconds)ns"
    }
}

/// Finds the word a person probably meant.
enum NearMatch {
    /// Longer words than this are not compared: the work is the product of the lengths.
    static let wordCharactersMax = 64

    /// The candidate with the fewest typing mistakes in it, if they are few for the word's length.
    static func best(for word: String, among candidates: some Sequence<String>) -> String? {
        guard word.count <= wordCharactersMax else { return nil }
        let allowed = max(1, min(3, word.count / 3))
        var best: (mistakes: Int, candidate: String)?
        for candidate in candidates where candidate.count <= wordCharactersMax {
            let mistakes = distance(Array(word.lowercased()), Array(candidate.lowercased()))
            if mistakes <= allowed, mistakes < best?.mistakes ?? .max { best = (mistakes, candidate) }
        }
        return best?.candidate
    }

    /// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
    private static func distance(_ a: [Character], _ b: [Character]) -> Int {
        if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
        var beforeLast = [Int](repeating: 0, count: b.count + 1)
        var last = Array(0...b.count)
        for i in 1...a.count {
            var row = [i] + [Int](repeating: 0, count: b.count)
            for j in 1...b.count {
                row[j] = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
                if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { row[j] = min(row[j], beforeLast[j - 2] + 1) }
            }
            (beforeLast, last) = (last, row)
        }
        return last[b.count]
    }
}

import MATSignal

/// Numbers as people read them.
enum Quantity {
    private static let units: [(name: String, seconds: Int64)] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)]

    /// The two largest units: `45s`, `3m 12s`, `2h 5m`, `364d 23h`. Less than nothing is nothing.
    static func duration(seconds: Int64) -> String {
        guard let first = units.firstIndex(where: { seconds >= $0.seconds }) else { return "0s" }
        let whole = seconds / units[first].seconds
        let text = "\(whole)\(units[first].name)"
        guard first + 1 < units.count else { return text }
        let rest = seconds % units[first].seconds / units[first + 1].seconds
        return rest == 0 ? text : "\(text) \(rest)\(units[first + 1].name)"
    }

    static func duration(milliseconds: Int64) -> String { duration(seconds: milliseconds / 1000) }

    /// Round-trip times: `0.42 ms`, `12.3 ms`, `250 ms`.
    static func milliseconds(_ duration: Duration) -> String {
        let hundredths = duration.components.seconds * 100_000 + duration.components.attoseconds / 10_000_000_000_000
        switch hundredths {
        case ..<1000: return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100) ms"
        case ..<10_000: return "\(hundredths / 100).\(hundredths % 100 / 10) ms"
        default: return "\(hundredths / 100) ms"
        }
    }

    /// `840 bit/s`, `12.3 kbit/s`, `1.23 Mbit/s`.
    static func bits(perSecond rate: Double) -> String {
        guard rate >= 1000 else { return "\(Int(max(0, rate))) bit/s" }
        var (value, unit) = (rate / 1000, 0)
        let names = ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]
        while value >= 1000, unit < names.count - 1 { (value, unit) = (value / 1000, unit + 1) }
        return "\(decimal(value, value < 10 ? 2 : value < 100 ? 1 : 0)) \(names[unit])"
    }

    /// Per second: `0`, `0.5`, `12`.
    static func rate(_ rate: Double) -> String { rate <= 0 ? "0" : decimal(rate, rate < 10 ? 1 : 0) }

    /// Rounded down, so that no step shows the unit's end.
    private static func decimal(_ value: Double, _ digits: Int) -> String {
        let scale: Int64 = digits == 2 ? 100 : digits == 1 ? 10 : 1
        // Rates come from counts of 64 bits.
        let scaled = Int64(min(value * Double(scale) + 1e-6, 9e18))
        guard digits > 0 else { return "\(scaled)" }
        let rest = "\(scaled % scale)"
        return "\(scaled / scale).\(String(repeating: "0", count: digits - rest.count))\(rest)"
    }

    /// `2026-11-21 05:49:10 UTC`. Records carry any 64 bits, so what no calendar holds is given as a number.
    static func date(unixSeconds: Int64) -> String {
        guard let time = UTCTime(unixSeconds: unixSeconds) else { return "\(unixSeconds) s after 1970" }
        return "\(time.day) \(time.clock) UTC"
    }

    static func date(unixMilliseconds: UInt64) -> String { date(unixSeconds: Int64(clamping: unixMilliseconds / 1000)) }

    /// `1 peer`, `2 peers`; `1 address`, `2 addresses` with the ending given.
    static func count(_ number: Int64, _ noun: String, _ ending: String = "s") -> String {
        "\(number) \(noun)\(number == 1 ? "" : ending)"
    }
}

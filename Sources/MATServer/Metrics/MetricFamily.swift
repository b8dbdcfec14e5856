import MATControl

/// A label and its value.
public struct MetricLabel: Hashable, Comparable, Sendable {
    public var name: String
    public var value: String

    public init(name: String, value: String) {
        self.name = name
        self.value = value
    }

    public static func < (a: MetricLabel, b: MetricLabel) -> Bool { (a.name, a.value) < (b.name, b.value) }
}

/// All series of one name, as they are told to Prometheus (text format 0.0.4):
///
/// ```
/// # HELP imsd_answers_total Answers sent, by message and code.
/// # TYPE imsd_answers_total counter
/// imsd_answers_total{type="MA Answer",code="ok"} 1027
/// ```
public struct MetricFamily: Sendable, Hashable {
    public enum Kind: String, Sendable, Hashable { case counter, gauge, histogram }

    public struct Sample: Sendable, Hashable {
        /// What a histogram's parts append to the name.
        public var suffix = ""
        public var labels: [MetricLabel]
        public var value: Double

        public init(suffix: String = "", labels: [MetricLabel] = [], value: Double) {
            self.suffix = suffix
            self.labels = labels
            self.value = value
        }
    }

    public var name: String
    public var help: String
    public var kind: Kind
    public var samples: [Sample]

    public init(name: String, help: String, kind: Kind, samples: [Sample]) {
        self.name = name
        self.help = help
        self.kind = kind
        self.samples = samples
    }
}

/// Names, numbers and whole pages of the exposition format.
public enum MetricText {
    /// The content type that goes with `write`.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    public static func write(_ families: [MetricFamily]) -> String {
        var text = ""
        for family in families {
            if !family.help.isEmpty { text += "# HELP \(family.name) \(escape(family.help, quotes: false))\n" }
            text += "# TYPE \(family.name) \(family.kind.rawValue)\n"
            for sample in family.samples {
                text += family.name + sample.suffix
                if !sample.labels.isEmpty {
                    text += "{" + sample.labels.map { "\($0.name)=\"\(escape($0.value, quotes: true))\"" }.joined(separator: ",") + "}"
                }
                text += " \(number(sample.value))\n"
            }
        }
        return text
    }

    /// Names have letters, digits and underscores, and begin with no digit.
    static func name(_ text: String) -> String {
        let name = String(text.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
        return name.first.map { $0.isNumber } ?? true ? "_" + name : name
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        // Counts are shown as such; above 2^53 no double is exact anyway.
        if value.rounded() == value, abs(value) < 9_007_199_254_740_992 { return "\(Int64(value))" }
        return "\(value)"
    }

    private static func escape(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        for character in text {
            switch character {
            case "\\": escaped += "\\\\"
            case "\n", "\r\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.append(character)
            }
        }
        return escaped
    }
}

extension MetricFamily {
    public var report: MetricsReport.Family {
        MetricsReport.Family(
            name: name, help: help, type: kind.rawValue,
            samples: samples.map { sample in
                MetricsReport.Sample(
                    name: name + sample.suffix, labels: Dictionary(sample.labels.map { ($0.name, $0.value) }) { first, _ in first },
                    value: sample.value)
            })
    }
}

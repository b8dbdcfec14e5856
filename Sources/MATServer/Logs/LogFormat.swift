import Logging
import MATRuntime
import MATSignal

/// How log lines look.
public enum LogFormat: String, Sendable, Hashable, CaseIterable {
    /// One line for people: time, level, label, the sentence, and behind it what it is about.
    ///
    ///     2026-11-21T05:49:10.123Z info imsd: mapping moved (after=203.0.113.10 before=none hoa=192.0.2.10)
    case text
    /// One JSON object a line, for programs: `time`, `level`, `label`, `message`, `metadata`.
    case json

    /// - Parameter metadata: the logger's and the event's own.
    func line(_ event: LogEvent, of label: String, _ metadata: Logger.Metadata) -> [UInt8] {
        switch self {
        case .text:
            let about = metadata.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
            return Array("\(Self.timestamp()) \(event.level.rawValue) \(label): \(event.message)\(about.isEmpty ? "" : " (\(about))")\n".utf8)
        case .json:
            var object: [String: JSONValue] = [
                "time": .string(Self.timestamp()), "level": .string(event.level.rawValue), "label": .string(label),
                "message": .string("\(event.message)"),
            ]
            if !metadata.isEmpty { object["metadata"] = .object(metadata.mapValues(Self.json)) }
            return JSONValue.object(object).write() + [10]
        }
    }

    private static func json(_ value: Logger.Metadata.Value) -> JSONValue {
        switch value {
        case .string(let text): .string(text)
        case .stringConvertible(let other): .string("\(other)")
        case .array(let values): .array(values.map(json))
        case .dictionary(let members): .object(members.mapValues(json))
        }
    }

    /// `2026-11-21T05:49:10.123Z`
    private static func timestamp() -> String {
        let milliseconds = SystemClock.now().wallMilliseconds
        guard let time = UTCTime(unixSeconds: Int64(milliseconds / 1000)) else { return "\(milliseconds)" }
        let digits = "\(milliseconds % 1000)"
        return "\(time.day)T\(time.clock).\(String(repeating: "0", count: 3 - digits.count))\(digits)Z"
    }
}

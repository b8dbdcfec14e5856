import Glibc
import Logging
import MATCore
import MATRuntime
import MATSignal

/// How log lines look.
public enum LogFormat: String, Sendable, Hashable, CaseIterable {
    /// One line for people: time, level, metadata, message.
    case text
    /// One JSON object a line, for programs: `time`, `level`, `label`, `message`, `metadata`.
    case json
}

extension Logger {
    /// A daemon's logger, to standard error.
    public static func daemon(_ name: String, _ format: LogFormat, _ level: Level) -> Logger {
        var logger: Logger
        switch format {
        case .text: logger = Logger(label: name) { StreamLogHandler.standardError(label: $0) }
        case .json: logger = Logger(label: name) { JSONLogHandler(label: $0, write: JSONLogHandler.writeToStandardError) }
        }
        logger.logLevel = level
        return logger
    }
}

/// Writes one JSON object a line.
public struct JSONLogHandler: LogHandler {
    private let label: String
    private let write: @Sendable ([UInt8]) -> Void
    public var logLevel = Logger.Level.info
    public var metadata = Logger.Metadata()

    public init(label: String, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.label = label
        self.write = write
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var object: [String: JSONValue] = [
            "time": .string(Self.timestamp()), "level": .string(event.level.rawValue), "label": .string(label),
            "message": .string("\(event.message)"),
        ]
        var all = metadata
        for (key, value) in event.metadata ?? [:] { all[key] = value }
        if let error = event.error { all["error"] = "\(error)" }
        if !all.isEmpty { object["metadata"] = .object(all.mapValues(Self.json)) }
        write(JSONValue.object(object).write() + [10])
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

    /// In one call, so that lines of several threads don't mix. What a full pipe does not take is lost, as logs may be.
    public static let writeToStandardError: @Sendable ([UInt8]) -> Void = { line in
        _ = Glibc.write(STDERR_FILENO, line, line.count)
    }
}

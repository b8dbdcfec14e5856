import Logging
import MATRuntime

/// How log lines look.
public enum LogFormat: String, Sendable, Hashable, CaseIterable {
    /// One line for people: time, level, message, metadata.
    case text
    /// One JSON object a line, for programs: `time`, `level`, `label`, `message`, `metadata`.
    case json
}

extension Logger {
    /// A daemon's logger, to standard error.
    public static func daemon(_ name: String, _ format: LogFormat, _ level: Level) -> Logger {
        var logger: Logger
        switch format {
        case .text: logger = Logger(label: name) { TextLogHandler(label: $0, write: LogLine.writeToStandardError) }
        case .json: logger = Logger(label: name) { JSONLogHandler(label: $0, write: LogLine.writeToStandardError) }
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
            "time": .string(LogLine.timestamp()), "level": .string(event.level.rawValue), "label": .string(label),
            "message": .string("\(event.message)"),
        ]
        let all = LogLine.metadata(of: event, beside: metadata)
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
}

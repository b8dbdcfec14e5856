import Logging

/// Writes a line for people: time, level, label, the sentence, and behind it what it is about.
///
///     2026-11-21T05:49:10.123Z info imsd: mapping moved (after=203.0.113.10 before=none hoa=192.0.2.10)
public struct TextLogHandler: LogHandler {
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
        let all = LogLine.metadata(of: event, beside: metadata)
        let about = all.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
        let line = "\(LogLine.timestamp()) \(event.level.rawValue) \(label): \(event.message)\(about.isEmpty ? "" : " (\(about))")\n"
        write(Array(line.utf8))
    }
}

import Glibc
import Logging
import MATRuntime

extension Logger.Level {
    public init?(_ word: LogLevelWord?) {
        guard let word else { return nil }
        self.init(rawValue: word.rawValue)
    }

    /// - Parameter option: what the command line says, which counts before the configuration.
    public static func chosen(_ option: Self?, configured: String) -> Self { option ?? Self(rawValue: configured) ?? .info }
}

extension Logger {
    /// A daemon's logger, to standard error.
    public static func daemon(_ name: String, _ format: LogFormat, _ level: Level) -> Logger {
        var logger = Logger(label: name) { DaemonLogHandler(label: $0, format: format) }
        logger.logLevel = level
        return logger
    }
}

/// Writes lines of one format to standard error.
private struct DaemonLogHandler: LogHandler {
    let label: String
    let format: LogFormat
    var logLevel = Logger.Level.info
    var metadata = Logger.Metadata()

    init(label: String, format: LogFormat) {
        self.label = label
        self.format = format
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        // The event's own counts where both say something.
        var all = metadata.merging(event.metadata ?? [:]) { $1 }
        if let error = event.error { all["error"] = "\(error)" }
        let line = format.line(event, of: label, all)
        // In one call, so that lines of several threads don't mix. What a full pipe does not take is lost, as logs may be.
        _ = write(STDERR_FILENO, line, line.count)
    }
}

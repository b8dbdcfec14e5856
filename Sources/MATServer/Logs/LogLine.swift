import Glibc
import Logging
import MATRuntime
import MATSignal

/// What lines of the log have in common, whatever they look like.
enum LogLine {
    /// `2026-11-21T05:49:10.123Z`
    static func timestamp() -> String {
        let milliseconds = SystemClock.now().wallMilliseconds
        guard let time = UTCTime(unixSeconds: Int64(milliseconds / 1000)) else { return "\(milliseconds)" }
        let digits = "\(milliseconds % 1000)"
        return "\(time.day)T\(time.clock).\(String(repeating: "0", count: 3 - digits.count))\(digits)Z"
    }

    /// The logger's and the line's own, which counts where both say something.
    static func metadata(of event: LogEvent, beside logger: Logger.Metadata) -> Logger.Metadata {
        var all = logger
        for (key, value) in event.metadata ?? [:] { all[key] = value }
        if let error = event.error { all["error"] = "\(error)" }
        return all
    }

    /// In one call, so that lines of several threads don't mix. What a full pipe does not take is lost, as logs may be.
    static let writeToStandardError: @Sendable ([UInt8]) -> Void = { line in
        _ = Glibc.write(STDERR_FILENO, line, line.count)
    }
}

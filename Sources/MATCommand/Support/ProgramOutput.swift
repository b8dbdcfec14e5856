import Foundation

/// What other programs print.
enum ProgramOutput {
    /// Its complaints are among it, unless they are to be left out.
    ///
    /// - Parameter seconds: after which it is ended.
    /// - Returns: what it printed, and why it could not be asked.
    static func of(_ command: [String], seconds: Int, complaints: Bool = true) -> (text: String, failure: String?) {
        let (text, _, failure) = run(command, seconds: seconds, complaints: complaints)
        return (text, failure)
    }

    /// Likewise, for whom it matters how it ended.
    ///
    /// - Returns: what it printed, its exit status, and why it could not be asked.
    static func run(_ command: [String], seconds: Int, complaints: Bool = true) -> (text: String, status: Int32, failure: String?) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "timeout", "-k", "2", "\(seconds)"] + command
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = complaints ? pipe : FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        do { try process.run() } catch { return ("", -1, "it can't be started: \(error.localizedDescription)") }
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        // Where SIGTERM was no use, timeout(1) ends itself by SIGKILL as well.
        let status = process.terminationReason == .uncaughtSignal ? 137 : process.terminationStatus
        switch status {
        case 124, 137: return (text, status, "no end within \(seconds) s")
        case 126: return ("", status, "\(command.first ?? "it") can't be started")
        case 127: return ("", status, "\(command.first ?? "it") is not installed")
        default: return (text, status, nil)
        }
    }
}

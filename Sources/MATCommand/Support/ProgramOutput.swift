import Foundation

/// What other programs print.
enum ProgramOutput {
    /// Its complaints are among it, unless they are to be left out.
    ///
    /// - Parameter seconds: after which it is ended.
    /// - Returns: what it printed, and why it could not be asked.
    static func of(_ command: [String], seconds: Int, complaints: Bool = true) -> (text: String, failure: String?) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "timeout", "-k", "2", "\(seconds)"] + command
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = complaints ? pipe : FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        do { try process.run() } catch { return ("", "it can't be started: \(error.localizedDescription)") }
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        switch process.terminationStatus {
        case 124, 137: return (text, "no end within \(seconds) s")
        case 127: return ("", "\(command.first ?? "it") is not installed")
        default: return (text, nil)
        }
    }
}

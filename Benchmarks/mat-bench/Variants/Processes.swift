import BenchSupport
import CLinux
import Foundation
import Glibc

/// Processes that run until told to end, by their ids.
final class Processes {
    private var running: [Process] = []

    var identifiers: [pid_t] { running.map(\.processIdentifier) }

    func start(_ command: String) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "exec " + command]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        running.append(process)
        Cleanup.shared.note(process: process.processIdentifier)
    }

    /// What they have used so far, from /proc/PID/stat (user and system time, in ticks).
    func processorNanoseconds() -> Double {
        let tick = 1e9 / Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
        return running.reduce(0) { sum, process in
            guard let text = try? String(contentsOfFile: "/proc/\(process.processIdentifier)/stat", encoding: .utf8),
                let end = text.lastIndex(of: ")")
            else { return sum }
            // After the name: state, then utime and stime as the 12th and 13th field.
            let fields = text[end...].split(separator: " ")
            guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return sum }
            return sum + (user + system) * tick
        }
    }

    func end() {
        for process in running {
            // Its signal mask is that of the thread that started it; only this one is sure to arrive.
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            Cleanup.shared.forget(process: process.processIdentifier)
        }
        running = []
    }
}

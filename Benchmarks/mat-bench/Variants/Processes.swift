import Foundation
import Glibc
import Namespaces

/// Processes that run until told to end, by their ids.
final class Processes {
    private var running: [Child] = []

    var identifiers: [pid_t] { running.map(\.pid) }

    func start(_ command: String) throws {
        let child = try Child(shell: command)
        running.append(child)
        CleanUp.shared.note(child)
    }

    /// What they have used so far, from /proc/PID/stat (user and system time, in ticks).
    func processorNanoseconds() -> Double {
        let tick = 1e9 / Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
        return running.reduce(0) { sum, child in
            guard let text = try? String(contentsOfFile: "/proc/\(child.pid)/stat", encoding: .utf8),
                let end = text.lastIndex(of: ")")
            else { return sum }
            // After the name: state, then utime and stime as the 12th and 13th field.
            let fields = text[end...].split(separator: " ")
            guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return sum }
            return sum + (user + system) * tick
        }
    }

    func end() {
        for child in running {
            child.end()
            CleanUp.shared.forget(child)
        }
        running = []
    }
}

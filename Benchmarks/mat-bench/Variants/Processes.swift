import BenchSupport
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

    /// What they have used so far.
    func processorNanoseconds() -> Double { running.reduce(0) { $0 + (BenchSupport.processorNanoseconds(of: $1.pid) ?? 0) } }

    func end() {
        for child in running {
            child.end()
            CleanUp.shared.forget(child)
        }
        running = []
    }
}

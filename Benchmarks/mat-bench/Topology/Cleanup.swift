import Foundation
import Glibc
import Synchronization

/// What has to go when the benchmark ends, also when somebody ends it.
final class Cleanup: Sendable {
    static let shared = Cleanup()

    private struct State {
        var namespaces: [BenchNamespace] = []
        var processes: [Int: pid_t] = [:]
        var lastCommand: String?
    }
    private let state = Mutex(State())

    var namespaces: [BenchNamespace] {
        get { state.withLock { $0.namespaces } }
        set { state.withLock { $0.namespaces = newValue } }
    }

    /// A command that takes away what was built by another.
    var lastCommand: String? {
        get { state.withLock { $0.lastCommand } }
        set { state.withLock { $0.lastCommand = newValue } }
    }

    /// Notes a process that a signal must take along.
    func note(process: pid_t) { state.withLock { $0.processes[Int(process)] = process } }
    func forget(process: pid_t) { state.withLock { _ = $0.processes.removeValue(forKey: Int(process)) } }

    /// SIGINT, SIGTERM and SIGHUP are taken by a thread of their own, which tidies up and ends the process. To be called before any
    /// other thread is begun, so that all of them have these signals blocked.
    func watchSignals() {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        Thread.detachNewThread {
            var set = sigset_t()
            sigemptyset(&set)
            for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
            var taken: Int32 = 0
            sigwait(&set, &taken)
            self.run()
            _exit(128 + taken)
        }
    }

    func run() {
        let left = state.withLock { state in
            defer { state = State() }
            return state
        }
        // Children begin with the mask of the thread that started them, so only SIGKILL is sure to reach them.
        for process in left.processes.values { kill(process, SIGKILL) }
        for namespace in left.namespaces { namespace.remove() }
        if let command = left.lastCommand { _ = try? shell(command) }
    }
}

import Foundation
import Glibc
import Synchronization

/// What has to go when the benchmark ends, also when somebody ends it.
package final class Cleanup: Sendable {
    package static let shared = Cleanup()

    private struct State {
        var namespaces: [String] = []
        var processes: [Int: pid_t] = [:]
        var lastCommand: String?
        /// A signal was taken: its thread ends the process, and nobody else.
        var isEnding = false
    }
    private let state = Mutex(State())
    /// Held while tidying up: a signal's thread and the main one may both come here, and neither may end the process before
    /// the other has finished.
    private let turn = Mutex(())

    /// Notes a namespace by its name, before it is made: a signal can come right after.
    package func note(namespace: String) { state.withLock { $0.namespaces.append(namespace) } }

    /// A command that takes away what was built by another.
    package var lastCommand: String? {
        get { state.withLock { $0.lastCommand } }
        set { state.withLock { $0.lastCommand = newValue } }
    }

    /// Notes a process that a signal must take along.
    package func note(process: pid_t) { state.withLock { $0.processes[Int(process)] = process } }
    package func forget(process: pid_t) { state.withLock { _ = $0.processes.removeValue(forKey: Int(process)) } }

    /// SIGINT, SIGTERM and SIGHUP are taken by a thread of their own, which tidies up and ends the process. To be called before any
    /// other thread is begun, so that all of them have these signals blocked.
    package func watchSignals() {
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
            self.state.withLock { $0.isEnding = true }
            self.tidy()
            self.removeLate()
            _exit(128 + taken)
        }
    }

    /// A command that was making a namespace when the signal came ends after it was looked for.
    private func removeLate() {
        for _ in 0..<4 {
            usleep(50_000)
            let names = (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
            for name in names where name.hasPrefix("\(BenchNamespace.prefix)\(getpid())-") { _ = try? shell("ip netns del \(name)") }
        }
    }

    /// Takes everything away. When a signal is ending the process, what the caller does next would cut its tidying short: it waits
    /// here for the end.
    package func run() {
        tidy()
        while state.withLock({ $0.isEnding }) { pause() }
    }

    private func tidy() {
        turn.withLock { _ in
            let left = state.withLock { state in
                defer {
                    let isEnding = state.isEnding
                    state = State()
                    state.isEnding = isEnding
                }
                return state
            }
            // Children begin with the mask of the thread that started them, so only SIGKILL is sure to reach them.
            for process in left.processes.values { kill(process, SIGKILL) }
            for namespace in left.namespaces { _ = try? shell("ip netns del \(namespace)") }
            if let command = left.lastCommand { _ = try? shell(command) }
        }
    }
}

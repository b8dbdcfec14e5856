import Glibc
import Synchronization

/// What has to go when a program ends, also when somebody ends it. A program that wants this calls `watchSignals` first of all.
public final class CleanUp: Sendable {
    public static let shared = CleanUp()

    private struct State {
        var namespaces: [String] = []
        var children: [pid_t: Child] = [:]
        var lastCommand: String?
        /// A signal was taken: its thread ends the process, and nobody else.
        var isEnding = false
    }
    private let state = Mutex(State())
    /// Held while tidying up: a signal's thread and the main one may both come here, and neither may end the process before the other
    /// has finished.
    private let turn = Mutex(())

    /// Notes a namespace by its name, before it is made: a signal can come right after.
    public func note(namespace: String) { state.withLock { $0.namespaces.append(namespace) } }
    public func forget(namespace: String) { state.withLock { state in state.namespaces.removeAll { $0 == namespace } } }

    /// A shell command that takes away what was built by another.
    public var lastCommand: String? {
        get { state.withLock { $0.lastCommand } }
        set { state.withLock { $0.lastCommand = newValue } }
    }

    /// Notes a process that a signal must take along.
    public func note(_ child: Child) { state.withLock { $0.children[child.pid] = child } }
    public func forget(_ child: Child) { state.withLock { _ = $0.children.removeValue(forKey: child.pid) } }

    /// SIGINT, SIGTERM and SIGHUP are taken by a thread of their own, which tidies up and ends the process with 128 and the signal. To be
    /// called before any other thread is begun, so that all of them have these signals blocked.
    public func watchSignals() {
        EndingSignals.block()
        _ = JoinableThread {
            let taken = EndingSignals.wait()
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
            for name in Namespace.names() where name.contains("-\(getpid())-") { Namespace.remove(name) }
        }
    }

    /// Takes everything away. When a signal is ending the process, what the caller does next would cut its tidying short: it waits here
    /// for the end.
    public func run() {
        tidy()
        while state.withLock({ $0.isEnding }) { pause() }
    }

    private func tidy() {
        turn.withLock { _ in
            let left = state.withLock { state in
                let left = state
                state = State()
                state.isEnding = left.isEnding
                return left
            }
            for child in left.children.values { child.end() }
            for namespace in left.namespaces { Namespace.remove(namespace) }
            if let command = left.lastCommand { _ = try? shell(command) }
        }
    }
}

import CLinux
import DequeModule
import Dispatch
import Synchronization

/// Threads that do what would hold up an event loop, such as checking signatures. Each takes what waits, a few at a time, and hands the results
/// back together.
package final class JobPool<Job: Sendable, Outcome: Sendable>: Sendable {
    @usableFromInline
    struct State {
        /// Bounded by who hands in jobs.
        @usableFromInline var waiting: Deque<Job> = []
        /// The threads that have nothing to do.
        @usableFromInline var idle: [Int]
        @usableFromInline var deliver: @Sendable ([Outcome]) -> Void = { _ in }

        @inlinable init(idle: [Int]) { self.idle = idle }
    }

    @usableFromInline let state: Mutex<State>
    @usableFromInline let threads: [DispatchQueue]
    @usableFromInline let run: @Sendable (Job) -> Outcome

    /// Jobs that one thread takes at a time: few enough that threads share a burst evenly and a result waits half a millisecond at
    /// most, enough that the hand-over costs little beside the jobs.
    @inlinable static var jobsPerTurnMax: Int { 8 }

    /// - Parameters:
    ///   - label: of the threads, for people.
    ///   - count: how many threads; at least one.
    @inlinable
    package init(label: String, threads count: Int, run: @escaping @Sendable (Job) -> Outcome) {
        threads = (0..<max(1, count)).map { DispatchQueue(label: "\(label) \($0)") }
        state = Mutex(State(idle: Array(threads.indices)))
        self.run = run
    }

    @inlinable package var threadsCount: Int { threads.count }

    /// - Parameter deliver: gets results, in any thread.
    @inlinable
    package func start(_ deliver: @escaping @Sendable ([Outcome]) -> Void) { state.withLock { $0.deliver = deliver } }

    @inlinable
    package func add(_ job: Job) {
        let begins = state.withLock { state in
            state.waiting.append(job)
            return state.idle.popLast()
        }
        if let begins { threads[begins].async { self.work(begins) } }
    }

    /// What waits is forgotten; no result comes after it.
    @inlinable
    package func stop() {
        state.withLock { state in
            state.deliver = { _ in }
            state.waiting = []
        }
        for thread in threads { thread.sync {} }
    }

    @inlinable
    func work(_ thread: Int) {
        while true {
            let turn = state.withLock { state -> [Job] in
                // An equal share: with few waiting, no thread takes all of them while another idles.
                let count = min(Self.jobsPerTurnMax, (state.waiting.count + threads.count - 1) / threads.count)
                let turn = Array(state.waiting.prefix(count))
                state.waiting.removeFirst(count)
                // The room that a burst needed is given back.
                if state.waiting.isEmpty { state.waiting = [] }
                if turn.isEmpty { state.idle.append(thread) }
                return turn
            }
            if turn.isEmpty { return }
            let outcomes = turn.map(run)
            state.withLock { $0.deliver }(outcomes)
        }
    }
}

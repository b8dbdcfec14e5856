import CLinux
import DequeModule
import Dispatch
import IMSCore
import Synchronization

/// The threads that check signatures. Each takes what waits, a few at a time, and hands the results back together.
final class VerifierPool: Sendable {
    /// Checks that one thread takes at a time: few enough that threads share a burst evenly and a result waits half a millisecond at
    /// most, enough that the hand-over costs little beside the checks.
    static let jobsPerTurnMax = 8

    private struct Waiting: Sendable {
        var ticket: VerificationTicket
        var job: VerificationJob
    }

    private struct State {
        /// Bounded by the core (`IMSLimits.verificationsPendingMax`).
        var waiting: Deque<Waiting> = []
        /// The threads that have nothing to do.
        var idle: [Int]
        var deliver: @Sendable ([VerificationResult]) -> Void = { _ in }
    }

    private let state: Mutex<State>
    private let threads: [DispatchQueue]

    /// - Parameter threads: at least one.
    init(threads count: Int) {
        threads = (0..<max(1, count)).map { DispatchQueue(label: "verifier \($0)") }
        state = Mutex(State(idle: Array(threads.indices)))
    }

    /// One core is left to the event loop and the store; a single core is shared.
    static var threadsDefault: Int { max(1, Int(mat_cores()) - 1) }

    var threadsCount: Int { threads.count }

    /// - Parameter deliver: gets results, in any thread.
    func start(_ deliver: @escaping @Sendable ([VerificationResult]) -> Void) { state.withLock { $0.deliver = deliver } }

    func verify(_ ticket: VerificationTicket, _ job: VerificationJob) {
        let begins = state.withLock { state in
            state.waiting.append(Waiting(ticket: ticket, job: job))
            return state.idle.popLast()
        }
        if let begins { threads[begins].async { self.work(begins) } }
    }

    /// What waits is forgotten; no result comes after it.
    func stop() {
        state.withLock { state in
            state.deliver = { _ in }
            state.waiting = []
        }
        for thread in threads { thread.sync {} }
    }

    private func work(_ thread: Int) {
        while true {
            let turn = state.withLock { state -> [Waiting] in
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
            let results = turn.map { VerificationResult($0.ticket, failure: $0.job.run()) }
            state.withLock { $0.deliver }(results)
        }
    }
}

import CLinux
import IMSCore
import MATServer

/// The threads that check signatures.
final class VerifierPool: Sendable {
    private struct Check: Sendable {
        var ticket: VerificationTicket
        var job: VerificationJob
    }

    /// What waits is bounded by the core (`IMSLimits.verificationsPendingMax`).
    private let pool: JobPool<Check, VerificationResult>

    /// - Parameter threads: at least one.
    init(threads count: Int) {
        pool = JobPool(label: "verifier", threads: count) { VerificationResult($0.ticket, failure: $0.job.run()) }
    }

    /// One core is left to the event loop and the store; a single core is shared.
    static var threadsDefault: Int { max(1, Int(mat_cores()) - 1) }

    var threadsCount: Int { pool.threadsCount }

    /// - Parameter deliver: gets results, in any thread.
    func start(_ deliver: @escaping @Sendable ([VerificationResult]) -> Void) { pool.start(deliver) }

    func verify(_ ticket: VerificationTicket, _ job: VerificationJob) { pool.add(Check(ticket: ticket, job: job)) }

    /// What waits is forgotten; no result comes after it.
    func stop() { pool.stop() }
}

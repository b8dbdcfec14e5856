import MATSignal
import Synchronization

/// Whether what this server has in memory may be told.
///
/// A process that was stopped for a while (by a signal, a debugger, a hypervisor that moves it) wakes with a memory of before and with
/// questions waiting, while others of its cluster have gone on: a node that they answered meanwhile would see its peer go back. So
/// answers are held back from then until the store has caught up, which takes milliseconds. Nodes repeat what gets no answer.
///
/// Read by all threads that answer, for every batch of datagrams.
public final class Freshness: Sendable {
    private let until: Atomic<Int64>

    /// - Parameter until: the monotonic time up to which answers may be given without asking the store again.
    public init(until: MonotonicTime = .distantFuture) { self.until = Atomic(until.nanoseconds) }

    @inlinable
    public func mayAnswer(at now: MonotonicTime) -> Bool { now.nanoseconds <= limit }

    @usableFromInline
    var limit: Int64 { until.load(ordering: .relaxed) }

    public func extend(to time: MonotonicTime) { until.store(time.nanoseconds, ordering: .relaxed) }
}

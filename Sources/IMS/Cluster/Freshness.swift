import MATSignal
import Synchronization

/// Whether what this server has in memory may be told.
///
/// A process that was stopped for a while (by a signal, a debugger, a hypervisor that moves it) wakes with a memory of before and with
/// questions waiting, while others of its cluster have gone on: a node that they answered meanwhile would see its peer go back. So
/// answers are held back from then until the store has caught up, which takes milliseconds. Nodes repeat what gets no answer.
///
/// "Caught up" is a matter of the core, which serves the mappings, and not of the store's thread, which hands them on: the store withholds
/// answers, hands on what it has read, then `StoreEvent.caughtUp`, and it is the core's loop that releases them when it comes to this event.
///
/// Read by all threads that answer, for every batch of datagrams.
public final class Freshness: Sendable {
    private let until: Atomic<Int64>
    /// How often answers were withheld, and up to which of these times they were released.
    private let withheld = Atomic<UInt64>(0)
    private let released = Atomic<UInt64>(0)

    /// - Parameter until: the monotonic time up to which answers may be given without asking the store again.
    public init(until: MonotonicTime = .distantFuture) { self.until = Atomic(until.nanoseconds) }

    public func mayAnswer(at now: MonotonicTime) -> Bool {
        now.nanoseconds <= until.load(ordering: .relaxed) && released.load(ordering: .acquiring) == withheld.load(ordering: .relaxed)
    }

    /// By the store's thread.
    public func extend(to time: MonotonicTime) { until.store(time.nanoseconds, ordering: .relaxed) }

    /// By the store's thread: no answers until what follows has been applied.
    public func withhold(_ number: UInt64) { withheld.store(number, ordering: .relaxed) }

    /// By the core's loop, which has applied all that the store handed on before.
    public func release(_ number: UInt64) { released.store(number, ordering: .releasing) }
}

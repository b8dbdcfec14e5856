import Glibc
import Synchronization

/// Nanoseconds of `CLOCK_MONOTONIC`. Both ends of a run are on one machine (in different network namespaces), so their stamps
/// compare directly.
public typealias Nanoseconds = Int64

public enum ProbeClock {
    public static let perMillisecond: Nanoseconds = 1_000_000
    public static let perSecond: Nanoseconds = 1_000_000_000

    public static func now() -> Nanoseconds { read(CLOCK_MONOTONIC) }

    /// What to add to a wall-clock stamp of the kernel (SO_TIMESTAMPNS knows no other clock) to get a monotonic one. It is read
    /// afresh for every packet, because the wall clock may be slewed during a run.
    static func monotonicMinusWall() -> Nanoseconds { read(CLOCK_MONOTONIC) - read(CLOCK_REALTIME) }

    /// Sleeps until an absolute time, so that lateness of one step does not shift the next.
    static func sleep(until time: Nanoseconds) {
        var wanted = timespec(tv_sec: Int(time / perSecond), tv_nsec: Int(time % perSecond))
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wanted, nil) == EINTR {
            if Interruption.isRequested { return }
        }
    }

    private static func read(_ clock: clockid_t) -> Nanoseconds {
        var time = timespec()
        clock_gettime(clock, &time)
        return Nanoseconds(time.tv_sec) * perSecond + Nanoseconds(time.tv_nsec)
    }
}

/// SIGINT and SIGTERM end a run early, but still with its log and summary.
public enum Interruption {
    private static let requested = Atomic<Bool>(false)

    public static var isRequested: Bool { requested.load(ordering: .relaxed) }

    /// Installs the handlers; a second signal then ends the process as usual.
    public static func handle() {
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                Interruption.requested.store(true, ordering: .relaxed)
                signal(number, SIG_DFL)
            }
        }
    }
}

/// A thread that can be joined, and that runs before all ordinary threads if the system lets it.
package final class PreciseThread {
    private final class Work: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    private var thread = pthread_t()
    private let isStarted: Bool

    init(_ body: @escaping @Sendable () -> Void) {
        let work = Unmanaged.passRetained(Work(body))
        isStarted =
            pthread_create(
                &thread, nil,
                { argument in
                    guard let argument else { return nil }
                    let work = Unmanaged<Work>.fromOpaque(argument).takeRetainedValue()
                    PreciseThread.preferCurrent()
                    work.body()
                    return nil
                }, work.toOpaque()) == 0
        if !isStarted { work.release() }
    }

    func join() { if isStarted { pthread_join(thread, nil) } }

    /// Asks for SCHED_FIFO: on a busy machine an ordinary thread wakes up milliseconds late, which would look like a gap.
    /// Without the permission the run still works; send stamps and the kernel's receive stamps keep its result honest.
    @discardableResult
    package static func preferCurrent() -> Bool {
        var parameters = sched_param()
        parameters.sched_priority = 20
        return pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters) == 0
    }
}

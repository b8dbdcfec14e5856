import MATCore
import MATSignal

/// Names a scheduled timer, for cancelling it.
public struct TimerID: Hashable, Sendable {
    fileprivate let number: UInt64
}

/// The loop's timers: what is to be done, by when it is due.
struct TimerQueue {
    private var deadlines = DeadlineQueue<UInt64>()
    private var bodies: [UInt64: () -> Void] = [:]
    private var lastNumber: UInt64 = 0

    var isEmpty: Bool { bodies.isEmpty }

    /// When the next timer is due.
    var next: MonotonicTime? { mutating get { deadlines.next } }

    mutating func add(at time: MonotonicTime, _ body: @escaping () -> Void) -> TimerID {
        lastNumber += 1
        bodies[lastNumber] = body
        deadlines.set(lastNumber, at: time)
        return TimerID(number: lastNumber)
    }

    mutating func cancel(_ timer: TimerID) {
        bodies[timer.number] = nil
        deadlines.cancel(timer.number)
    }

    /// Removes and returns the next timer's body if it is due.
    mutating func takeDue(_ now: MonotonicTime) -> (() -> Void)? {
        guard let number = deadlines.takeDue(now) else { return nil }
        return bodies.removeValue(forKey: number)
    }
}

import MATSignal

/// Names a scheduled timer, for cancelling it.
public struct TimerID: Hashable, Sendable {
    fileprivate let number: UInt64
}

/// Timers in a binary heap. Cancelling marks; the heap drops marked ones when they surface.
struct TimerQueue {
    private struct Entry {
        let time: MonotonicTime
        let number: UInt64
    }

    private var heap: [Entry] = []
    private var bodies: [UInt64: () -> Void] = [:]
    private var lastNumber: UInt64 = 0

    var isEmpty: Bool { bodies.isEmpty }

    /// When the next timer is due. May name a cancelled timer, which costs one idle wake-up.
    var next: MonotonicTime? { heap.first?.time }

    mutating func add(at time: MonotonicTime, _ body: @escaping () -> Void) -> TimerID {
        lastNumber += 1
        bodies[lastNumber] = body
        heap.append(Entry(time: time, number: lastNumber))
        siftUp(heap.count - 1)
        return TimerID(number: lastNumber)
    }

    mutating func cancel(_ timer: TimerID) {
        bodies[timer.number] = nil
        if bodies.isEmpty { heap.removeAll(keepingCapacity: true) }
    }

    /// Removes and returns the next timer's body if it is due.
    mutating func takeDue(_ now: MonotonicTime) -> (() -> Void)? {
        while let first = heap.first, first.time <= now {
            removeFirst()
            if let body = bodies.removeValue(forKey: first.number) { return body }
        }
        return nil
    }

    private func precedes(_ a: Int, _ b: Int) -> Bool {
        (heap[a].time, heap[a].number) < (heap[b].time, heap[b].number)
    }

    private mutating func siftUp(_ start: Int) {
        var child = start
        while child > 0, precedes(child, (child - 1) / 2) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func removeFirst() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && precedes(child, smallest) { smallest = child }
            if smallest == parent { return }
            heap.swapAt(parent, smallest)
            parent = smallest
        }
    }
}

import Glibc
import Synchronization

/// Work handed from other threads to the loop's thread. The eventfd is written only when the queue was empty, so a burst of
/// posts costs one wake-up.
final class PostQueue: Sendable {
    private struct State {
        var bodies: [@Sendable () -> Void] = []
        var wakeup: Int32 = -1
    }

    private let state = Mutex(State())

    var wakeup: Int32 {
        get { state.withLock { $0.wakeup } }
        set { state.withLock { $0.wakeup = newValue } }
    }

    func add(_ body: @escaping @Sendable () -> Void) {
        let wake = state.withLock { state -> Int32? in
            state.bodies.append(body)
            return state.bodies.count == 1 ? state.wakeup : nil
        }
        guard let wake else { return }
        var one: UInt64 = 1
        _ = write(wake, &one, 8)
    }

    func takeAll() -> [@Sendable () -> Void] {
        state.withLock { state in
            defer { state.bodies = [] }
            return state.bodies
        }
    }
}

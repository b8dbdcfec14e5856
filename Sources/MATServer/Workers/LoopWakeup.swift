import CLinux
import Glibc
import MATRuntime
import Synchronization

/// Wakes a loop, once for all that workers put into their rings before it comes.
package final class LoopWakeup: Sendable {
    /// Readable when the loop is to look at the rings.
    package let descriptor: Int32
    private let isSignalled = Atomic<Bool>(false)

    package init() throws(SystemError) {
        descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard descriptor >= 0 else { throw SystemError("eventfd") }
    }

    deinit { close(descriptor) }

    /// In any thread.
    package func signal() {
        guard !isSignalled.exchange(true, ordering: .acquiringAndReleasing) else { return }
        var one: UInt64 = 1
        _ = write(descriptor, &one, 8)
    }

    /// Before the rings are looked at: what comes in after that signals again.
    package func clear() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        isSignalled.store(false, ordering: .sequentiallyConsistent)
    }
}

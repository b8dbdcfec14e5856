import RelayCore
import Synchronization

/// The one `RelayCore`, which the loop's thread and all workers use in turn.
///
/// A worker holds the lock for what it decides about a whole batch, some 10 us, and not while it receives or sends, which takes ten times as
/// long. So the lock is no hindrance for as many threads as a machine has network queues, and every rate is exact whichever thread a packet
/// comes to.
final class SharedCore: Sendable {
    private let core: Mutex<RelayCore>

    init(_ core: RelayCore) { self.core = Mutex(core) }

    func use<Result: Sendable>(_ body: (inout RelayCore) -> sending Result) -> Result { core.withLock { body(&$0) } }
}

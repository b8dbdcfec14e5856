import Dispatch
import MATRuntime
import MATSignal
import Synchronization

/// The durable store in front of the event loop: changes are written by a thread of its own, all that wait in one transaction
/// (group commit), and outcomes come back through the loop in the order of the changes.
public final class MappingStore: Sendable {
    /// Changes in one transaction. A larger backlog takes several.
    static let changesPerTransactionMax = 1024

    private struct Waiting: Sendable {
        var ticket: StoreTicket
        var change: StoreChange
    }

    private struct State {
        var waiting: [Waiting] = []
        var isWriting = false
    }

    private let state = Mutex(State())
    private let thread = DispatchQueue(label: "mapping store")
    private let worker: Worker

    /// The database belongs to the queue's thread; only closures that run there touch it.
    private final class Worker: @unchecked Sendable {
        let database: MappingDatabase
        init(_ database: MappingDatabase) { self.database = database }
    }

    /// Opens the store and reads all of it. Blocks; for the start.
    public static func open(path: String) throws(StoreError) -> (store: MappingStore, contents: StoreContents) {
        let database = try MappingDatabase(path: path)
        let contents = try database.contents()
        return (MappingStore(database), contents)
    }

    private init(_ database: MappingDatabase) { worker = Worker(database) }

    /// Makes the change durable and says so in the loop's thread.
    ///
    /// - Parameter done: gets `nil`, or why it failed.
    public func commit(
        _ ticket: StoreTicket, _ change: StoreChange, via poster: Poster, done: @escaping @Sendable (StoreTicket, String?) -> Void
    ) {
        let begins = state.withLock { state in
            state.waiting.append(Waiting(ticket: ticket, change: change))
            defer { state.isWriting = true }
            return !state.isWriting
        }
        // While one transaction is being synced, the next collects: the busier, the larger.
        if begins { thread.async { self.writeAll(poster, done) } }
    }

    private func writeAll(_ poster: Poster, _ done: @escaping @Sendable (StoreTicket, String?) -> Void) {
        while true {
            let batch = state.withLock { state in
                let batch = Array(state.waiting.prefix(Self.changesPerTransactionMax))
                state.waiting.removeFirst(batch.count)
                if batch.isEmpty { state.isWriting = false }
                return batch
            }
            if batch.isEmpty { return }
            var failure: String?
            do throws(StoreError) {
                try worker.database.write(batch.map(\.change))
            } catch {
                failure = error.description
            }
            let outcome = failure
            poster.post { for waiting in batch { done(waiting.ticket, outcome) } }
        }
    }

    /// Blocks until the secret is durable; for the start and the rare rotation.
    public func write(_ secret: CookieSecret) throws(StoreError) {
        let result = thread.sync { () -> Result<Void, StoreError> in
            do throws(StoreError) {
                try worker.database.write(secret)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// Waits for what is being written, and closes the file.
    public func close() {
        thread.sync { worker.database.close() }
    }
}

import Dispatch
import MATSignal
import Synchronization

/// The store of a single server, an SQLite file: changes are written by a thread of its own, all that wait in one transaction
/// (group commit), and outcomes come back in the order of the changes.
public final class MappingStore: MappingStoring {
    /// Changes in one transaction. A larger backlog takes several.
    static let changesPerTransactionMax = 1024

    public let place: String

    private struct Waiting: Sendable {
        var ticket: StoreTicket
        var change: StoreChange
    }

    private struct State {
        var waiting: [Waiting] = []
        var isWriting = false
        var deliver: @Sendable (StoreEvent) -> Void = { _ in }
    }

    private let state = Mutex(State())
    private let thread = DispatchQueue(label: "mapping store")
    private let worker: Worker

    /// The database belongs to the queue's thread; only closures that run there touch it.
    private final class Worker: @unchecked Sendable {
        let database: MappingDatabase
        init(_ database: MappingDatabase) { self.database = database }
    }

    /// Opens the file, or makes it.
    public init(path: String) throws(StoreError) {
        place = path
        worker = Worker(try MappingDatabase(path: path))
    }

    private func deliver(_ event: StoreEvent) { state.withLock { $0.deliver }(event) }

    public func start(_ deliver: @escaping @Sendable (StoreEvent) -> Void) {
        state.withLock { $0.deliver = deliver }
        thread.async { [self] in
            do throws(StoreError) {
                deliver(.secrets(try worker.database.secrets()))
                deliver(.loaded(try worker.database.contents()))
                deliver(.loadEnded)
            } catch {
                deliver(.unavailable(error.description))
            }
        }
    }

    public func commit(_ ticket: StoreTicket, _ change: StoreChange) {
        let begins = state.withLock { state in
            state.waiting.append(Waiting(ticket: ticket, change: change))
            defer { state.isWriting = true }
            return !state.isWriting
        }
        // While one transaction is being synced, the next collects: the busier, the larger.
        if begins { thread.async { self.writeAll() } }
    }

    private func writeAll() {
        while true {
            let batch = state.withLock { state in
                let batch = Array(state.waiting.prefix(Self.changesPerTransactionMax))
                state.waiting.removeFirst(batch.count)
                if batch.isEmpty { state.isWriting = false }
                return batch
            }
            if batch.isEmpty { return }
            var result = StoreOutcome.Result.durable
            do throws(StoreError) {
                try worker.database.write(batch.map(\.change))
            } catch {
                result = .failed(error.description)
            }
            deliver(.committed(batch.map { StoreOutcome($0.ticket, result) }))
        }
    }

    public func write(_ secret: CookieSecret) {
        thread.async { [self] in
            do throws(StoreError) {
                try worker.database.write(secret)
                deliver(.secrets(try worker.database.secrets()))
            } catch {
                deliver(.failed("the cookie secret is not renewed: \(error)"))
            }
        }
    }

    /// Waits for what is being written, and closes the file.
    public func close() {
        thread.sync { worker.database.close() }
        state.withLock { $0.deliver = { _ in } }
    }
}

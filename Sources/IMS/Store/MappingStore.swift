import Dispatch
import Glibc
import IMSCore
import Synchronization

/// The store of a single server, an SQLite file.
///
/// ```
///   commit ──► waiting ──► writer thread: all that waits in one transaction (group commit) ──► outcomes, in the order of the changes
///                                │ the log has grown
///                                └──► checkpoint thread: brings it into the file while the writer goes on; the writer does the rest
///   start ───► reader thread: parts, as fast as they are taken in
/// ```
/// ```
///            a write fails                                     a probe a second succeeds
///  writes ───────────────────► refuses everything, says why ──────────────────────────────► writes
///            the file is damaged: refuses until a person has repaired it
/// ```
public final class MappingStore: MappingStoring {
    /// Changes in one transaction. A larger backlog takes several.
    static let changesPerTransactionMax = 2048
    /// Parts of the contents on their way to the core: the reader waits rather than filling the memory.
    static let partsUnderWayMax = 4
    /// How often a store that can't write is tried.
    static let probeInterval = DispatchTimeInterval.seconds(1)
    /// Room that a disk must have again, so that the first changes after it was full don't fill it at once.
    static let roomMin: UInt64 = 1 << 20
    /// How long a failed checkpoint is not tried again.
    static let checkpointRetry: UInt64 = 5_000_000_000

    public let place: String

    private struct Waiting: Sendable {
        var ticket: StoreTicket
        var change: StoreChange
    }

    private struct State {
        var waiting: [Waiting] = []
        var isWriting = false
        var deliver: @Sendable (StoreEvent) -> Void = { _ in }
        var isClosed = false
    }

    private let state = Mutex(State())
    private let thread = DispatchQueue(label: "mapping store")
    private let readThread = DispatchQueue(label: "mapping store, reading")
    private let checkpointThread = DispatchQueue(label: "mapping store, checkpoints")
    private let parts = DispatchSemaphore(value: partsUnderWayMax)
    private let writer: Writer

    /// What belongs to the writer thread; only closures that run there touch it.
    private final class Writer: @unchecked Sendable {
        /// `nil` while it can't be opened.
        var database: MappingDatabase?
        /// `nil` while it can't be had. Nothing is written without it.
        var lock: StoreLock?
        /// Why nothing is written.
        var failure: StoreError?
        var isProbing = false
        /// Whether the reader got to the end, or as far as damage lets it.
        var isRead = false
        var isCheckpointing = false
        var checkpointAfter: UInt64 = 0
    }

    /// Opens the file, or makes it. A file that is damaged or a disk that is full is told as an event, since what can be read is served.
    ///
    /// - Throws: if it never worked: no such directory, a file of somebody else, no store at all; or another server runs on it.
    public init(path: String) throws(StoreError) {
        place = path
        writer = Writer()
        if let reason = Self.objection(to: path) { throw StoreError(reason, kind: .unusable) }
        do throws(StoreError) {
            writer.lock = try StoreLock(store: path)
            writer.database = try MappingDatabase(path: path)
        } catch {
            guard error.kind != .unusable else { throw error }
            writer.failure = error
        }
    }

    private func deliver(_ event: StoreEvent) { state.withLock { $0.deliver }(event) }

    public func start(_ deliver: @escaping @Sendable (StoreEvent) -> Void) {
        state.withLock { $0.deliver = deliver }
        thread.async { [self] in
            tellSecrets()
            if let failure = writer.failure { refuse(failure) }
            readThread.async { self.read() }
        }
    }

    // MARK: Reading

    /// Lets the reader go on when the part that holds it has been taken in.
    private final class Lease: Sendable {
        private let semaphore: DispatchSemaphore
        init(_ semaphore: DispatchSemaphore) {
            semaphore.wait()
            self.semaphore = semaphore
        }
        deinit { semaphore.signal() }
    }

    private func read() {
        do throws(StoreError) {
            let reader = try openReader()
            defer { reader.close() }
            // Nothing has made its tables yet: what is in the writer's way has been told, and is tried again.
            guard try reader.read() else { return }
            thread.async { self.writer.isRead = true }
            guard !reader.damage.isEmpty else { return deliver(.loadEnded) }
            // No loadEnded: what is not known may stand in what could not be read.
            let places = reader.damage.prefix(4).joined(separator: ", ")
            let text = """
                the store \(place) is damaged: \(reader.mappingsCount) mappings could be read, what stands \(places)\
                \(reader.damage.count > 4 ? " and elsewhere" : "") could not; restore it from a backup, or save what is left with \
                sqlite3's .recover
                """
            thread.async { self.refuse(StoreError(text, kind: .damaged)) }
        } catch {
            thread.async { self.refuse(error) }
        }
    }

    private func openReader() throws(StoreError) -> MappingReader {
        let deliver: (StoreContents) -> Void = { [self] contents in
            guard !state.withLock({ $0.isClosed }) else { return }
            var contents = contents
            contents.lease = Lease(parts)
            self.deliver(.loaded(contents))
        }
        do throws(StoreError) {
            return try MappingReader(path: place, isAlone: false, deliver: deliver)
        } catch  where error.kind == .passing {
            return try MappingReader(path: place, isAlone: true, deliver: deliver)
        }
    }

    // MARK: Writing

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
            let batch = state.withLock { state -> [Waiting] in
                if state.waiting.count <= Self.changesPerTransactionMax {
                    let batch = state.waiting
                    state.waiting = []
                    if batch.isEmpty { state.isWriting = false }
                    return batch
                }
                let batch = Array(state.waiting.prefix(Self.changesPerTransactionMax))
                state.waiting.removeFirst(batch.count)
                return batch
            }
            if batch.isEmpty { return }
            do throws(StoreError) {
                if let failure = writer.failure { throw failure }
                guard let database = writer.database else { throw StoreError("the store \(place) is closed") }
                let results = try database.write(batch.map(\.change))
                deliver(.committed(zip(batch, results).map { StoreOutcome($0.ticket, $1) }))
            } catch {
                deliver(.committed(batch.map { StoreOutcome($0.ticket, .failed(error.description)) }))
                refuse(error)
            }
            checkpoint()
        }
    }

    public func write(_ secret: CookieSecret) {
        thread.async { [self] in
            do throws(StoreError) {
                if let failure = writer.failure { throw failure }
                try writer.database?.write(secret)
                tellSecrets()
            } catch {
                deliver(.failed("the cookie secret is not renewed: \(error)"))
            }
        }
    }

    private func tellSecrets() {
        guard let secrets = try? writer.database?.secrets() else { return }
        deliver(.secrets(secrets))
    }

    // MARK: When it can't write

    /// Says that nothing is written from now on, and sees to it that this ends when it can.
    private func refuse(_ failure: StoreError) {
        // Damage outlives what passes.
        if let earlier = writer.failure, earlier.kind == .damaged, failure.kind != .damaged { return }
        writer.failure = failure
        deliver(.unavailable(failure.description))
        guard failure.kind != .damaged, !writer.isProbing else { return }
        writer.isProbing = true
        probeLater()
    }

    private func probeLater() {
        thread.asyncAfter(deadline: .now() + Self.probeInterval) { [weak self] in self?.probe() }
    }

    private func probe() {
        guard !state.withLock({ $0.isClosed }) else { return }
        guard let failure = writer.failure, failure.kind != .damaged else {
            writer.isProbing = false
            return
        }
        do throws(StoreError) {
            guard room >= Self.roomMin else { return probeLater() }
            let opens = writer.database == nil
            if writer.lock == nil { writer.lock = try StoreLock(store: place, waiting: 0) }
            if opens { writer.database = try MappingDatabase(path: place) }
            try writer.database?.probe()
            writer.failure = nil
            writer.isProbing = false
            deliver(.available)
            if opens { tellSecrets() }
            if !writer.isRead { readThread.async { self.read() } }
        } catch {
            if error.kind == .damaged || error.description != failure.description { refuse(error) }
            if error.kind == .damaged { writer.isProbing = false } else { probeLater() }
        }
    }

    /// What the file's disk has left.
    private var room: UInt64 {
        var status = statvfs()
        // Where that can't be told, the probe will tell.
        guard statvfs(place, &status) == 0 else { return .max }
        return UInt64(status.f_bavail) &* UInt64(status.f_frsize)
    }

    // MARK: Checkpoints

    private func checkpoint() {
        guard let database = writer.database, database.wantsCheckpoint, !writer.isCheckpointing,
            DispatchTime.now().uptimeNanoseconds >= writer.checkpointAfter
        else { return }
        writer.isCheckpointing = true
        let path = place
        checkpointThread.async { [self] in
            var failure: StoreError?
            do throws(StoreError) { try MappingDatabase.checkpoint(path: path) } catch { failure = error }
            let outcome = failure
            thread.async { self.finishCheckpoint(outcome) }
        }
    }

    private func finishCheckpoint(_ failure: StoreError?) {
        writer.isCheckpointing = false
        do throws(StoreError) {
            if let failure { throw failure }
            try writer.database?.finishCheckpoint()
        } catch {
            // Nothing is lost by it: the log keeps what the file has not taken. If the log can't grow, writing will tell.
            writer.checkpointAfter = DispatchTime.now().uptimeNanoseconds &+ Self.checkpointRetry
            deliver(.failed("the store's log is not brought into its file: \(error)"))
        }
    }

    /// Bounds the file, as a full disk would; for tests.
    func limitPages(to count: Int) {
        thread.sync { try? writer.database?.execute("PRAGMA max_page_count = \(count)") }
    }

    // MARK: The end

    /// Writes changes at once, in one transaction, and blocks meanwhile: for who fills a store that no server runs on.
    public func fill(_ changes: [StoreChange]) throws(StoreError) {
        let result = thread.sync { () -> Result<Void, StoreError> in
            do throws(StoreError) {
                guard let database = writer.database else { throw StoreError("the store \(place) is not open") }
                _ = try database.write(changes)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// Waits for what is being written, and closes the file.
    public func close() {
        let isFirst = state.withLock { state in
            defer { state.isClosed = true }
            return !state.isClosed
        }
        guard isFirst else { return }
        checkpointThread.sync {}
        thread.sync {
            writer.database?.close()
            writer.database = nil
            writer.lock = nil
        }
        state.withLock { $0.deliver = { _ in } }
    }
}

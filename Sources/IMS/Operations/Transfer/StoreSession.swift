import Dispatch
import IMSCore
import MATSignal
import Synchronization

/// A store opened without a server in front of it, by a program that has nothing else to do: every call blocks.
public final class StoreSession {
    /// How long a store may say nothing before it is taken for dead.
    static let silenceMax = DispatchTimeInterval.seconds(60)

    private let store: any MappingStoring
    private let mailbox = Mailbox()
    private var lastTicket: UInt64 = 0
    /// The versions of what the store holds, once `read` is done.
    private var versions: [IPPrefix: RecordVersion] = [:]
    private var issued: [IPPrefix: UInt64] = [:]
    private var rows: [RowName: StoredRow] = [:]

    private struct RowName: Hashable {
        let kind: StoredRow.Kind
        let key: [UInt8]

        init(_ row: StoredRow) { (kind, key) = (row.kind, row.key) }
    }

    private final class Mailbox: Sendable {
        private let events = Mutex<[StoreEvent]>([])
        private let arrived = DispatchSemaphore(value: 0)

        func put(_ event: StoreEvent) {
            events.withLock { $0.append(event) }
            arrived.signal()
        }

        func take() throws(StoreError) -> StoreEvent {
            guard arrived.wait(timeout: .now() + StoreSession.silenceMax) == .success else {
                throw StoreError("the store says nothing for a minute; is it reachable?")
            }
            return events.withLock { $0.removeFirst() }
        }
    }

    /// The caller has made sure that no server runs on a store that is a file.
    public init(_ store: any MappingStoring) { self.store = store }

    deinit { store.close() }

    public var place: String { store.place }

    /// Reads all that the store holds; first of all calls.
    ///
    /// - Returns: what could not be read.
    public func read<Failure: Error>(_ body: (TransferLine) throws(Failure) -> Void) throws -> [String] {
        let mailbox = mailbox
        store.start { mailbox.put($0) }
        var unreadable: [String] = []
        var isRead = false
        while !isRead {
            switch try mailbox.take() {
            case .secrets(let secrets): for secret in secrets { try body(.secret(secret)) }
            case .loaded(let contents):
                for mapping in contents.mappings.stored {
                    guard let mapping else { continue }
                    versions[mapping.record.prefix] = mapping.certified.version
                    note(mapping.certified.certificate)
                    try body(.mapping(mapping))
                }
                for certificate in contents.issued {
                    note(certificate)
                    // The mapping's own needs no line of its own.
                    if versions[certificate.prefix]?.notBefore != certificate.notBefore { try body(.certificate(certificate)) }
                }
                for row in contents.rows {
                    rows[RowName(row)] = row
                    switch row.kind {
                    case .lease: if let lease = Lease(row) { try body(.lease(lease)) }
                    case .token: if let token = HeldToken(row) { try body(.token(token)) }
                    // Of the cluster that it is read from.
                    case .visitorGate: break
                    }
                }
                unreadable += contents.unreadable
            case .loadEnded: isRead = true
            case .unavailable(let reason), .failed(let reason): throw StoreError(reason)
            case .changed, .committed, .available, .shared, .caughtUp, .left: break
            }
        }
        return unreadable
    }

    private func note(_ certificate: Certificate) {
        issued[certificate.prefix] = max(issued[certificate.prefix] ?? 0, certificate.notBefore)
    }

    /// Writes what is newer than what the store holds, and waits until it is durable. The lines have been checked.
    public func take(_ lines: [TransferLine]) throws(StoreError) -> TransferOutcome {
        var outcome = TransferOutcome()
        var waiting: [StoreTicket: TransferLine] = [:]
        for line in lines {
            switch line {
            case .mapping(let mapping):
                let prefix = mapping.record.prefix
                let version = mapping.certified.version
                if let held = versions[prefix], !(version > held) {
                    if held == version { outcome.same += 1 } else { outcome.older += 1 }
                } else if let newest = issued[prefix], mapping.certified.certificate.notBefore < newest {
                    outcome.older += 1
                } else {
                    versions[prefix] = version
                    note(mapping.certified.certificate)
                    waiting[commit(StoreChange(mapping: mapping))] = line
                }
            case .certificate(let certificate):
                if let newest = issued[certificate.prefix], newest >= certificate.notBefore {
                    if newest == certificate.notBefore { outcome.same += 1 } else { outcome.older += 1 }
                } else {
                    note(certificate)
                    waiting[commit(StoreChange(issued: certificate))] = line
                }
            case .secret(let secret):
                store.write(secret)
                outcome.taken += 1
            case .lease(let lease): take(lease.row, line)
            case .token(let token): take(token.row, line)
            case .header, .trailer: break
            }
        }
        func take(_ row: StoredRow, _ line: TransferLine) {
            let held = rows[RowName(row)]
            guard held.map({ $0.version < row.version && $0.value != row.value }) ?? true else {
                if held?.value == row.value { outcome.same += 1 } else { outcome.older += 1 }
                return
            }
            var next = row
            next.version = (held?.version ?? 0) + 1
            rows[RowName(row)] = next
            waiting[commit(StoreChange(rows: [next]))] = line
        }
        while !waiting.isEmpty {
            switch try mailbox.take() {
            case .committed(let outcomes):
                for done in outcomes {
                    guard let line = waiting.removeValue(forKey: done.ticket) else { continue }
                    switch done.result {
                    case .durable: outcome.taken += 1
                    case .outrun, .conflict: outcome.older += 1
                    case .failed(let reason): throw StoreError(reason + "; stopped at \(line.name), what came before is durable")
                    }
                }
            case .unavailable(let reason), .failed(let reason): throw StoreError(reason)
            case .loaded, .loadEnded, .changed, .secrets, .available, .shared, .caughtUp, .left: break
            }
        }
        return outcome
    }

    private func commit(_ change: StoreChange) -> StoreTicket {
        lastTicket += 1
        let ticket = StoreTicket(number: lastTicket)
        store.commit(ticket, change)
        return ticket
    }

    /// Waits for what is being written, and closes the store.
    public func close() { store.close() }
}

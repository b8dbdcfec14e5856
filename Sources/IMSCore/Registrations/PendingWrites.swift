import MATSignal
import MappingMemory

/// A write on its way to the store, and who waits for it.
struct PendingWrite: Sendable {
    var mapping: StoredMapping?
    var issued: Certificate?
    /// A renewed certificate that the answers bring along.
    var renewed: Certificate?
    var rows: [StoredRow] = []
    /// Issued together with `rows`.
    var certificates: [Certificate] = []
    /// Mappings that `rows` rely on.
    var relied: [MappingVersion] = []
    /// Whose Joins it answers.
    var joins: JoinQueue.Key?
    /// The served prefix in whose quota a place is reserved, since the HoA is new.
    var reserved: IPPrefix?
    /// The update itself and duplicates of it that came meanwhile.
    var waiting: [Request] = []

    /// Duplicates answered at once; more are retransmissions of a client that is being answered anyway.
    static let waitingMax = 8
}

/// Changes on their way to the store.
///
/// ```
///              begin                     finish: durable, failed, or outrun by another instance
///   (nothing) ───────► pending: ticket ──────────────────────────────────────────────────────► (nothing)
///                        │  ▲
///                        └──┘ join: a duplicate waits for the same answer
/// ```
/// Of one HoA several may be on their way: the store takes them in their order. The newest is what versions are compared with, not only
/// what is durable.
struct PendingWrites: Sendable {
    /// A write is large, and a table moves what it holds.
    private final class Place: Sendable {
        let write: PendingWrite
        init(_ write: PendingWrite) { self.write = write }
    }

    private var pending: [StoreTicket: Place] = [:]
    private var newest: [IPPrefix: StoreTicket] = [:]
    private var lastTicket: UInt64 = 0

    var count: Int { pending.count }

    /// The write of the HoA's newest mapping.
    func newestTicket(of prefix: IPPrefix) -> StoreTicket? { newest[prefix] }

    /// The newest mapping of the HoA that is being written.
    func newestMapping(of prefix: IPPrefix) -> StoredMapping? { newest[prefix].flatMap { pending[$0]?.write.mapping } }

    mutating func begin(_ write: PendingWrite) -> StoreTicket {
        lastTicket &+= 1
        let ticket = StoreTicket(number: lastTicket)
        pending[ticket] = Place(write)
        if let mapping = write.mapping { newest[mapping.record.prefix] = ticket }
        return ticket
    }

    mutating func join(_ ticket: StoreTicket, _ request: Request) {
        guard var write = pending[ticket]?.write, write.waiting.count < PendingWrite.waitingMax else { return }
        write.waiting.append(request)
        pending[ticket] = Place(write)
    }

    /// - Returns: `nil` if there is no such write.
    mutating func finish(_ ticket: StoreTicket) -> PendingWrite? {
        guard let write = pending.removeValue(forKey: ticket)?.write else { return nil }
        if let prefix = write.mapping?.record.prefix, newest[prefix] == ticket { newest[prefix] = nil }
        return write
    }
}

import MATSignal
import MappingMemory

/// Where mappings are durable: a file of this server (`MappingStore`), or a cluster that several instances of one IMS share.
///
/// Everything that a store has to say comes as a `StoreEvent`, in the order in which it happened, to the closure given to `start`.
/// It may call that closure in any thread; the server hands the event on to its loop.
///
/// ```
///   start ──► secrets ──► loaded, loaded, ... ──► loadEnded ──► committed | changed | secrets | unavailable | available ...
/// ```
/// `unavailable` may come at any time, before `loadEnded` too; queries are answered all the while.
public protocol MappingStoring: AnyObject, Sendable {
    /// What people know it by: a file's path, or the cluster's servers. For logs and `mat ims status`.
    var place: String { get }

    /// Begins to read and to deliver. Once, before anything else.
    func start(_ deliver: @escaping @Sendable (StoreEvent) -> Void)

    /// Begins to make the change durable; `StoreEvent.committed` tells what came of it, for each ticket once. Doesn't block.
    /// Changes of one HoA are taken in the order in which they come here.
    func commit(_ ticket: StoreTicket, _ change: StoreChange)

    /// Begins to make the secret durable and to forget all but the newest two. `StoreEvent.secrets` follows with those that then
    /// count: another instance may have been quicker. Doesn't block. A failure is told as `StoreEvent.failed`.
    func write(_ secret: CookieSecret)

    /// Waits for what is being written, for a few seconds at most, and lets go. No event comes after it.
    func close()
}

/// A store that several instances of one IMS share, so that they can tell one another more than what must be durable.
public protocol MappingSharing: MappingStoring {
    /// Tells the other instances, soon and unless there is trouble. Doesn't block, and nothing is said about what came of it.
    func share(_ news: [SharedNews])

    /// This instance pushes, and may stand in for one that is no more. Before it, it only reads and writes, as an import does.
    func serve()

    /// Says good-bye to the other instances, which push from now on. `StoreEvent.left` follows when all that was this one's to push has
    /// been told, or when nobody can be told. Changes and news are taken on until `close`.
    func leave()

    /// Says when answers must be held back because the store may have gone on without this server.
    var freshness: Freshness { get }
}

/// What a store tells.
public enum StoreEvent: Sendable {
    /// A part of what the store holds. No two parts speak of one HoA, so their order does not matter.
    case loaded(StoreContents)
    /// The whole has been told: what is not known now is not registered.
    case loadEnded
    /// What other instances of this IMS wrote, in the order of their writes.
    case changed([StoreChange])
    /// What cookies are made with from now on, the current one first, at most two; empty if there is none yet.
    case secrets([CookieSecret])
    /// What came of changes; of those of one HoA, in the order in which they were given.
    case committed([StoreOutcome])
    /// No change can be made durable, for this reason, until `available`. It may come again with another reason. The reason is for a person who
    /// runs the server: it may hold paths, addresses and a library's words, and never goes to a node.
    case unavailable(String)
    case available
    /// What other instances learned, and which subscriptions are this one's to serve.
    case shared([SharedNews])
    /// All that came before this has caught up with the store: `Freshness.release`.
    case caughtUp(UInt64)
    /// The other instances know that this one stops; all that it had to push was told before.
    case left
    /// Something that a person should read, after which all goes on.
    case failed(String)
}

/// What came of one change.
public struct StoreOutcome: Hashable, Sendable {
    public enum Result: Hashable, Sendable {
        case durable
        /// Nothing was changed, for this reason; for a person who runs the server, like that of `unavailable`.
        case failed(String)
        /// Nothing was changed, because the store holds this newer (or the same) record: another instance took it.
        case outrun(by: StoredMapping)
    }

    public var ticket: StoreTicket
    public var result: Result

    public init(_ ticket: StoreTicket, _ result: Result) {
        self.ticket = ticket
        self.result = result
    }
}

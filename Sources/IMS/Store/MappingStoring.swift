import IMSCore

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

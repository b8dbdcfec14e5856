/// How what is in etcd gets into memory: read in pages as of one revision, then followed by a watch from there.
///
/// ```
///          opened: the first page is read     the last page: the watch begins        watched: up to a later revision
///   idle ────────────────────────────► reading, as of r ─────────────────► following, up to r ────────────┐
///     ▲                                 │    ▲ opened: the same page          │    ▲ opened: a watch from r + 1  │
///     │   it took so long that r is     │    └─ once more                     │    └──────────────────────────────┘
///     ├───── compacted ─────────────────┘                                     │
///     └───── what follows r is compacted: away for too long ──────────────────┘
/// ```
/// A lost connection changes nothing here: with the next, `opened` goes on where the one before was.
struct Feed: Sendable {
    private enum State: Sendable {
        case idle
        /// As of this revision.
        case reading(revision: Int64, PageCursor)
        /// All up to this revision has come.
        case following(revision: Int64)
    }

    enum OnOpened: Equatable, Sendable {
        /// All is read, from the first page on.
        case begin(EtcdRange)
        case goOn(EtcdRange)
        case follow(EtcdWatch)
    }

    enum OnPage: Equatable, Sendable {
        case next(EtcdRange)
        /// All as of this revision has been read.
        case ended(revision: Int64, isFirst: Bool, EtcdWatch)
    }

    enum OnWatched: Equatable, Sendable {
        case events
        /// All must be read anew: what came after this revision is no longer told step by step.
        case compacted(after: Int64)
        case cancelled(String)
    }

    private let keys: ClusterKeys
    private var state = State.idle
    /// Whether all was read once. What is read after that is like what a watch tells: the core takes what is newer.
    private(set) var hasLoaded = false

    init(_ keys: ClusterKeys) { self.keys = keys }

    var isReading: Bool { if case .reading = state { true } else { false } }
    var isFollowing: Bool { if case .following = state { true } else { false } }

    /// All up to this revision has come; `nil` while that can't be said.
    var followedRevision: Int64? { if case .following(let revision) = state { revision } else { nil } }

    /// The connection is open.
    ///
    /// - Parameter revision: etcd's newest.
    mutating func opened(at revision: Int64) -> OnOpened {
        switch state {
        case .idle:
            let cursor = PageCursor(keys)
            state = .reading(revision: revision, cursor)
            return .begin(page(cursor, revision))
        case .reading(let revision, let cursor): return .goOn(page(cursor, revision))
        case .following(let revision): return .follow(watch(after: revision))
        }
    }

    /// What a page had has been taken in.
    ///
    /// - Returns: `nil` for a page that nobody asked for.
    mutating func pageEnded(_ response: EtcdResponse) -> OnPage? {
        guard case .reading(let revision, var cursor) = state else { return nil }
        if cursor.advance(response.pairs, hasMore: response.hasMore, limit: ClusterInstance.pageKeysMax) {
            state = .reading(revision: revision, cursor)
            return .next(page(cursor, revision))
        }
        defer { hasLoaded = true }
        state = .following(revision: revision)
        return .ended(revision: revision, isFirst: !hasLoaded, watch(after: revision))
    }

    /// Reading took longer than etcd keeps old revisions.
    mutating func readingCompacted() { if isReading { state = .idle } }

    /// - Returns: `nil` while nothing is followed.
    mutating func watched(_ response: EtcdWatchResponse) -> OnWatched? {
        guard case .following(let revision) = state else { return nil }
        if response.compactRevision > 0 {
            state = .idle
            return .compacted(after: revision)
        }
        if response.isCanceled { return .cancelled(response.cancelReason) }
        if let last = response.events.last?.pair.modRevision {
            // The rest of a revision that comes in parts is asked for again if the connection breaks between them.
            state = .following(revision: max(revision, response.isFragment ? last - 1 : last))
        }
        return .events
    }

    private func page(_ cursor: PageCursor, _ revision: Int64) -> EtcdRange {
        cursor.range(limit: ClusterInstance.pageKeysMax, revision: revision)
    }

    private func watch(after revision: Int64) -> EtcdWatch {
        let range = keys.followed
        return EtcdWatch(key: range.key, end: range.end, fromRevision: revision + 1)
    }
}

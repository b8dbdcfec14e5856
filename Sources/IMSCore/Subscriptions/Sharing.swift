/// What the other instances of this IMS should know, beside mappings, when several share a store.
///
/// Every instance holds the remembered mappings of all. A subscription is held by the instance that serves it: the one that granted it last,
/// as long as it lives. The store knows all subscriptions of the cluster and tells the core which ones to serve.
struct Sharing: Sendable {
    private enum State: Sendable {
        /// No store that others share: nobody is told anything.
        case alone
        /// What has been learned since it was taken last.
        case together(news: [SharedNews])
    }

    private var state = State.alone

    var isShared: Bool {
        if case .together = state { return true }
        return false
    }

    /// From now on others want to know.
    mutating func begin() {
        if case .alone = state { state = .together(news: []) }
    }

    /// Something that others should know, if there are any.
    mutating func learned(_ item: SharedNews) {
        guard case .together(var news) = state else { return }
        state = .alone
        news.append(item)
        state = .together(news: news)
    }

    /// - Returns: what has been learned since the last call.
    mutating func takeNews() -> [SharedNews] {
        guard case .together(let news) = state, !news.isEmpty else { return [] }
        state = .together(news: [])
        return news
    }
}

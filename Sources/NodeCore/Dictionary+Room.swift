extension Dictionary where Key: Comparable {
    /// Makes room for an entry of this key in a table of at most so many: those of the lowest rank go, and among equals the lower keys (a
    /// dictionary's own order is another in every process). A sixteenth goes at once, so that a full table does not sort each time.
    mutating func makeRoom<Rank: Comparable>(for key: Key, max: Int, lowest rank: (Key, Value) -> Rank) {
        guard count >= max, self[key] == nil else { return }
        let ranks = map { (rank: rank($0.key, $0.value), key: $0.key) }.sorted { $0 < $1 }
        for victim in ranks.prefix(Swift.max(1, max / 16)) { self[victim.key] = nil }
    }
}

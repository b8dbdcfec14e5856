import MATSignal

/// Answers as long as they last, in bounded number.
struct ResolverCache {
    private struct Entry {
        var result: DNSResult
        var expires: MonotonicTime
        /// Validated on this host, and so true in any network.
        var isLocal: Bool
        /// Counts upwards with every use; the lowest goes first.
        var used: UInt64
    }

    let entriesMax: Int
    private var entries: [DNSQuestion: Entry] = [:]
    private var uses: UInt64 = 0

    init(entriesMax: Int) { self.entriesMax = max(8, entriesMax) }

    var count: Int { entries.count }

    mutating func find(_ question: DNSQuestion, now: MonotonicTime) -> DNSResult? {
        guard let entry = entries[question], entry.expires > now else { return nil }
        uses += 1
        entries[question]?.used = uses
        return entry.result
    }

    mutating func add(
        _ result: DNSResult, for question: DNSQuestion, until expires: MonotonicTime, isLocal: Bool, now: MonotonicTime
    ) {
        guard expires > now else { return }
        if entries.count >= entriesMax { makeRoom(now) }
        uses += 1
        entries[question] = Entry(result: result, expires: expires, isLocal: isLocal, used: uses)
    }

    mutating func removeUnvalidated() {
        entries = entries.filter { $0.value.isLocal }
    }

    /// Drops what has run out, and if that isn't enough the eighth that has not been used for longest: sorting once for many
    /// insertions, instead of searching at each.
    private mutating func makeRoom(_ now: MonotonicTime) {
        entries = entries.filter { $0.value.expires > now }
        guard entries.count > entriesMax - entriesMax / 8 else { return }
        let limit = entries.values.map(\.used).sorted()[entries.count / 8]
        entries = entries.filter { $0.value.used > limit }
    }
}

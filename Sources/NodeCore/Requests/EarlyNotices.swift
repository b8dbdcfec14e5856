import MATSignal

/// MA Notifies that came under our own cookie before anybody told us of their HoAs. If the very record turns out to be the peer's, it has shown
/// where it is: what it sends next need not wait for our check. One a source, the newest ones.
struct EarlyNotices: Sendable {
    private struct Notice: Sendable {
        let mapping: SignedMapping
        let source: Endpoint
        let came: MonotonicTime
    }

    static let countMax = 64
    static let ageMax: Duration = .seconds(3)

    private let countMax: Int
    private var notices: [Notice] = []

    init(countMax: Int) { self.countMax = countMax }

    var isEmpty: Bool { notices.isEmpty }
    var count: Int { notices.count }

    mutating func enter(_ mapping: SignedMapping, from source: Endpoint, now: MonotonicTime) {
        notices.removeAll { $0.source == source || now - $0.came > Self.ageMax }
        if notices.count >= countMax { notices.removeFirst() }
        notices.append(Notice(mapping: mapping, source: source, came: now))
    }

    /// Where this record came from of late.
    func sources(of mapping: SignedMapping, now: MonotonicTime) -> [Endpoint] {
        notices.filter { $0.mapping == mapping && now - $0.came <= Self.ageMax }.map(\.source)
    }
}

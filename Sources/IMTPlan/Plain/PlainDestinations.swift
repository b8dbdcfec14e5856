import MATSignal

/// Until when destinations are plain.
///
///                 setPlain, or adopted from an earlier run
///     (unknown) ───────────────────────────────────────────► plain until its deadline ──► expired: removePlain is committed
///         ▲                                                      │       ▲                    │
///         └────────────── removePlain, or evicted ◄──────────────┘       └── refused: a second more
///
/// The kernel's elements have no time-out of their own: one that lapsed just before it is replaced would make the kernel refuse the whole
/// transaction.
package struct PlainDestinations {
    /// How long destinations that an earlier run had found plain are believed.
    package static let adoptedLifetime: Duration = .seconds(60)
    /// How much longer an address stays plain whose removal was refused.
    package static let retryDelay: Duration = .seconds(1)

    private var deadlines: [IPAddress: MonotonicTime] = [:]

    package init() {}

    package mutating func adopt(_ addresses: Set<IPAddress>, now: MonotonicTime) {
        for address in addresses { deadlines[address] = now + Self.adoptedLifetime }
    }

    /// The changes are in the kernel.
    package mutating func committed(_ changes: [IMTChange], now: MonotonicTime) {
        for change in changes {
            switch change {
            case .setPlain(let address, let lifetime): deadlines[address] = now + lifetime
            case .removePlain(let address): deadlines[address] = nil
            default: break
            }
        }
    }

    /// When the next destination is no longer plain; `nil` if none ever lapses.
    package var nextDeadline: MonotonicTime? { deadlines.values.min().flatMap { $0 < .distantFuture ? $0 : nil } }

    /// The destinations whose time has come.
    package func expired(_ now: MonotonicTime) -> [IPAddress] { deadlines.filter { $0.value <= now }.keys.sorted() }

    /// They could not be removed. Not lost: they stay plain a little longer.
    package mutating func refused(_ addresses: [IPAddress], now: MonotonicTime) {
        for address in addresses { deadlines[address] = now + Self.retryDelay }
    }

    /// Destinations that go so that a set which is full refuses nothing: those whose time ends first. One that goes too early is questioned
    /// once more, which is all.
    ///
    /// - Parameter plain: all that are plain now.
    package func evictions(for changes: [IMTChange], plain: Set<IPAddress>) -> [IMTChange] {
        let added = changes.reduce(into: Set<IPAddress>()) { if case .setPlain(let address, _) = $1 { $0.insert(address) } }
        let most = Int(TranslationRuleset.plainSourcesMax)
        let excess = plain.count + added.count - most
        guard !added.isEmpty, excess > 0 else { return [] }
        // A sixteenth more at once, so that a full set does not sort at each addition.
        return plain.subtracting(added).sorted { (deadlines[$0] ?? .distantFuture, $0) < (deadlines[$1] ?? .distantFuture, $1) }
            .prefix(excess + most / 16).map { .removePlain($0) }
    }
}

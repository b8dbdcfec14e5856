import MATSignal

/// Until when own MoAs that went away are remembered.
///
///     in use ──(removeOwn)──► retired until its deadline ──► released; refused by the kernel: a minute more
///        ▲                        │
///        └──────(setOwn)──────────┘
package struct RetiredAddresses {
    /// For how long packets for an own MoA that went away are still a peer's when it is back: as long as a connection may idle before
    /// its keep-alive speaks (RFC 5382, REQ-5). Peers hear of a move within a second; one that can't be told sends there until it is.
    package static let lifetime: Duration = .seconds(7440)
    package static let retryDelay: Duration = .seconds(60)

    private var deadlines: [MobileAddress: MonotonicTime] = [:]

    package init() {}

    /// Gives those that went just now their time, and forgets those that are in use again.
    package mutating func update(_ retired: some Sequence<MobileAddress>, now: MonotonicTime) {
        let before = deadlines
        deadlines = [:]
        for moa in retired { deadlines[moa] = before[moa] ?? now + Self.lifetime }
    }

    package var nextDeadline: MonotonicTime? { deadlines.values.min() }

    package func expired(_ now: MonotonicTime) -> Set<MobileAddress> { Set(deadlines.filter { $0.value <= now }.keys) }

    package mutating func refused(_ moas: Set<MobileAddress>, now: MonotonicTime) {
        for moa in moas { deadlines[moa] = now + Self.retryDelay }
    }
}

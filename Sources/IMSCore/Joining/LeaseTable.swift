import HeapModule
import MATCore
import MATSignal

/// All HoAs that were given, found by HoA and by who holds them.
///
/// What stands here is durable, or on its way to the store as a `JoinQueue` has it. Others may have written since: the store refuses then, and
/// tells what there is.
///
/// ```
///   given to a visitor ──► visiting: counted ── its certificate has ended, and an hour, or given back ──► resting ── an hour ──► reusable
///                               ▲                                                                            │                    │
///                               └──────────────── given again: to its holder at any time, to others from here ◄────────────────────┘
/// ```
/// Visitors come and go: they get what others have left before what was never given, so that there are no more of their leases than visitors
/// were here within some hours.
public struct LeaseTable: Sendable {
    /// Who asks again is found by what he had the first time.
    struct Holder: Hashable, Sendable {
        let key: PublicKey
        let origin: Lease.Origin

        /// A visitor's home may get another key meanwhile.
        init(key: PublicKey, origin: Lease.Origin) {
            self.key = key
            if case .visitor(let home, _) = origin { self.origin = .visitor(home, issuer: 0) } else { self.origin = origin }
        }
    }

    /// A visitor's lease, and when something becomes of it (Unix, ms).
    private struct Timed: Comparable, Sendable {
        let time: UInt64
        let prefix: IPPrefix

        static func < (a: Timed, b: Timed) -> Bool { (a.time, a.prefix) < (b.time, b.prefix) }
    }

    /// Given at most, over all: as many as mappings by default.
    static let leasesMax = 1_000_000

    private var leases: [IPPrefix: Lease] = [:]
    private var held: [Holder: [IPPrefix]] = [:]
    /// Visitors' leases that count.
    private var visiting: Set<IPPrefix> = []
    private var visitorsByIssuer: [UInt64: Int] = [:]
    private var visitorsByFamily = FamilyPair<Int> { _ in 0 }
    /// When each of them ends, with others that have been replaced since.
    private var ends = Heap<Timed>()
    /// Those that have ended or were given back, and when, by family.
    private var left = FamilyPair<Heap<Timed>>(both: Heap())

    var count: Int { leases.count }
    var hasRoom: Bool { leases.count < Self.leasesMax }

    subscript(prefix: IPPrefix) -> Lease? { leases[prefix] }

    /// What this key got for this, in the order in which it was given.
    func held(by key: PublicKey, _ origin: Lease.Origin) -> [Lease] {
        (held[Holder(key: key, origin: origin)] ?? []).compactMap { leases[$0] }
    }

    /// Visitors whose homes that IMS key certified.
    func visitorsCount(certifiedBy issuer: UInt64) -> Int { visitorsByIssuer[issuer] ?? 0 }

    func visitorsCount(of family: AddressFamily) -> Int { visitorsByFamily[family] }

    /// Whether it is a visitor's, and counts.
    func isVisiting(_ prefix: IPPrefix) -> Bool { visiting.contains(prefix) }

    /// Up to `count` in the order of their HoAs, those after `after`.
    func page(after: IPPrefix?, count: Int, where isWanted: (Lease) -> Bool = { _ in true }) -> [Lease] {
        firstInOrder(leases, after: after, count: count, where: isWanted)
    }

    /// The store holds this now.
    mutating func set(_ lease: Lease) {
        if let before = leases[lease.prefix] {
            guard before.version <= lease.version else { return }
            forget(before)
        }
        leases[lease.prefix] = lease
        if !lease.isReturned { held[Holder(key: lease.key, origin: lease.origin), default: []].append(lease.prefix) }
        guard case .visitor(_, let issuer) = lease.origin else { return }
        let end = lease.endsAt ?? lease.givenAt
        guard !lease.isReturned else { return left[lease.prefix.family].insert(Timed(time: end, prefix: lease.prefix)) }
        visiting.insert(lease.prefix)
        visitorsByIssuer[issuer, default: 0] += 1
        visitorsByFamily[lease.prefix.family] += 1
        ends.insert(Timed(time: end, prefix: lease.prefix))
    }

    /// Visitors whose certificates have ended so long ago count no more, and others may have their addresses.
    ///
    /// - Parameter idle: after the certificate's end; nothing that its node sent since was accepted.
    mutating func expire(idle: UInt64, _ now: Now) {
        while let first = ends.min, first.time < now.wallMilliseconds, now.wallMilliseconds - first.time > idle {
            _ = ends.popMin()
            guard let lease = leases[first.prefix], visiting.contains(first.prefix), lease.endsAt ?? lease.givenAt == first.time else { continue }
            uncount(lease)
            left[first.prefix.family].insert(first)
        }
    }

    /// An address that a visitor has left so long ago, the first of all; it is offered once.
    mutating func takeLeft(of family: AddressFamily, idle: UInt64, _ now: Now) -> IPPrefix? {
        while let first = left[family].min, first.time < now.wallMilliseconds, now.wallMilliseconds - first.time > idle {
            _ = left[family].popMin()
            if let lease = leases[first.prefix], lease.isVisitors, !visiting.contains(first.prefix) { return first.prefix }
        }
        return nil
    }

    /// It was not given after all.
    mutating func putBack(_ prefix: IPPrefix) { left[prefix.family].insert(Timed(time: 0, prefix: prefix)) }

    private mutating func forget(_ lease: Lease) {
        guard !lease.isReturned else { return }
        let holder = Holder(key: lease.key, origin: lease.origin)
        held[holder]?.removeAll { $0 == lease.prefix }
        if held[holder]?.isEmpty == true { held[holder] = nil }
        uncount(lease)
    }

    private mutating func uncount(_ lease: Lease) {
        guard case .visitor(_, let issuer) = lease.origin, visiting.remove(lease.prefix) != nil else { return }
        visitorsByIssuer[issuer, default: 1] -= 1
        if visitorsByIssuer[issuer] == 0 { visitorsByIssuer[issuer] = nil }
        visitorsByFamily[lease.prefix.family] -= 1
    }
}

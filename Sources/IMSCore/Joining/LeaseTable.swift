import MATCore
import MATSignal

/// All HoAs that were given, found by HoA and by who holds them.
///
/// What stands here is durable, or on its way to the store as a `JoinQueue` has it. Others may have written since: the store refuses then, and
/// tells what there is.
public struct LeaseTable: Sendable {
    /// Who asks again is found by what he had the first time.
    struct Holder: Hashable, Sendable {
        let key: PublicKey
        let origin: Lease.Origin
    }

    /// Given at most, over all: as many as mappings by default.
    static let leasesMax = 1_000_000

    private var leases: [IPPrefix: Lease] = [:]
    private var held: [Holder: [IPPrefix]] = [:]
    private var visitors: [UInt64: Int] = [:]
    private(set) var visitorsCount = 0

    var count: Int { leases.count }
    var hasRoom: Bool { leases.count < Self.leasesMax }

    subscript(prefix: IPPrefix) -> Lease? { leases[prefix] }

    /// What this key got for this, in the order in which it was given.
    func held(by key: PublicKey, _ origin: Lease.Origin) -> [Lease] {
        (held[Holder(key: key, origin: origin)] ?? []).compactMap { leases[$0] }
    }

    /// Visitors whose homes that IMS key certified.
    func visitorsCount(certifiedBy issuer: UInt64) -> Int { visitors[issuer] ?? 0 }

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
        guard !lease.isReturned else { return }
        held[Holder(key: lease.key, origin: lease.origin), default: []].append(lease.prefix)
        if case .visitor(_, let issuer) = lease.origin {
            visitors[issuer, default: 0] += 1
            visitorsCount += 1
        }
    }

    private mutating func forget(_ lease: Lease) {
        guard !lease.isReturned else { return }
        let holder = Holder(key: lease.key, origin: lease.origin)
        held[holder]?.removeAll { $0 == lease.prefix }
        if held[holder]?.isEmpty == true { held[holder] = nil }
        if case .visitor(_, let issuer) = lease.origin {
            visitors[issuer, default: 1] -= 1
            if visitors[issuer] == 0 { visitors[issuer] = nil }
            visitorsCount -= 1
        }
    }
}

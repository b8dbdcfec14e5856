import MATSignal

/// A correspondent: its mapping, how far that is believed, and what the kernel has of it.
struct Peer: Sendable {
    let hoa: HomeAddress
    /// The record in force.
    var mapping: CertifiedMapping
    /// The newest version that the peer's IMS confirmed; a record above it is provisional.
    var confirmed: RecordVersion?
    /// What was in force before a provisional record, to go back to.
    var earlier: CertifiedMapping?
    /// Since when the IMS answers with an older record than the provisional one.
    var contradictedSince: MonotonicTime?
    var locators: [MobileAddress: LocatorState] = [:]
    /// Our own address that this peer's traffic leaves from; `nil` until there is one.
    var ownMoA: MobileAddress?
    var installedOutbound: MobilePair?
    var installedInbound: Set<MobileAddress> = []
    /// Locators entered as this peer's in the table of owners.
    var claimed: Set<MobileAddress> = []
    /// When an answer of its IMS last came.
    var refreshed: MonotonicTime
    var subscribedUntil: MonotonicTime?
    var lastTraffic: MonotonicTime
    var packets: UInt64 = 0
    let since: MonotonicTime
    /// Moves of either side that this peer's traffic followed.
    var switches = 0
    /// Whether the peer, or its IMS for it, has acked our newest record.
    var knowsUs = false
    /// HA Notifies without success since then: the next one comes the later the more there were.
    var notifyFailures = 0

    /// Where its record says that it is; behind a mobile router, its own address in each MoPre.
    var listed: [MobileAddress] { mapping.record.moas(of: hoa) }
    /// Likewise with what was in force before a provisional record.
    var listedAtAll: Set<MobileAddress> { Set(listed + (earlier?.record.moas(of: hoa) ?? [])) }

    var isProvisional: Bool { confirmed.map { mapping.version > $0 } ?? true }

    init(_ mapping: CertifiedMapping, hoa: HomeAddress, now: MonotonicTime) {
        self.hoa = hoa
        self.mapping = mapping
        refreshed = now
        lastTraffic = now
        since = now
    }
}

/// How far a peer's locator is believed to be the peer's (section 6, "Locator check").
enum LocatorState: Hashable, Sendable {
    /// In use while the check runs.
    case checking(until: MonotonicTime)
    case proven(at: MonotonicTime)
    /// The check failed; not to be used again unchecked before then. It goes on being checked, at growing intervals: the path
    /// may have been at fault and not the peer.
    case blocked(until: MonotonicTime, checks: Int)

    static let unprovenUseMax: Duration = .seconds(3)
    static let blockedTime: Duration = .seconds(300)
    static let recheckMax: Duration = .seconds(30)

    var isBlocked: Bool {
        if case .blocked = self { return true }
        return false
    }

    var isProven: Bool {
        if case .proven = self { return true }
        return false
    }
}

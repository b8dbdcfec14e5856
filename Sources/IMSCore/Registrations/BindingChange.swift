import MATCore
import MATSignal

/// Something happened to the mapping of an HoA, for the log and the counters.
public struct BindingChange: Hashable, Sendable {
    public enum Reason: String, Sendable, Hashable, CaseIterable {
        /// The first mapping of this HoA, or one after a withdrawal, an end or a revocation.
        case registered
        /// Other locators than before, or in another order.
        case moved
        /// The same locators again, in time.
        case refreshed
        /// The node took it back itself.
        case withdrawn
        /// Nobody renewed it in time.
        case expired
        /// The operator took it back.
        case revoked
        /// Another IMS's node, learned from its HA Notify.
        case remembered
        /// A locator went to another HoA, which proved it later.
        case displaced
    }

    public var hoa: IPPrefix
    public var reason: Reason
    public var before: [Whereabouts]
    public var after: [Whereabouts]
    /// Where the message came from that brought it; `nil` if none did.
    public var source: Endpoint?
    public var sequence: UInt64
    /// The HoA that has the locator now, if it was displaced.
    public var by: IPPrefix?

    /// How much its log line matters: what happens twice in a lifetime of every mapping is for those who look for it.
    public var level: IMSLogLevel { reason == .refreshed ? .debug : .info }
}

/// One that people who look at the server are shown.
public struct RecentChange: Hashable, Sendable {
    public var change: BindingChange
    /// Unix time.
    public var atMilliseconds: UInt64
}

/// Where a record says that its node is.
public enum Whereabouts: Hashable, Sendable, CustomStringConvertible {
    /// A MoA or a MoPre.
    case network(IPPrefix)
    case endpoint(Endpoint)
    case relay(Endpoint)

    public var description: String {
        switch self {
        case .network(let prefix): prefix.shortText
        case .endpoint(let endpoint): "\(endpoint)"
        case .relay(let endpoint): "relay \(endpoint)"
        }
    }
}

extension MappingRecord {
    /// In order, without preferences. What later versions may list besides is left out.
    package var whereabouts: [Whereabouts] {
        places.compactMap { place in
            switch place {
            case .moa(let locator): .network(locator.prefix)
            case .endpoint(let endpoint, _): .endpoint(endpoint)
            case .relay(let relay, _): .relay(relay)
            case .unknown: nil
            }
        }
    }

    /// Whether its node sends from there: from a MoA of it, from whatever port, or from an endpoint (sections 7 and 11.1).
    func listsSource(_ source: Endpoint) -> Bool { lists(MobileAddress(source.address)) || endpoints.contains(source) }
}

/// How many changes of mappings may be logged, and how many were not. Refreshes have a share of their own, so that they can't hide moves.
struct BindingLogs: Sendable {
    private var shares: [IMSLogLevel: LimitedLog]

    init(perSecond: Int) { shares = [.info: LimitedLog(perSecond: perSecond), .debug: LimitedLog(perSecond: perSecond)] }

    mutating func reconfigure(perSecond: Int) {
        for level in shares.keys { shares[level]?.reconfigure(perSecond: perSecond) }
    }

    mutating func changed(_ level: IMSLogLevel, _ now: MonotonicTime) -> LimitedLog.OnLine {
        shares[level]?.line(now) ?? .write(suppressedBefore: 0)
    }
}

import MATSignal

/// Whom this server gives home addresses though they are at home elsewhere (protocol.md section 12, "Visitors").
public struct VisitorPolicy: Hashable, Sendable {
    /// What visitors get home addresses of, each within a served prefix; best apart from what tokens give.
    public var pools: [IPPrefix]
    /// The networks that they are in: who asks from elsewhere does not visit. Of a translated one, what it is translated to.
    public var sources: [IPPrefix]
    /// Home addresses whose nodes are taken in; empty: all that verify.
    public var homes: [IPPrefix] = []
    /// Of what is given, at most; a node that stays asks again.
    public var lifetime: Duration = Self.lifetimeMax
    /// Home addresses that all visitors have of one family at a time; `nil`: half of its pools.
    public var leasesMax: Int?
    /// Likewise, those whose homes one IMS key has certified.
    public var leasesPerHomeMax = Self.leasesPerHomeDefault
    /// Homes' keys asked of the DNS in a second.
    public var lookUpsPerSecond = Self.lookUpsDefault

    public static let lifetimeMax: Duration = .seconds(86_400)
    public static let leasesPerHomeDefault = 64
    public static let lookUpsDefault = 100
    /// Of pools, and of prefixes in each list.
    public static let prefixesMax = 64

    public init(pools: [IPPrefix], sources: [IPPrefix]) {
        self.pools = pools
        self.sources = sources
    }

    /// Leases of a family that there may be at a time.
    func leasesMax(_ family: AddressFamily) -> Int {
        let addresses = pools.filter { $0.family == family }.reduce(0) { sum, pool in
            let bits = 128 - Int(pool.length)
            return sum + (bits > Self.countedBitsMax ? LeaseTable.leasesMax : 1 << bits)
        }
        return min(max(1, addresses / 2), leasesMax ?? .max, LeaseTable.leasesMax)
    }

    /// A pool of more bits than these has room for more than the table.
    private static let countedBitsMax = 24

    /// Why a Join from there, of a node that is at home at this HoA, is no visitor's; `nil` if it may be.
    ///
    /// - Parameter source: `nil` of a visitor that has an address already: it keeps that when it moves on.
    func refusal(of home: HomeAddress, from source: IPAddress?) -> String? {
        if let source, !sources.contains(where: { $0.contains(source) }) {
            return "visitors are taken in who are in \(Self.list(sources)), and this comes from \(source)"
        }
        guard homes.isEmpty || homes.contains(where: { $0.contains(home.address) }) else {
            return "visitors are taken in who are at home in \(Self.list(homes)), not at \(home)"
        }
        return nil
    }

    private static func list(_ prefixes: [IPPrefix]) -> String {
        prefixes.prefix(4).map(\.shortText).joined(separator: ", ") + (prefixes.count > 4 ? " and others" : "")
    }
}

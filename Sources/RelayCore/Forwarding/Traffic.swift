import MATCore
import MATSignal

/// What each bound HoA may have forwarded, and has (protocol.md section 11.5).
///
/// ```
///   packet ─► month's quota of both ─► rate of the source ─► rate of the destination ─► rate of all visitors ─► rate of the relay ─► forwarded
///                                                                                         if one end is one
/// ```
/// What a packet has taken before it is dropped stays taken: who sends too much for one rate has less of the others.
///
/// Accounts stand beside the bindings, by their slots. What an HoA has used of its month outlives its binding, since a node could bind anew to
/// get another.
struct Traffic: Sendable {
    private struct Account: Sendable {
        var sourceFullAt: Int64 = 0
        var destinationFullAt: Int64 = 0
        var octetsOfMonth: UInt64 = 0
        var isResident = false
        var refusesVisitors = false
    }

    private var accounts: ContiguousArray<Account> = []
    private var visitorsFullAt: Int64 = 0
    private var relayFullAt: Int64 = 0
    private var rate: OctetRate
    private var visitorsRate: OctetRate
    private var relayRate: OctetRate
    private var quota: UInt64?
    /// Of HoAs that are not bound at the moment.
    private var away: BoundedTable<IPPrefix, UInt64>
    private let awayMax: Int
    /// `2026-11`
    private(set) var month = ""

    /// How much of a second may pass at once where many share a rate.
    private static let jointBurstPart = 10

    init(_ limits: RelayLimits) {
        rate = OctetRate(octetsPerSecond: limits.octetsPerSecond, burstOctets: limits.burstOctets)
        let visitors = limits.visitorsOctetsPerSecond ?? limits.relayOctetsPerSecond / 2
        visitorsRate = OctetRate(octetsPerSecond: visitors, burstOctets: max(limits.burstOctets, visitors / Self.jointBurstPart))
        relayRate = OctetRate(
            octetsPerSecond: limits.relayOctetsPerSecond,
            burstOctets: max(limits.burstOctets, limits.relayOctetsPerSecond / Self.jointBurstPart))
        quota = limits.octetsPerMonth
        awayMax = limits.bindingsMax
        away = BoundedTable(max: awayMax)
    }

    /// Other bounds from now on. What was used stays used.
    mutating func reconfigure(_ limits: RelayLimits) {
        let fresh = Traffic(limits)
        (rate, visitorsRate, relayRate, quota) = (fresh.rate, fresh.visitorsRate, fresh.relayRate, fresh.quota)
    }

    // MARK: Accounts

    /// A binding stands in this slot from now on.
    ///
    /// - Parameter isNew: whether another may have stood there before.
    mutating func bound(_ prefix: IPPrefix, in slot: Int, isNew: Bool, resident: ResidentPrefix?) {
        while accounts.count <= slot { accounts.append(Account()) }
        if isNew {
            accounts[slot] = Account()
            accounts[slot].octetsOfMonth = away[prefix] ?? 0
            away[prefix] = nil
        }
        accounts[slot].isResident = resident != nil
        accounts[slot].refusesVisitors = resident?.refusesVisitors ?? false
    }

    mutating func ended(_ prefix: IPPrefix, in slot: Int) {
        guard accounts.indices.contains(slot) else { return }
        if quota != nil, accounts[slot].octetsOfMonth > 0 { away[prefix] = accounts[slot].octetsOfMonth }
        accounts[slot] = Account()
    }

    /// Of HoAs that are not bound at the moment.
    var octetsAway: [(prefix: IPPrefix, octets: UInt64)] { away.all.map { ($0.key, $0.value) } }

    func octetsOfMonth(in slot: Int) -> UInt64 { accounts.indices.contains(slot) ? accounts[slot].octetsOfMonth : 0 }

    /// What an earlier run counted in this month.
    mutating func restore(_ octets: UInt64, of prefix: IPPrefix) { away[prefix] = octets }

    /// - Parameter month: the calendar month of now. With a new one all begin anew.
    mutating func monthIs(_ month: String) {
        guard month != self.month else { return }
        if !self.month.isEmpty {
            for slot in accounts.indices { accounts[slot].octetsOfMonth = 0 }
            away = BoundedTable(max: awayMax)
        }
        self.month = month
    }

    // MARK: Packets

    /// A packet of one binding for another.
    ///
    /// - Parameters: slots that `bound` has been told of.
    /// - Returns: why it may not pass; `nil` if it may.
    mutating func pass(_ octets: Int, from source: Int, to destination: Int, at now: MonotonicTime) -> DropReason? {
        guard accounts.indices.contains(source), accounts.indices.contains(destination) else { return .noResident }
        let (from, to) = (accounts[source], accounts[destination])
        let areResidents = from.isResident && to.isResident
        if !areResidents {
            guard from.isResident || to.isResident else { return .noResident }
            if from.refusesVisitors || to.refusesVisitors { return .visitorRefused }
        }
        if let quota, max(from.octetsOfMonth, to.octetsOfMonth) >= quota { return .quota }
        let time = now.nanoseconds
        guard rate.take(octets, from: &accounts[source].sourceFullAt, at: time) else { return .sourceRate }
        guard rate.take(octets, from: &accounts[destination].destinationFullAt, at: time) else { return .destinationRate }
        guard areResidents || visitorsRate.take(octets, from: &visitorsFullAt, at: time) else { return .visitorsRate }
        guard relayRate.take(octets, from: &relayFullAt, at: time) else { return .relayRate }
        accounts[source].octetsOfMonth &+= UInt64(octets)
        accounts[destination].octetsOfMonth &+= UInt64(octets)
        return nil
    }
}

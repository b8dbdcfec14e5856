import MATCore
import MATSignal

/// What each bound HoA may have forwarded, and has (protocol.md section 11.5).
///
/// ```
///   packet ─► residents? ─► month's quota of both ─► rate of the source ─► the rates that it shares with others ─► forwarded, and counted
///                                                                           destination, all visitors, the relay
/// ```
/// What a packet has taken before it is dropped stays taken: who sends too much for one rate has less of the others. What of the shared rates
/// comes when, `FairQueues` says.
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
        let visitors = limits.visitorsRate
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
    /// - Returns: whether it is a new one.
    mutating func monthIs(_ month: String) -> Bool {
        guard month != self.month else { return false }
        if !self.month.isEmpty {
            for slot in accounts.indices { accounts[slot].octetsOfMonth = 0 }
            away = BoundedTable(max: awayMax)
        }
        self.month = month
        return true
    }

    // MARK: Packets

    enum OnPacket: Hashable, Sendable {
        case drop(DropReason)
        /// As far as its source is concerned it may pass; shared rates come next.
        case admit(hasVisitor: Bool)
    }

    /// A packet of one binding for another.
    ///
    /// - Parameters: slots that `bound` has been told of.
    mutating func admit(_ octets: Int, from source: Int, to destination: Int, at now: MonotonicTime) -> OnPacket {
        guard accounts.indices.contains(source), accounts.indices.contains(destination) else { return .drop(.noResident) }
        let (from, to) = (accounts[source], accounts[destination])
        let areResidents = from.isResident && to.isResident
        if !areResidents {
            guard from.isResident || to.isResident else { return .drop(.noResident) }
            if from.refusesVisitors || to.refusesVisitors { return .drop(.visitorRefused) }
        }
        if let quota, max(from.octetsOfMonth, to.octetsOfMonth) >= quota { return .drop(.quota) }
        guard rate.take(octets, from: &accounts[source].sourceFullAt, at: now.nanoseconds) else { return .drop(.sourceRate) }
        return .admit(hasVisitor: !areResidents)
    }

    /// Whether one of the two is a visitor, for packets that were admitted before.
    func hasVisitor(_ source: Int, _ destination: Int) -> Bool {
        guard accounts.indices.contains(source), accounts.indices.contains(destination) else { return true }
        return !(accounts[source].isResident && accounts[destination].isResident)
    }

    /// Takes octets of a shared rate if there are as many.
    mutating func take(_ octets: Int, of shared: SharedRate, at now: MonotonicTime) -> Bool {
        let time = now.nanoseconds
        switch shared {
        case .destination(let slot):
            guard accounts.indices.contains(Int(slot)) else { return true }
            return rate.take(octets, from: &accounts[Int(slot)].destinationFullAt, at: time)
        case .visitors: return visitorsRate.take(octets, from: &visitorsFullAt, at: time)
        case .relay: return relayRate.take(octets, from: &relayFullAt, at: time)
        }
    }

    /// Whether the HoA has used its month.
    func isExhausted(_ slot: Int) -> Bool {
        guard let quota, accounts.indices.contains(slot) else { return false }
        return accounts[slot].octetsOfMonth >= quota
    }

    /// Octets that were forwarded elsewhere.
    mutating func count(_ octets: UInt64, in slot: Int) {
        if accounts.indices.contains(slot) { accounts[slot].octetsOfMonth &+= octets }
    }

    /// Octets that were forwarded elsewhere, of a HoA that is not bound at the moment.
    mutating func count(_ octets: UInt64, away prefix: IPPrefix) {
        if quota != nil, octets > 0 { away[prefix] = (away[prefix] ?? 0) &+ octets }
    }

    var kernelRates: KernelRates { KernelRates(home: rate.ofKernel, visitors: visitorsRate.ofKernel, relay: relayRate.ofKernel) }

    /// For rates that another uses as well: what was not used here is no more than this part of a second.
    mutating func shortenBursts() {
        for rate in [\Traffic.rate, \.visitorsRate, \.relayRate] { self[keyPath: rate] = self[keyPath: rate].shortened(to: Self.sharedBurst) }
    }

    private static let sharedBurst = Duration.milliseconds(50)

    /// The link takes nothing more before then.
    mutating func stall(until time: MonotonicTime) { relayRate.close(&relayFullAt, until: time.nanoseconds) }

    /// A packet was forwarded.
    mutating func count(_ octets: Int, from source: Int, to destination: Int) {
        guard accounts.indices.contains(source), accounts.indices.contains(destination) else { return }
        accounts[source].octetsOfMonth &+= UInt64(octets)
        accounts[destination].octetsOfMonth &+= UInt64(octets)
    }

    /// Whether a packet of one binding for a plain host may pass, as far as the binding itself is concerned; the relay's rate comes next.
    mutating func admitOut(_ octets: Int, from source: Int, at now: MonotonicTime) -> DropReason? {
        guard accounts.indices.contains(source), accounts[source].isResident else { return .noResident }
        if isExhausted(source) { return .quota }
        return rate.take(octets, from: &accounts[source].sourceFullAt, at: now.nanoseconds) ? nil : .sourceRate
    }

    /// Likewise one of a plain host for a binding; the destination's rate comes next.
    func admitIn(to destination: Int) -> DropReason? {
        guard accounts.indices.contains(destination), accounts[destination].isResident else { return .noResident }
        return isExhausted(destination) ? .quota : nil
    }
}

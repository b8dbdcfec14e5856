import MATCore
import MATSignal
import MappingMemory

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
    public var before: [IPPrefix]
    public var after: [IPPrefix]
    /// Where the message came from that brought it; `nil` if none did.
    public var source: Endpoint?
    public var sequence: UInt64
    /// The HoA that has the locator now, if it was displaced.
    public var by: IPPrefix?

    /// How much its log line matters: what happens twice in a lifetime of every mapping is for those who look for it.
    public var level: IMSLogLevel { reason == .refreshed ? .debug : .info }
}

/// How many changes may be logged, and how many were not.
struct BindingLogs: Sendable {
    private struct Share: Sendable {
        var rate: RateLimit
        var suppressed: UInt64 = 0
    }

    private var shares: [IMSLogLevel: Share]

    init(perSecond rate: Int) {
        shares = [.info: Share(rate: RateLimit(perSecond: rate)), .debug: Share(rate: RateLimit(perSecond: rate))]
    }

    mutating func take(_ level: IMSLogLevel, _ now: MonotonicTime) -> Bool {
        guard var share = shares[level] else { return true }
        let isTaken = share.rate.take(at: now)
        if !isTaken { share.suppressed += 1 }
        shares[level] = share
        return isTaken
    }

    /// How many were suppressed since this was asked last; `nil` for none.
    mutating func takeSuppressed(_ level: IMSLogLevel) -> UInt64? {
        guard let count = shares[level]?.suppressed, count > 0 else { return nil }
        shares[level]?.suppressed = 0
        return count
    }
}

extension IMSCore {
    /// A mapping is held from now on: says what that changes. Before the table is changed.
    mutating func noteChange(to mapping: StoredMapping, _ now: Now) {
        let record = mapping.record
        let held = mappings[record.prefix]
        let before = held.flatMap { $0.isCurrent(now) ? $0.record.locators.map(\.prefix) : nil } ?? []
        let after = record.locators.map(\.prefix)
        let reason: BindingChange.Reason
        switch (mapping.isRevocation, record.isWithdrawal) {
        case (true, _): reason = .revoked
        case (false, true): reason = .withdrawn
        case (false, false): reason = before.isEmpty ? .registered : before == after ? .refreshed : .moved
        }
        note(
            BindingChange(
                hoa: record.prefix, reason: reason, before: before, after: after, source: mapping.isRevocation ? nil : mapping.source,
                sequence: record.sequence),
            now)
        guard reason != .refreshed else { return }
        for locator in record.locators where !before.contains(locator.prefix) {
            guard let other = mappings.entry(holding: locator.moa, now: now), other.record.prefix != record.prefix,
                other.provenAt <= mapping.provenAt
            else { continue }
            note(
                BindingChange(
                    hoa: other.record.prefix, reason: .displaced, before: [locator.prefix], after: [], source: mapping.source,
                    sequence: other.record.sequence, by: record.prefix),
                now)
        }
    }

    /// A mapping of another IMS's node is remembered from now on. Before the table is changed.
    mutating func noteRemembered(_ certified: CertifiedMapping, from source: Endpoint?, _ now: Now) {
        let record = certified.record
        let before = remembered[record.prefix]?.certified.record.locators.map(\.prefix) ?? []
        let after = record.locators.map(\.prefix)
        guard before != after else { return }
        note(
            BindingChange(hoa: record.prefix, reason: .remembered, before: before, after: after, source: source, sequence: record.sequence),
            now)
    }

    /// Counts it, and has it logged unless there are too many; refreshes have a share of their own, so that they can't hide moves.
    mutating func note(_ change: BindingChange, _ now: Now) {
        counters.bindingChanges[change.reason, default: 0] += 1
        guard bindingLogs.take(change.level, now.monotonic) else {
            counters.logLinesSuppressed += 1
            return
        }
        if let suppressed = bindingLogs.takeSuppressed(change.level) {
            log(change.level, "\(suppressed) more changes of mappings were not logged, because there were too many")
        }
        actions.append(.bindingChanged(change))
    }
}

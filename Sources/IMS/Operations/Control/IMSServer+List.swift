import IMSCore
import MATControl
import MATRuntime
import MATSignal
import MappingMemory

// Lists of mappings, a page at a time.

extension IMSServer {
    /// Mappings in one answer to `list`.
    static let listEntriesMax = 1000

    /// What `list` can be told to show.
    private enum Filter: String, CaseIterable {
        case all, registered, expired, withdrawn, revoked, unseen

        func admits(_ mapping: StoredMapping, _ now: Now) -> Bool {
            switch self {
            case .all: true
            case .registered: !mapping.record.isWithdrawal && mapping.isCurrent(now)
            case .expired: !mapping.record.isWithdrawal && !mapping.isCurrent(now)
            case .withdrawn: mapping.record.isWithdrawal && !mapping.isRevocation
            case .revoked: mapping.isRevocation
            case .unseen: false
            }
        }

        /// Whether HoAs are shown that are enrolled and never registered.
        var admitsUnseen: Bool { self == .all || self == .unseen }
    }

    /// In the order of HoAs, those after `after`.
    func list(_ request: ListRequest) throws(ControlError) -> MappingListReport {
        let count = request.count ?? 100
        guard count > 0, count <= Self.listEntriesMax else { throw ControlError("\"count\" must be from 1 to \(Self.listEntriesMax)") }
        let after = try Self.prefix(request.after, "after")
        let within = try Self.prefix(request.prefix, "prefix")
        guard let filter = Filter(rawValue: request.state ?? Filter.all.rawValue) else {
            throw ControlError("\"state\" must be one of \(Filter.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let now = SystemClock.now()
        // One more than is shown tells whether there is a next page.
        let most = count + 1
        let mappings = core.mappingsPage(after: after, count: filter == .unseen ? 0 : most) { mapping in
            within.map { $0.contains(mapping.record.prefix) } ?? true && filter.admits(mapping, now)
        }
        let unseen = core.issued.unseenPage(after: after, count: filter.admitsUnseen ? most : 0) { hoa in within.map { $0.contains(hoa) } ?? true }
        let page =
            mappings.map { (prefix: $0.record.prefix, report: MappingReport($0.certified, now, of: $0)) }
            + unseen.map { (prefix: $0.prefix, report: MappingReport(unseen: $0, now)) }
        let shown = page.sorted { $0.prefix < $1.prefix }.prefix(count)
        return MappingListReport(
            total: core.mappingsCount, unseen: core.issued.unseenCount, mappings: shown.map(\.report),
            next: page.count > shown.count ? shown.last.map { "\($0.prefix)" } : nil)
    }

    /// A prefix, or an address for itself alone; `nil` if it is not given.
    static func prefix(_ text: String?, _ key: String) throws(ControlError) -> IPPrefix? {
        guard let text else { return nil }
        guard let prefix = IPPrefix(text) else { throw ControlError("\"\(key)\" must be a prefix or an address, such as 192.0.2.0/24") }
        return prefix
    }
}

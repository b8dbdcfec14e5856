import IMSCore
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

    /// `{after?, count?, prefix?, state?}` -> `{total, unseen, mappings, next?}`: in the order of HoAs, those after `after`; `next` is what to give
    /// as `after` for the next page. `total` counts all mappings that are held, `unseen` the HoAs that are enrolled and never registered,
    /// whatever is shown.
    func list(_ arguments: [String: JSONValue]) throws(ControlError) -> JSONValue {
        let count = arguments["count"]?.int ?? 100
        guard count > 0, count <= Self.listEntriesMax else { throw ControlError("\"count\" must be from 1 to \(Self.listEntriesMax)") }
        let after = try Self.prefix(arguments, "after")
        let within = try Self.prefix(arguments, "prefix")
        let word = arguments["state"]?.string ?? Filter.all.rawValue
        guard let filter = Filter(rawValue: word) else {
            throw ControlError("\"state\" must be one of \(Filter.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let now = SystemClock.now()
        // One more than is shown tells whether there is a next page.
        let most = Int(clamping: count) + 1
        let mappings = core.mappingsPage(after: after, count: filter == .unseen ? 0 : most) { mapping in
            within.map { $0.contains(mapping.record.prefix) } ?? true && filter.admits(mapping, now)
        }
        let unseen = core.issued.unseenPage(after: after, count: filter.admitsUnseen ? most : 0) { hoa in within.map { $0.contains(hoa) } ?? true }
        let page =
            mappings.map { (prefix: $0.record.prefix, text: Self.describe($0.certified, now, of: $0)) }
            + unseen.map { (prefix: $0.prefix, text: Self.describe(unseen: $0, now)) }
        let shown = page.sorted { $0.prefix < $1.prefix }.prefix(Int(clamping: count))
        var result: [String: JSONValue] = [
            "total": .number(core.mappingsCount), "unseen": .number(core.issued.unseenCount), "mappings": .array(shown.map(\.text)),
        ]
        if page.count > shown.count, let last = shown.last { result["next"] = .text(last.prefix) }
        return .object(result)
    }

    /// A prefix, or an address for itself alone; `nil` if it is not given.
    static func prefix(_ arguments: [String: JSONValue], _ key: String) throws(ControlError) -> IPPrefix? {
        switch arguments[key] {
        case nil, .null?: return nil
        case .string(let text)?:
            if let prefix = IPPrefix(text) { return prefix }
            fallthrough
        default: throw ControlError("\"\(key)\" must be a prefix or an address, such as 192.0.2.0/24")
        }
    }
}

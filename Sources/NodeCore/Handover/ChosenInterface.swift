import MATCore
import MATSignal

/// The interface that a person chose with `mat handover`, and what that means for a home address whose family its network does not have.
///
/// ```
///   chosen, works, has addresses ──► has one of the family ──────────────────────────────► they go first, the others stay beside them
///                                └─► has none of the family for a while, and another has ──► what it has goes first, and the others behind it
///                                                                                             until peers have followed; then they are left
/// ```
/// Whoever chooses an interface is about to leave the others. A HoA that stayed there because of its family would lose what is on its way when they go.
struct ChosenInterface: Sendable {
    /// On a new link one family's address comes a moment before the other's: an IPv6 router answers at once, DHCP after a second or so.
    static let settleTime: Duration = .seconds(2)
    /// Peers hear of the other family's address, and find out whether they reach it; a few round trips.
    static let followTime: Duration = .seconds(1)

    let name: String?
    /// Since when it has been without an address of a family, though it works.
    private var lacking = FamilyPair<MonotonicTime?>(both: nil)
    private var crossings = FamilyPair<Crossing>(both: .none)

    /// Whether a HoA of a family is reached by the other family's addresses of the interface.
    enum Crossing: Sendable {
        case none
        /// First by these, and still by those of its family.
        case first
        /// By these alone.
        case alone
    }

    init(_ name: String? = nil) { self.name = name }

    func crossing(_ family: AddressFamily) -> Crossing { crossings[family] }

    /// When `look` is to be called next.
    var due: MonotonicTime? {
        AddressFamily.allCases.reduce(nil) { earliest, family in
            guard let since = lacking[family] else { return earliest }
            switch crossings[family] {
            case .none: return earliest.earlier(since + Self.settleTime)
            case .first: return earliest.earlier(since + Self.settleTime + Self.followTime)
            case .alone: return earliest
            }
        }
    }

    /// - Parameter ordered: all usable addresses, the best first.
    mutating func look(at ordered: [OwnLocator], _ now: MonotonicTime) {
        // Others go before an interface over which nothing answers.
        let isUsed = name != nil && ordered.first?.interface == name
        for family in AddressFamily.allCases {
            let ofFamily = ordered.filter { $0.moa.family == family }
            let lacks = isUsed && !ofFamily.isEmpty && !ofFamily.contains { $0.interface == name }
            lacking[family] = lacks ? lacking[family] ?? now : nil
            let lasted = lacking[family].map { now - $0 } ?? .zero
            crossings[family] = lasted < Self.settleTime ? .none : lasted < Self.settleTime + Self.followTime ? .first : .alone
        }
    }
}

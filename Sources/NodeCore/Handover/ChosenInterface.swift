import MATCore
import MATSignal

/// The interface that a person chose with `mat handover`, and what that means for a home address whose family its network does not have.
///
/// ```
///   chosen, works, has addresses ──► has one of the family, or is a mobile network's ──────────► they go first, the others stay beside them
///                                └─► has none of the family for a while ───────────────────────► the HoA is reached by what it has, and by that alone
/// ```
/// Whoever chooses an interface is about to leave the others. A HoA that stayed there because of its family would lose what is on its way when they go.
struct ChosenInterface: Sendable {
    /// On a new link one family's address comes a moment before the other's: an IPv6 router answers at once, DHCP after a second or so.
    static let settleTime: Duration = .seconds(2)

    let name: String?
    /// Since when it has been without an address of a family, though it works.
    private var lacking = FamilyPair<MonotonicTime?>(both: nil)
    private var isCrossing = FamilyPair<Bool>(both: false)

    init(_ name: String? = nil) { self.name = name }

    /// Whether a HoA of this family is reached by the other family's addresses of the interface.
    func carriesAcross(_ family: AddressFamily) -> Bool { isCrossing[family] }

    /// When `look` is to be called next.
    var due: MonotonicTime? {
        AddressFamily.allCases.reduce(nil) { earliest, family in
            isCrossing[family] ? earliest : earliest.earlier(lacking[family].map { $0 + Self.settleTime })
        }
    }

    /// - Parameter ordered: all usable addresses, the best first.
    mutating func look(at ordered: [OwnLocator], _ now: MonotonicTime) {
        // Others go before an interface over which nothing answers.
        let isUsed = name != nil && ordered.first?.interface == name
        for family in AddressFamily.allCases {
            let lacks = isUsed && !ordered.contains { $0.interface == name && $0.moa.family == family }
            lacking[family] = lacks ? lacking[family] ?? now : nil
            isCrossing[family] = lacking[family].map { $0 + Self.settleTime <= now } ?? false
        }
    }
}

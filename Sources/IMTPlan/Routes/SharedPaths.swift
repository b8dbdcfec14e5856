import MATSignal

/// The own MoA of each family whose default route most peers share; see `RoutePlan`.
package struct SharedPaths {
    /// How much larger another own MoA's share must be before it becomes the shared path: those left behind get routes of their own.
    private static let majority = 8

    private var moas: [AddressFamily: MobileAddress] = [:]

    package init() {}

    package subscript(family: AddressFamily) -> MobileAddress? { moas[family] }
    package var all: [MobileAddress] { moas.values.sorted() }

    /// Makes the own MoA that most peers leave from the shared path, unless the present one is still used by many.
    ///
    /// - Parameter counts: how many peers leave from each own MoA.
    /// - Returns: whether a family got another one.
    package mutating func choose(_ counts: [MobileAddress: Int]) -> Bool {
        var isOther = false
        for family in AddressFamily.allCases {
            // Of equal ones the same each time.
            guard let best = counts.filter({ $0.key.family == family }).max(by: { ($0.value, $1.key) < ($1.value, $0.key) }) else { continue }
            if let present = moas[family] {
                if present == best.key || (counts[present] ?? 0) * Self.majority > best.value { continue }
            }
            moas[family] = best.key
            isOther = true
        }
        return isOther
    }
}

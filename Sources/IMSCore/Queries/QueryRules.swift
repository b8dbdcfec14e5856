import MATSignal

/// What answering queries depends on beside the table: the core says it, and each change reaches the workers at once.
package struct QueryRules: Equatable, Sendable {
    package var cookies: CookieAuthority
    /// The HoA prefixes served here, in any order.
    package var served: [ServedPrefix]
    /// While the store is being read, what is not found may yet come.
    package var isLoading: Bool
    /// Whether mappings of other IMSs' nodes are remembered, which the core alone looks up.
    package var hasRemembered: Bool
    package var limits: IMSLimits
}

extension IMSCore {
    /// What the workers need to know at present.
    package var queryRules: QueryRules {
        QueryRules(
            cookies: cookies, served: configuration.served, isLoading: store.isLoading, hasRemembered: remembered.count > 0,
            limits: configuration.limits)
    }
}

import MATSignal

/// What answering queries depends on beside the table: the core says it, and each change reaches the workers at once.
package struct QueryRules: Equatable, Sendable {
    package var cookies: CookieAuthority
    /// What responses to this server's own requests have.
    package var clientCookies: ClientCookies
    /// The HoA prefixes served here, in any order.
    package var served: [ServedPrefix]
    /// Whether what is not found may be registered all the same: the store is being read, or not all of it is held.
    package var isIncomplete: Bool
    /// Whether that may last, which the answer says.
    package var isUnknownForLong: Bool
    /// Whether mappings of other IMSs' nodes are remembered, which the core alone looks up.
    package var hasRemembered: Bool
    /// Whether nodes are bound to endpoints, which the core alone looks up.
    package var hasBindings: Bool
    package var limits: IMSLimits
}

extension IMSCore {
    /// The same for who has a core in a place of its own: reading it there would copy the core.
    package mutating func takeQueryRules() -> QueryRules { queryRules }

    /// What the workers need to know at present.
    package var queryRules: QueryRules {
        QueryRules(
            cookies: cookies, clientCookies: servers.clientCookies, served: configuration.served, isIncomplete: store.isIncomplete,
            isUnknownForLong: store.isUnknownForLong, hasRemembered: remembered.count > 0,
            hasBindings: binds.table.count > 0, limits: configuration.limits)
    }
}

/// What rtnetlink's events say. Each is judged by what it says before anything is read: a host may have a hundred thousand routes, of which
/// some change all the time, and a link a thousand neighbours.
package struct LinkNews {
    package struct Link: Hashable {
        package var index: UInt32
        /// `nil`: deleted.
        package var state: LinkState?

        package init(index: UInt32, state: LinkState? = nil) {
            self.index = index
            self.state = state
        }
    }

    package struct Address: Hashable {
        package var state: AddressState
        package var isRemoval: Bool

        package init(state: AddressState, isRemoval: Bool) {
            self.state = state
            self.isRemoval = isRemoval
        }
    }

    package var links: [Link] = []
    package var addresses: [Address] = []
    /// Of the main table, in order.
    package var mainRoutes: [MainTable.Change] = []
    package var neighbours: [Router: UInt16] = [:]
    /// Another program changed routes of ours, or rules.
    package var routes = false
    /// Another program's routes took the place of what was in these tables: perhaps ours.
    package var replacedTables: Set<UInt32> = []
    /// Other programs' rules changed, which may stand before ours now.
    package var foreignRules = false
    /// A nexthop object changed, and with it the routes that name it.
    package var nextHops = false
    package var lost = false

    package init() {}

    /// Events kept of a kind; with more at once, all is read.
    package static let eventsMax = 4096

    package var isEmpty: Bool {
        links.isEmpty && addresses.isEmpty && mainRoutes.isEmpty && neighbours.isEmpty && !routes && replacedTables.isEmpty && !foreignRules
            && !nextHops && !lost
    }

    package mutating func addLoss() {
        self = LinkNews()
        lost = true
    }
}

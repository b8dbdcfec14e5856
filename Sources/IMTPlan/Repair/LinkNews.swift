import MATRuntime
import MATSignal

/// What rtnetlink's events say. Each is judged by what it says before anything is read: a host may have a hundred thousand routes, of which
/// some change all the time, and a link a thousand neighbours.
struct LinkNews: NetlinkNews {
    struct Link: Hashable {
        var index: UInt32
        /// `nil`: deleted.
        var state: LinkState?
    }

    struct Address: Hashable {
        var state: AddressState
        var isRemoval: Bool
    }

    var links: [Link] = []
    var addresses: [Address] = []
    /// Of the main table, in order.
    var mainRoutes: [MainTable.Change] = []
    var neighbours: [Router: UInt16] = [:]
    /// Another program changed routes of ours, or rules.
    var routes = false
    /// Another program's routes took the place of what was in these tables: perhaps ours.
    var replacedTables: Set<UInt32> = []
    /// Other programs' rules changed, which may stand before ours now.
    var foreignRules = false
    /// A nexthop object changed, and with it the routes that name it.
    var nextHops = false
    var lost = false

    /// Events kept of a kind; with more at once, all is read.
    static let eventsMax = 4096

    var isEmpty: Bool {
        links.isEmpty && addresses.isEmpty && mainRoutes.isEmpty && neighbours.isEmpty && !routes && replacedTables.isEmpty && !foreignRules
            && !nextHops && !lost
    }

    mutating func note(_ event: NetlinkIncoming) {
        switch event.type {
        case KernelValues.newRoute, KernelValues.deleteRoute: noteRoute(event)
        case KernelValues.newRule, KernelValues.deleteRule:
            if KernelRule.decode(event) != nil { routes = true } else { foreignRules = true }
        case KernelValues.newLink, KernelValues.deleteLink:
            guard let link = LinkState.decode(event) else { return }
            links.append(Link(index: link.index, state: event.type == KernelValues.newLink ? link.state : nil))
        case KernelValues.newAddress, KernelValues.deleteAddress:
            guard let state = AddressState.decode(event) else { return }
            addresses.append(Address(state: state, isRemoval: event.type == KernelValues.deleteAddress))
        case KernelValues.newNeighbour:
            if let (router, state) = Neighbour.decode(event) { neighbours[router] = state }
        case KernelValues.newNextHop, KernelValues.deleteNextHop: nextHops = true
        default: break
        }
        if max(links.count, addresses.count, mainRoutes.count, neighbours.count) > Self.eventsMax { noteLoss() }
    }

    private mutating func noteRoute(_ event: NetlinkIncoming) {
        guard event.payload.count >= KernelRoute.headerBytes else { return }
        let named = event.attributes(after: KernelRoute.headerBytes).first(KernelValues.rtmTable)?.u32
        let table = named ?? UInt32(event.payload[4])
        let replaces = event.type == KernelValues.newRoute && event.flags & KernelValues.flagReplace != 0
        if table == KernelValues.tableMain {
            let isRemoval = event.type == KernelValues.deleteRoute
            // What is no unicast route may have taken the place of one.
            if replaces, event.payload[7] != KernelValues.routeUnicast { nextHops = true }
            for (index, route) in KernelRoute.mainRoutes(of: event).enumerated() {
                mainRoutes.append(MainTable.Change(route: route, isRemoval: isRemoval, replaces: replaces && index == 0))
            }
        } else if event.port != 0, event.payload[5] == KernelValues.protocolMAT {
            // What the kernel itself takes (port 0) it takes with a link or an address, and says so too.
            routes = true
        } else if event.port != 0, replaces {
            replacedTables.insert(table)
        }
    }

    mutating func noteLoss() {
        self = LinkNews()
        lost = true
    }
}

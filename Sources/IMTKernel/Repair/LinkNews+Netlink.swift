import IMTPlan

extension LinkNews: NetlinkNews {
    mutating func add(_ event: NetlinkIncoming) {
        switch event.type {
        case KernelValues.newRoute, KernelValues.deleteRoute: addRoute(event)
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
        if max(links.count, addresses.count, mainRoutes.count, neighbours.count) > Self.eventsMax { addLoss() }
    }

    private mutating func addRoute(_ event: NetlinkIncoming) {
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
}

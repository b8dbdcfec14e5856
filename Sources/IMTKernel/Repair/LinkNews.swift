import MATSignal

/// What rtnetlink's events say about where to look.
struct LinkNews: NetlinkNews {
    /// Links, addresses or the main table.
    var links = false
    /// Another program changed routes of ours, or rules.
    var routes = false
    var lost = false

    var isEmpty: Bool { !links && !routes && !lost }

    mutating func note(_ event: NetlinkIncoming) {
        switch event.type {
        case KernelValues.newRoute, KernelValues.deleteRoute:
            guard event.payload.count >= KernelRoute.headerBytes else { return }
            let table = event.attributes(after: KernelRoute.headerBytes).first(KernelValues.rtmTable)?.u32
            if (table ?? UInt32(event.payload[4])) == KernelValues.tableMain {
                links = true
            } else if event.port != 0, event.payload[5] == KernelValues.protocolMAT {
                // What the kernel itself takes (port 0) it takes with a link or an address, and says so too.
                routes = true
            } else if event.port != 0, event.flags & KernelValues.flagReplace != 0 {
                // It may stand where ours was.
                routes = true
            }
        case KernelValues.newRule, KernelValues.deleteRule:
            if KernelRule.decode(event) != nil { routes = true }
        case KernelValues.newLink, KernelValues.deleteLink, KernelValues.newAddress, KernelValues.deleteAddress: links = true
        default: break
        }
    }

    mutating func noteLoss() { lost = true }
}

import MATSignal

/// Everything rtnetlink says about where this host is, read as a whole.
struct LinkTables: Equatable {
    var links: [UInt32: LinkState] = [:]
    var addresses: [AddressState] = []
    /// The main table's, both families.
    var mainRoutes: [KernelRoute] = []

    /// - Parameter deviceName: our own device, which is no link.
    func snapshot(without deviceName: String) -> LinkSnapshot {
        var best: [UInt64: KernelRoute] = [:]
        for route in mainRoutes where route.destination.familyLength == 0 {
            let slot = UInt64(route.interfaceIndex) << 1 | (route.isIPv4 ? 1 : 0)
            if let known = best[slot], known.priority <= route.priority { continue }
            best[slot] = route
        }
        var result = LinkSnapshot(gateways: Set(mainRoutes.compactMap(\.gateway)).sorted())
        for state in addresses {
            guard let link = links[state.interfaceIndex], !link.isLoopback, link.name != deviceName else { continue }
            let route = best[UInt64(state.interfaceIndex) << 1 | (state.address.isIPv4 ? 1 : 0)]
            // An optimistic address may be sent from although its duplicates are still being looked for (RFC 4429).
            let tentative = state.flags & KernelValues.addressTentative != 0 && state.flags & KernelValues.addressOptimistic == 0
            result.addresses.append(
                LocalAddress(
                    address: state.address, interface: link.name, interfaceIndex: state.interfaceIndex,
                    prefixLength: state.prefixLength,
                    isTentative: tentative, isDeprecated: state.flags & KernelValues.addressDeprecated != 0,
                    dadFailed: state.flags & KernelValues.addressDADFailed != 0, linkUp: link.isUp, gateway: route?.gateway,
                    hasDefaultRoute: route != nil,
                    isGlobalScope: state.scope <= KernelValues.scopeSite))
        }
        result.addresses.sort { ($0.interfaceIndex, $0.address) < ($1.interfaceIndex, $1.address) }
        return result
    }

    /// Whether a link other than our device (loopback included) carries the address.
    func carries(_ address: IPAddress, otherThan deviceName: String) -> Bool {
        addresses.contains { $0.address == address && links[$0.interfaceIndex].map { $0.name != deviceName } ?? false }
    }
}

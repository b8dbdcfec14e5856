import MATSignal

/// One change of routes, rules or addresses.
package enum RoutingChange: Hashable {
    case setRoute(KernelRoute)
    case deleteRoute(KernelRoute)
    case addRule(KernelRule)
    case deleteRule(KernelRule)
    case addAddress(IPAddress, interfaceIndex: UInt32)
    case deleteAddress(IPAddress, interfaceIndex: UInt32)
}

extension RoutingChange: CustomStringConvertible {
    package var description: String {
        switch self {
        case .setRoute(let route): "route \(route.destination) in table \(route.table)"
        case .deleteRoute(let route): "remove route \(route.destination) from table \(route.table)"
        case .addRule(let rule): "rule \(rule.priority) to table \(rule.table)"
        case .deleteRule(let rule): "remove rule \(rule.priority) to table \(rule.table)"
        case .addAddress(let address, _): "address \(address)"
        case .deleteAddress(let address, _): "remove address \(address)"
        }
    }
}

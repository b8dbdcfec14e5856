import IMTKernel
import MATSignal
import NodeCore

// A mobile network (the paper's Mobile Prefix): hosts without MAT behind this router keep addresses of its home prefix.

extension NodeConfiguration {
    var addressRules: AddressRules {
        var rules = AddressRules(homes: homes.map { AddressRules.Home(hoa: $0.hoa, prefix: $0.prefix, mobilePrefixes: $0.mobilePrefixes) })
        rules.ignoredInterfaces = ignoredInterfaces
        rules.needsDefaultRoute = needsDefaultRoute
        return rules
    }

    /// The homes that are prefixes.
    var networks: [Home] { homes.filter { $0.prefix.length < 128 } }

    /// What the host lacks to be a mobile network's router. Whether a host forwards is its owner's decision, so it is not switched on here.
    func forwardingWarnings() -> [String] {
        networks.compactMap { home in
            guard KernelForwarding.isOff(home.prefix.family) else { return nil }
            return "this host does not forward, so the hosts of \(home.prefix) reach nobody: sysctl -w \(KernelForwarding.name(home.prefix.family))=1"
        }
    }
}

import MATRuntime
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
            let key = home.prefix.family == .ipv4 ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding"
            let path = "/proc/sys/" + key.split(separator: ".").joined(separator: "/")
            guard let value = try? TextFile.read(path), value.first == "0" else { return nil }
            return "this host does not forward, so the hosts of \(home.prefix) reach nobody: sysctl -w \(key)=1"
        }
    }
}

import IMTPlan
import MATRuntime
import MATSignal

// A mobile network (the paper's Mobile Prefix): hosts without MAT behind this router keep addresses of its home prefix.

extension NodeConfiguration {
    /// The homes that are prefixes.
    var networks: [Home] { homes.filter { $0.prefix.length < 128 } }

    /// Where the node's HoAs of each family can be reached: at usable addresses as they are or, for a mobile network, at the MoPres of the
    /// interfaces that have one. What MAT sends and asks for a network comes from its MoPre's base address, which the TUN device carries.
    func places(of usable: [LocalAddress]) -> [LocalAddress] {
        var places: [LocalAddress] = []
        for address in usable {
            let family = homes.filter { $0.hoa.isIPv4 == address.address.isIPv4 }
            // No home of a family: its addresses serve for asking servers.
            if family.isEmpty || family.contains(where: { $0.prefix.length == 128 }) { places.append(address) }
            // An interface with several addresses has one MoPre all the same.
            for home in family {
                guard let prefix = home.mobilePrefixes[address.interface],
                    !places.contains(where: { $0.address == prefix.address && $0.interface == address.interface })
                else { continue }
                var place = address
                place.address = prefix.address
                place.prefixLength = prefix.isIPv4 ? 32 : 128
                places.append(place)
            }
        }
        return places
    }

    /// What the host lacks to be a mobile network's router. Whether a host forwards is its owner's decision, so it is not switched on here.
    func forwardingWarnings() -> [String] {
        networks.compactMap { home in
            let key = home.prefix.isIPv4 ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding"
            let path = "/proc/sys/" + key.split(separator: ".").joined(separator: "/")
            guard let value = try? TextFile.read(path), value.first == "0" else { return nil }
            return "this host does not forward, so the hosts of \(home.prefix) reach nobody: sysctl -w \(key)=1"
        }
    }
}

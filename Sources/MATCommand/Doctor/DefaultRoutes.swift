import MATRuntime
import MATSignal

/// The default routes of the main table, as `ip -j route show default` prints them.
enum DefaultRoutes {
    static func read(_ family: AddressFamily) -> [HostFacts.DefaultRoute] {
        let command = ["ip", family == .ipv4 ? "-4" : "-6", "-j", "route", "show", "default"]
        return parse(Array(ProgramOutput.of(command, seconds: 5, complaints: false).text.utf8), family)
    }

    static func parse(_ octets: [UInt8], _ family: AddressFamily) -> [HostFacts.DefaultRoute] {
        var routes: [HostFacts.DefaultRoute] = []
        func add(_ route: JSONValue, _ hop: JSONValue) {
            guard let device = hop["dev"]?.string, !routes.contains(where: { $0.interface == device && $0.family == family }) else { return }
            let mtu = route["metrics"]?.array?.compactMap { $0["mtu"]?.int }.first.map { Int(clamping: $0) }
            routes.append(
                HostFacts.DefaultRoute(family: family, interface: device, router: hop["gateway"]?.string.flatMap { IPAddress($0) }, mtu: mtu))
        }
        for route in (try? JSONValue.parse(octets))?.array ?? [] {
            add(route, route)
            for hop in route["nexthops"]?.array ?? [] { add(route, hop) }
        }
        return routes
    }
}

import Foundation
import Testing

/// Plain hosts that keep their connections with a node wherever it goes, since its packets pass a relay that is its gateway.
@Suite("By a gateway in network namespaces", .serialized, .lab("gateway"))
struct GatewayTests {
    static let home = "192.0.2.10", homeIPv6 = "2001:db8:10::10"
    static let plain = "203.0.113.200", plainIPv6 = "2001:db8:99::200"
    static let relay = "203.0.113.134", relayIPv6 = "2001:db8:53::134"
    private static let prefixes = ["192.0.2.0/24", "2001:db8:10::/48"]

    /// Makes `relay` a gateway of this service, and `mn` use it.
    private func prepare(_ lab: Lab, service: String) throws {
        let relay = "/run/\(lab.name)/relay/mat-relay.yaml"
        let node = "/run/\(lab.name)/mn/matd.yaml"
        var lines = ["gateway:", "  forwarding: set", "  prefixes:"]
        for prefix in Self.prefixes { lines += ["    - prefix: \"\(prefix)\"", "      service: \(service)"] }
        try configure(relay, marker: "gateway:", lines)
        try configure(node, marker: "plain:", ["plain: gateway"])
        // Routed or not, the operator says.
        for (prefix, gateway, family) in [(Self.prefixes[0], Self.relay, "-4"), (Self.prefixes[1], Self.relayIPv6, "-6")] {
            let change = service == "routed" ? ["replace", prefix, "via", gateway] : ["flush", prefix]
            _ = try lab.shell("r", "ip \(family) route \(change.joined(separator: " "))")
        }
        try lab.lab("restart", "relay")
        try lab.lab("move", "mn", "wlan")
        try lab.lab("restart", "mn")
        try lab.wait("mn has its gateway") {
            lab.log("mn").contains("gateway of \(Self.home)") && lab.log("mn").contains("gateway of \(Self.homeIPv6)")
        }
        try lab.wait("mn is registered") { try lab.status("mn")["registered"] as? Bool == true }
    }

    /// Replaces what stands after the marker.
    private func configure(_ path: String, marker: String, _ lines: [String]) throws {
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let kept = text.components(separatedBy: "\n\(marker)").first ?? text
        try (kept + "\n" + lines.joined(separator: "\n") + "\n").write(toFile: path, atomically: false, encoding: .utf8)
    }

    private func dropped(_ lab: Lab) -> String { String(lab.log("relay", "mat-relay").suffix(3000)) }

    @Test("TCP and UDP, begun by either, go on through networks of all kinds while the plain host sees the home address")
    func routed() throws {
        let lab = try Lab.shared
        try prepare(lab, service: "routed")
        let traffic = try Traffic(
            lab,
            [
                .init(isIPv4: true, near: "mn", far: "plain", address: Self.plain, home: Self.home),
                .init(isIPv4: false, near: "mn", far: "plain", address: Self.plainIPv6, home: Self.homeIPv6),
                .init(isIPv4: true, near: "plain", far: "mn", address: Self.home, home: Self.plain),
                .init(isIPv4: false, near: "plain", far: "mn", address: Self.homeIPv6, home: Self.plainIPv6),
            ])
        defer { traffic.end() }
        #expect(traffic.goesOn(within: 15), "\(traffic.report)\n\(lab.log("mn").suffix(4000))\n\(dropped(lab))")
        for network in ["home", "carrier", "cellular", "wlan"] {
            try lab.lab("move", "mn", network)
            #expect(traffic.goesOn(within: 15), "\(network): \(traffic.report)\n\(lab.log("mn").suffix(4000))\n\(dropped(lab))")
            #expect(traffic.ends.isEmpty, "\(network)")
        }
        let why = try lab.on("mn", "mat", "why", Self.plain, "--control", lab.control("mn"))
        // The gateway has an address of each family; which carries the packets is the node's choice.
        let gateways = ["\(Self.relay):6290", "[\(Self.relayIPv6)]:6290"]
        #expect(gateways.contains { why.text.contains("by the gateway \($0) as \(Self.home)") }, "\(why.text)")
    }

    @Test("Where nobody routes the home address, the plain host talks to the gateway, before and after moves")
    func translated() throws {
        let lab = try Lab.shared
        try prepare(lab, service: "source-nat")
        for (isIPv4, address, home, outside) in [
            (true, Self.plain, Self.home, Self.relay), (false, Self.plainIPv6, Self.homeIPv6, Self.relayIPv6),
        ] {
            try lab.lab("move", "mn", "wlan")
            let listener = try HostSocket(lab, "plain", SOCK_STREAM, isIPv4: isIPv4)
            let port: UInt16 = isIPv4 ? 7301 : 7302
            try listener.bindAll(port: port)
            try listener.listen()
            let client = try HostSocket(lab, "mn", SOCK_STREAM, isIPv4: isIPv4)
            try client.bind(home, port: 0)
            client.setTimeout(10)
            try client.connect(address, port: port)
            let server = try listener.accept()
            server.setTimeout(10)
            let seen = try lab.shell("plain", "ss -Htn state established sport = :\(port)").text
            #expect(seen.contains(outside), "\(seen)")
            for network in ["home", "cellular"] {
                try lab.lab("move", "mn", network)
                for number in 0..<20 {
                    let word = [UInt8](repeating: UInt8(number), count: 100)
                    try client.send(word)
                    #expect(try server.receive() == word)
                    try server.send(word)
                    #expect(try client.receive() == word)
                }
            }
        }
        let why = try lab.on("mn", "mat", "why", Self.plain, "--control", lab.control("mn"))
        #expect(why.text.contains("with source translation"), "\(why.text)")
    }

    @Test("From outside nobody speaks for the node, and a host that does not is not let through the gateway")
    func abuse() throws {
        let lab = try Lab.shared
        try prepare(lab, service: "routed")
        let before = lab.log("relay", "mat-relay").count
        // A plain host in the name of another home address; and one that uses the gateway as its router to the relay's own port.
        _ = try lab.shell("plain", "ip addr add 192.0.2.99/32 dev lo; ping -c 2 -W 1 -I 192.0.2.99 \(Self.home); ip addr del 192.0.2.99/32 dev lo")
        let ping = try lab.shell("plain", "ping -c 3 -i 0.2 -W 2 \(Self.home)")
        #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)\n\(lab.log("relay", "mat-relay").dropFirst(before))")
        // Too large for the way to the node: the plain host hears of it.
        let large = try lab.shell("plain", "ping -c 2 -i 0.3 -W 2 -M do -s 1400 \(Self.home)")
        #expect(large.text.contains("mtu = 1280") || large.text.contains("mtu=1280"), "\(large.text)")
    }
}

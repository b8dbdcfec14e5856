import Foundation
import Testing

/// HoAs of one family in networks that have the other alone. Real translators (a NAT64, Linux conntrack), real agents.
@Suite("Networks of the other family in network namespaces", .serialized, .lab("family"))
struct OtherFamilyTests {
    static let mn = "192.0.2.10"
    static let mn6 = "2001:db8:10::10"
    static let cn = "198.51.100.20"
    static let cn6 = "2001:db8:20::20"

    private func path(_ lab: Lab, _ node: String, to peer: String) throws -> String? {
        try lab.peers(node).first { $0["home"] as? String == peer }?["path"] as? String
    }

    private func move(_ lab: Lab, to network: String, _ traffic: Traffic, _ peers: [(own: String, peer: String)], path expected: String) throws {
        try lab.lab("move", "mn", network)
        let began = Date()
        #expect(traffic.goesOn(within: 15), "mn in \(network): \(traffic.report)\n\(lab.log("mn").suffix(6000))")
        #expect(traffic.ends.isEmpty, "mn in \(network)")
        print("OtherFamily: mn in \(network), traffic goes on \(Int(Date().timeIntervalSince(began) * 1000)) ms after lab move")
        for (own, peer) in peers {
            for (node, other) in [("mn", peer), ("cn", own)] {
                try lab.wait("\(node)'s packets to \(other) go \(expected) in \(network)") { try path(lab, node, to: other) == expected }
            }
        }
    }

    @Test("TCP and UDP of an IPv4 home address go on in networks that have IPv6 alone, and from there to others")
    func ipv4Home() throws {
        let lab = try Lab.shared
        let traffic = try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "cn", address: Self.cn, home: Self.mn)])
        defer { traffic.end() }
        let pair = [(own: Self.mn, peer: Self.cn)]
        try move(lab, to: "ipv6", traffic, pair, path: "encapsulated")
        let status = try lab.on("mn", "mat", "status", "--control", lab.control("mn")).text
        #expect(status.contains("]:6289"), "\(status)")
        try move(lab, to: "home", traffic, pair, path: "encapsulated")
        try move(lab, to: "ipv6-firewall", traffic, pair, path: "encapsulated")
        try move(lab, to: "wlan", traffic, pair, path: "direct")
    }

    @Test("TCP and UDP of an IPv6 home address go on behind a NAT of IPv4")
    func ipv6Home() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "wlan")
        let traffic = try Traffic(lab, [.init(isIPv4: false, near: "mn", far: "cn", address: Self.cn6, home: Self.mn6)])
        defer { traffic.end() }
        let pair = [(own: Self.mn6, peer: Self.cn6)]
        try move(lab, to: "home", traffic, pair, path: "encapsulated")
        try move(lab, to: "ipv6", traffic, pair, path: "direct")
        try move(lab, to: "wlan", traffic, pair, path: "direct")
    }

    @Test("A node in a network of IPv6 alone and one behind a NAT of IPv4 talk through the NAT64, and go on when they move")
    func throughNAT64() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "ipv6")
        try lab.lab("move", "mn2", "home2")
        let mn2 = "192.0.2.11"
        for node in ["mn", "mn2"] {
            try lab.wait("\(node)'s IPv4 home address is registered") {
                let homes = try lab.status(node)["homes"] as? [[String: Any]] ?? []
                return homes.contains { $0["state"] as? String == "registered" && !($0["address"] as? String ?? ":").contains(":") }
            }
        }
        let traffic = try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "mn2", address: mn2, home: Self.mn)])
        defer { traffic.end() }
        #expect(traffic.goesOn(within: 15), "\(traffic.report)")
        for (node, network) in [("mn", "carrier"), ("mn", "ipv6-firewall"), ("mn2", "carrier"), ("mn2", "wlan")] {
            try lab.lab("move", node, network)
            #expect(traffic.goesOn(within: 15), "\(node) in \(network): \(traffic.report)\n\(lab.log("mn").suffix(6000))")
            #expect(traffic.ends.isEmpty, "\(node) in \(network)")
        }
        try lab.lab("move", "mn2", "wlan")
        try lab.lab("move", "mn", "wlan")
    }

    @Test("A node behind a NAT of IPv4 and one that has both families reach each other without a relay, over IPv6 home addresses")
    func ipv6HomeOfDualStack() throws {
        let lab = try Lab.shared
        let mn26 = "2001:db8:10::11"
        try lab.lab("move", "mn", "home2")
        try lab.lab("move", "mn2", "cellular")
        try lab.wait("mn's IPv6 home address is registered behind the NAT") {
            let homes = try lab.status("mn")["homes"] as? [[String: Any]] ?? []
            return homes.contains { $0["state"] as? String == "registered" && $0["address"] as? String == Self.mn6 }
        }
        let traffic = try Traffic(lab, [.init(isIPv4: false, near: "mn", far: "mn2", address: mn26, home: Self.mn6)])
        defer { traffic.end() }
        #expect(traffic.goesOn(within: 15), "\(traffic.report)")
        for (node, peer) in [("mn", mn26), ("mn2", Self.mn6)] {
            try lab.wait("\(node)'s packets to \(peer) go encapsulated") { try path(lab, node, to: peer) == "encapsulated" }
        }
        try lab.lab("move", "mn", "wlan")
        for (node, peer) in [("mn", mn26), ("mn2", Self.mn6)] {
            try lab.wait("\(node)'s packets to \(peer) are rewritten") { try path(lab, node, to: peer) == "direct" }
        }
        #expect(traffic.goesOn(within: 15) && traffic.ends.isEmpty, "\(traffic.report)")
    }
}

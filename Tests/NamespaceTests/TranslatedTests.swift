import Foundation
import Testing

/// Nodes among networks where most people are: behind NATs of homes and carriers. Real translators (Linux conntrack), real agents.
@Suite("Behind NATs in network namespaces", .serialized, .lab("nat"))
struct TranslatedTests {
    static let mn = "192.0.2.10"
    static let mn2 = "192.0.2.11"
    static let cn = "198.51.100.20"

    /// Takes `mn` to a network, and expects that whatever talks goes on.
    private func move(_ lab: Lab, _ node: String, to network: String, _ traffic: Traffic) throws {
        try lab.lab("move", node, network)
        #expect(traffic.goesOn(within: 15), "\(node) in \(network): \(traffic.report)\n\(lab.log(node).suffix(6000))")
        #expect(traffic.ends.isEmpty, "\(node) in \(network)")
    }

    private func path(_ lab: Lab, _ node: String, to peer: String) throws -> String? {
        try lab.peers(node).first { $0["home"] as? String == peer }?["path"] as? String
    }

    @Test("TCP and UDP with a server go on through NATs of homes and carriers, double ones, ones with a port per destination, and open networks")
    func toServer() throws {
        let lab = try Lab.shared
        // Where another test has left it.
        try lab.lab("move", "mn", "wlan")
        try lab.wait("mn is registered") { try status(lab, "mn") }
        let traffic = try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "cn", address: Self.cn, home: Self.mn)])
        defer { traffic.end() }
        try lab.wait("mn's packets to cn are rewritten") { try path(lab, "mn", to: Self.cn) == "direct" }
        for network in ["home", "carrier", "double", "symmetric", "cellular", "home", "wlan"] {
            try move(lab, "mn", to: network, traffic)
            let isOpen = network == "cellular" || network == "wlan"
            for (node, peer) in [("mn", Self.cn), ("cn", Self.mn)] {
                try lab.wait("\(node)'s packets to \(peer) take the right path in \(network)") {
                    try path(lab, node, to: peer) == (isOpen ? "direct" : "encapsulated")
                }
            }
            guard !isOpen else { continue }
            let why = try lab.on("mn", "mat", "why", Self.cn, "--control", lab.control("mn"))
            #expect(why.text.hasPrefix("\(Self.cn): encapsulated") && why.text.contains("is translated by"), "\(why.text)")
        }
    }

    @Test("Two nodes behind NATs talk without anything between, and go on when one moves, and when both do")
    func toEachOther() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        try lab.lab("move", "mn2", "home2")
        try lab.wait("both are registered") { try status(lab, "mn") && status(lab, "mn2") }
        let first = try lab.on("mn", "ping", "-c", "3", "-i", "0.2", "-W", "2", Self.mn2)
        #expect(first.text.contains(" 0% packet loss"), "\(first.text)")
        let traffic = try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "mn2", address: Self.mn2, home: Self.mn)])
        defer { traffic.end() }
        try move(lab, "mn", to: "carrier", traffic)
        try move(lab, "mn2", to: "cellular", traffic)
        try move(lab, "mn", to: "home", traffic)
        try lab.lab("move", "mn", "carrier")
        try lab.lab("move", "mn2", "home2")
        #expect(traffic.goesOn(within: 15), "\(traffic.report)")
        #expect(traffic.ends.isEmpty)
    }

    @Test("Behind NATs that map by destination two nodes talk by a relay, when they move and when relays start anew, and without it elsewhere")
    func byRelay() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "symmetric")
        try lab.lab("move", "mn2", "symmetric-host")
        try lab.wait("both are bound at a relay") { try isBound(lab, "mn") && isBound(lab, "mn2") }
        let first = try lab.on("mn", "ping", "-c", "3", "-i", "0.2", "-W", "2", Self.mn2)
        #expect(first.text.contains(" 0% packet loss"), "\(first.text)\n\(lab.log("mn").suffix(4000))")
        let traffic = try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "mn2", address: Self.mn2, home: Self.mn)])
        defer { traffic.end() }
        try expectPaths(lab, "relayed")
        let why = try lab.on("mn", "mat", "why", Self.mn2, "--control", lab.control("mn"))
        #expect(why.text.hasPrefix("\(Self.mn2): relayed, by ") && why.text.contains("bound there"), "\(why.text)")
        for relay in ["relay", "relay2"] {
            try lab.lab("restart", relay)
            #expect(traffic.goesOn(within: 15), "\(relay) restarted: \(traffic.report)\n\(lab.log("mn").suffix(6000))")
        }
        // In one network they need nobody between them.
        try move(lab, "mn2", to: "symmetric", traffic)
        try expectPaths(lab, "direct")
        try move(lab, "mn", to: "home", traffic)
        try move(lab, "mn2", to: "home2", traffic)
        try expectPaths(lab, "encapsulated")
        try lab.lab("move", "mn", "symmetric")
        try move(lab, "mn2", to: "symmetric-host", traffic)
        try expectPaths(lab, "relayed")
    }

    private func expectPaths(_ lab: Lab, _ path: String) throws {
        for (node, peer) in [("mn", Self.mn2), ("mn2", Self.mn)] {
            do {
                try lab.wait("\(node)'s packets to \(peer) go \(path)", seconds: 20) { try self.path(lab, node, to: peer) == path }
            } catch {
                let why = try lab.on(node, "mat", "why", peer, "--control", lab.control(node)).text
                Issue.record("\(error)\n\(why)\n\(lab.log(node).suffix(4000))")
                throw error
            }
        }
    }

    private func isBound(_ lab: Lab, _ node: String) throws -> Bool {
        let relays = try lab.status(node)["relays"] as? [[String: Any]] ?? []
        let isListed = try status(lab, node)
        return isListed && relays.contains { $0["state"] as? String == "bound" }
    }

    private func status(_ lab: Lab, _ node: String) throws -> Bool {
        let homes = try lab.status(node)["homes"] as? [[String: Any]] ?? []
        // These networks are IPv4 only.
        return homes.contains { $0["state"] as? String == "registered" && !($0["address"] as? String ?? ":").contains(":") }
    }

    @Test("An agent that is killed behind a NAT finds its paths again when it starts")
    func killed() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        let before = try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "2", Self.cn)
        #expect(before.text.contains(" 0% packet loss"), "\(before.text)")
        try lab.lab("stop", "mn", "KILL")
        try lab.lab("start", "mn")
        try lab.wait("the way is back", seconds: 20) { try lab.on("mn", "ping", "-c", "1", "-W", "1", Self.cn).status == 0 }
    }
}

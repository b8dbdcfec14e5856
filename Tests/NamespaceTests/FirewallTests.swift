import Foundation
import Testing

/// Nodes behind firewalls that let in only what belongs to a flow from inside, and before translators that start anew.
@Suite("Firewalls, and translators that start anew, in network namespaces", .serialized, .lab("wall"))
struct FirewallTests {
    private static let mn = ["192.0.2.10", "2001:db8:10::10"]
    private static let mn2 = ["192.0.2.11", "2001:db8:10::11"]
    private static let cn = ["198.51.100.20", "2001:db8:20::20"]

    private func ways(_ far: String, _ addresses: [String]) -> [Traffic.Way] {
        [0, 1].map { .init(isIPv4: $0 == 0, near: "mn", far: far, address: addresses[$0], home: Self.mn[$0]) }
    }

    private func path(_ lab: Lab, _ node: String, to peer: String) throws -> String? {
        try lab.peers(node).first { $0["home"] as? String == peer }?["path"] as? String
    }

    /// What `mat status` says of each usable address of a node.
    private func filters(_ lab: Lab, _ node: String) throws -> [String] {
        let locators = try lab.status(node)["locators"] as? [[String: Any]] ?? []
        return locators.map { ($0["translation"] as? [String: Any])?["text"] as? String ?? "open" }
    }

    @Test("Behind a firewall at one end, then at both, TCP and UDP of both families go on, and the nodes know that they are filtered")
    func firewalls() throws {
        let lab = try Lab.shared
        let toServer = try Traffic(lab, ways("cn", Self.cn))
        defer { toServer.end() }
        let toNode = try Traffic(lab, ways("mn2", Self.mn2))
        defer { toNode.end() }
        for (node, network) in [("mn", "firewall"), ("mn2", "firewall2")] {
            try lab.lab("move", node, network)
            #expect(toServer.goesOn(within: 15), "\(node) in \(network): \(toServer.report)\n\(lab.log(node).suffix(6000))")
            #expect(toNode.goesOn(within: 15), "\(node) in \(network): \(toNode.report)\n\(lab.log(node).suffix(6000))")
            try lab.wait("\(node) knows that its network filters") {
                try filters(lab, node) == Array(repeating: "filtered: no packets from outside arrive", count: 2)
            }
            #expect(toServer.goesOn(within: 5) && toNode.goesOn(within: 5), "\(toServer.report) \(toNode.report)")
            #expect(toServer.ends.isEmpty && toNode.ends.isEmpty)
        }
        for (node, peers) in [("mn", Self.cn + Self.mn2), ("mn2", Self.mn), ("cn", Self.mn)] {
            for peer in peers {
                try lab.wait("\(node)'s packets to \(peer) go encapsulated") { try path(lab, node, to: peer) == "encapsulated" }
            }
        }
        // An open network is known to be one, though nobody asks there.
        try lab.lab("move", "mn", "wlan")
        #expect(toServer.goesOn(within: 15), "\(toServer.report)")
        for peer in Self.cn { try lab.wait("rewritten again") { try path(lab, "mn", to: peer) == "direct" } }
        Thread.sleep(forTimeInterval: 6)
        #expect(try filters(lab, "mn") == ["open", "open"])
        #expect(toServer.ends.isEmpty && toNode.ends.isEmpty)
    }

    @Test(
        "Whoever only listens hears on within 3.5 s behind a firewall, beside other flows that pass or alone, from an open network or from a translated one",
        arguments: [true, false], ["wlan", "home"])
    func silentReceivers(isBesidePing: Bool, from: String) throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", from)
        for peer in Self.cn { try lab.wait("mn is in \(from)") { try lab.on("mn", "ping", "-c", "1", "-W", "1", peer).status == 0 } }
        let heard = try Traffic(
            lab,
            ways("cn", Self.cn).map { way in
                var way = way
                way.isHeardOnly = true
                return way
            })
        defer { heard.end() }
        let pings = isBesidePing ? try Self.cn.map { try lab.start("mn", "ping", "-i", "0.2", "-w", "60", $0) } : []
        defer {
            for ping in pings {
                ping.terminate()
                _ = try? ping.wait(seconds: 5)
            }
        }
        #expect(heard.goesOn(within: 5), "\(heard.report)")
        // Long enough that the pause before is over for whatever remembers packets.
        Thread.sleep(forTimeInterval: 2)
        try lab.lab("move", "mn", "firewall")
        #expect(heard.goesOn(within: 3.5), "\(heard.report)\n\(lab.log("mn").suffix(6000))\n\(lab.log("cn").suffix(3000))")
        #expect(heard.ends.isEmpty)
    }

    /// Counts what passes a gateway over IPv6 in datagrams without a sum, and drops it if it is told to.
    private func watchSums(_ lab: Lab, _ gateway: String, drops: Bool = false) throws {
        let rule = "meta l4proto udp udp checksum 0 counter \(drops ? "drop" : "accept")"
        let done = try lab.shell(
            gateway, "nft 'table ip6 sums; delete table ip6 sums; table ip6 sums { chain c { type filter hook forward priority -1; \(rule); }; }'")
        #expect(done.status == 0, "\(done.text)")
    }

    private func packetsWithoutSum(_ lab: Lab, _ gateway: String) throws -> Int {
        let words = try lab.on(gateway, "nft", "list", "table", "ip6", "sums").text.split(whereSeparator: \.isWhitespace)
        return words.firstIndex(of: "packets").flatMap { words.indices.contains($0 + 1) ? Int(words[$0 + 1]) : nil } ?? 0
    }

    @Test("Where UDP over IPv6 without a sum is dropped, on arrival there or from some moment on, TCP and UDP go on")
    func sums() throws {
        let lab = try Lab.shared
        for node in ["mn", "mn2"] { try lab.lab("move", node, "wlan") }
        let traffic = try Traffic(lab, [ways("cn", Self.cn)[1]])
        defer { traffic.end() }
        func goesOn(_ network: String) {
            #expect(traffic.goesOn(within: 15), "mn in \(network): \(traffic.report)\n\(lab.log("mn").suffix(6000))")
            #expect(traffic.ends.isEmpty)
        }
        func say(_ isLost: Bool, _ network: String) throws {
            for (node, peer) in [("mn", Self.cn[1]), ("cn", Self.mn[1])] {
                try lab.wait("\(node) \(isLost ? "says" : "does not say") in \(network) that datagrams need a sum") {
                    let why = try lab.on(node, "mat", "why", peer, "--control", lab.control(node)).text
                    return why.contains("encapsulated") && why.contains("without a UDP sum do not arrive") == isLost
                }
            }
        }
        try lab.lab("move", "mn", "sums")
        goesOn("sums")
        try say(true, "sums")
        // What asks whether they pass was dropped, as packets would have been.
        #expect(try packetsWithoutSum(lab, "sums") > 0)
        goesOn("sums")
        try lab.lab("move", "mn", "firewall")
        try watchSums(lab, "firewall")
        goesOn("firewall")
        try lab.wait("the kernel sends, without sums") { try packetsWithoutSum(lab, "firewall") > 100 }
        try say(false, "firewall")
        try watchSums(lab, "firewall", drops: true)
        let began = Date()
        goesOn("firewall")
        print("sums: both ways go on \(Date().timeIntervalSince(began)) s after datagrams without are dropped")
        try say(true, "firewall")
        goesOn("firewall")
        _ = try lab.on("firewall", "nft", "delete", "table", "ip6", "sums")
    }

    @Test("A translator that starts anew, with another address too, holds up TCP and UDP for no more than 1.5 s")
    func reboots() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        let traffic = try Traffic(lab, [ways("cn", Self.cn)[0]])
        defer { traffic.end() }
        #expect(traffic.goesOn(within: 15), "\(traffic.report)")
        for arguments in [["reboot", "home"], ["reboot", "home", "--new-address"]] {
            // This machine may be busy just then; what it takes on a quiet one is seen in one of three.
            var times: [Double] = []
            for _ in 1...3 where times.allSatisfy({ $0 > 1.5 }) {
                let began = Date()
                if arguments.count == 2 { try lab.lab("reboot", "home") } else { try lab.lab("reboot", "home", "--new-address") }
                guard traffic.goesOn(within: 15) else {
                    Issue.record("nothing goes on after \(arguments): \(traffic.report)\n\(lab.log("mn").suffix(4000))")
                    return
                }
                times.append(Date().timeIntervalSince(began))
            }
            print("\(arguments.joined(separator: " ")): resumed after \(times) s")
            #expect(times.contains { $0 <= 1.5 }, "\(times)\n\(lab.log("mn").suffix(4000))")
            #expect(traffic.ends.isEmpty)
        }
    }
}

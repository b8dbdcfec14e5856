import Foundation
import Testing

/// A mobile router with real daemons: a host behind it that has no MAT keeps its conversations while the router moves.
@Suite("Mobile network in network namespaces", .serialized, .lab("monet"))
struct MobileNetworkTests {
    static let families: [(String, String, String)] = [("-4", "198.51.100.20", "192.0.2.70"), ("-6", "2001:db8:20::20", "2001:db8:10:ff01::70")]
    /// mn2's, in the same order.
    static let others = ["192.0.2.11", "2001:db8:10::11"]

    @Test("The first packet is not lost: from behind the router to a node at home, a mobile one and a plain host, and back")
    func firstContact() throws {
        let lab = try Lab.shared
        for (family, _, _) in Self.families {
            for (from, to) in [("inner", "cn"), ("mn", "inner"), ("inner", "mn2"), ("cn", "inner"), ("inner", "plain")] {
                let ping = try lab.on(from, "ping", family, "-c", "3", "-i", "0.1", "-W", "2", "\(to).mat.example")
                #expect(ping.text.contains(" 0% packet loss"), "\(from) to \(to): \(ping.text)")
            }
        }
        let peers = try lab.peers("cn").compactMap { $0["home"] as? String }
        #expect(peers.contains("192.0.2.70") && peers.contains("2001:db8:10:ff01::70"), "\(peers)")
    }

    @Test("Pings and connections of the host, in both directions and families, survive the router's handovers with overlap")
    func withOverlap() throws {
        let lab = try Lab.shared
        var pings: [Background] = []
        var transfers: [Background] = []
        for (index, (family, cn, inner)) in Self.families.enumerated() {
            for (host, port) in [("cn", 5400 + index), ("inner", 5410 + index)] {
                _ = try lab.start(host, "iperf3", "-s", "-p", "\(port)")
                try lab.wait("iperf3 listens") { try lab.shell(host, "ss -ltn").text.contains(":\(port)") }
            }
            transfers.append(
                try lab.start("inner", "iperf3", family, "-c", cn, "-p", "\(5400 + index)", "-t", "600", "-b", "10M", "-i", "1", "--forceflush"))
            transfers.append(
                try lab.start("cn", "iperf3", family, "-c", inner, "-p", "\(5410 + index)", "-t", "600", "-b", "10M", "-i", "1", "--forceflush"))
            pings.append(try lab.start("inner", "ping", family, "-i", "0.02", cn))
            pings.append(try lab.start("cn", "ping", family, "-i", "0.02", inner))
        }
        try lab.wait("all transfers run") { transfers.allSatisfy { $0.text.contains("sec") } }
        for network in ["cellular", "wlan", "cellular", "wlan"] { try lab.lab("move", "mr", network) }
        for ping in pings {
            let echoes = Echoes(try ping.interrupt().text)
            #expect(echoes.isWhole && echoes.sentCount > 100, "\(echoes)")
        }
        for transfer in transfers { try transfer.endFlowing() }
    }

    /// Where no prefix is routed to the router: behind a carrier's translator and a home's, IPv6 alone with and without a way to IPv4, behind a
    /// firewall, and where only a relay leads to a peer behind another translator.
    @Test(
        "Through networks that route nothing to the router, the host's packets go in datagrams: with overlap five in eight moves are lost at most, to a server and to a node behind a translator, in both directions and families",
        .timeLimit(.minutes(3)))
    func elsewhere() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn2", "home2")
        var pings: [(name: String, ping: Background)] = []
        var transfers: [Background] = []
        for (index, (family, cn, inner)) in Self.families.enumerated() {
            _ = try lab.start("cn", "iperf3", "-s", "-p", "\(5430 + index)")
            try lab.wait("iperf3 listens") { try lab.shell("cn", "ss -ltn").text.contains(":\(5430 + index)") }
            transfers.append(
                try lab.start("inner", "iperf3", family, "-R", "-c", cn, "-p", "\(5430 + index)", "-t", "600", "-b", "5M", "-i", "1", "--forceflush"))
            for (from, to) in [("inner", cn), ("cn", inner), ("inner", Self.others[index]), ("mn2", inner)] {
                pings.append(("\(from) to \(to)", try lab.start(from, "ping", family, "-i", "0.05", to)))
            }
        }
        try lab.wait("all transfers run") { transfers.allSatisfy { $0.text.contains("sec") } }
        for network in ["carrier", "home", "ipv6", "firewall", "ipv6-bare", "symmetric", "cellular", "wlan"] {
            // Each over the interface that the one before does not have.
            let device = try usedDevice(lab) == "wlan0" ? "wwan0" : "wlan0"
            try lab.lab("move", "mr", network, "--over", device)
            let isRouted = network == "cellular" && device == "wwan0" || network == "wlan" && device == "wlan0"
            let wanted = isRouted ? "direct" : "encapsulated"
            try lab.wait("both paths to the server are \(wanted) in \(network): \(try lab.peers("mr"))", seconds: 20) {
                let servers = try lab.peers("mr").filter { peer in Self.families.contains { $0.1 == peer["home"] as? String } }
                return servers.count == 2 && servers.allSatisfy { $0["path"] as? String == wanted }
            }
        }
        for (name, ping) in pings {
            let echoes = Echoes(try ping.interrupt().text)
            #expect(echoes.sentCount > 200 && echoes.lost.count <= 5, "\(name): \(echoes)")
        }
        for transfer in transfers { try transfer.endFlowing() }
        try lab.lab("move", "mn2", "wlan")
    }

    private func usedDevice(_ lab: Lab) throws -> String {
        let locators = try lab.status("mr")["locators"] as? [[String: Any]] ?? []
        return locators.first?["interface"] as? String ?? ""
    }

    @Test(
        "First packets are not lost where the peer is in a network of the other family alone, or both are behind translators",
        arguments: [("wlan", "ipv6-bare"), ("home", "carrier")])
    func firstElsewhere(router: String, peer: String) throws {
        let lab = try Lab.shared
        if router != "wlan" { try lab.lab("move", "mr", router, "--over", "wwan0") }
        try lab.lab("move", "mn2", peer)
        for host in ["mr", "mn2"] {
            try lab.lab("restart", host)
            let status = try lab.on(host, "mat", "status", "--wait", "10", "--control", lab.control(host))
            #expect(status.status == 0, "\(status.text)")
        }
        for (index, (family, _, inner)) in Self.families.enumerated() {
            let (from, to) = index == 0 ? ("inner", Self.others[index]) : ("mn2", inner)
            let ping = try lab.on(from, "ping", family, "-c", "3", "-i", "0.1", "-W", "2", to)
            #expect(ping.text.contains(" 0% packet loss"), "\(from) to \(to): \(ping.text)")
        }
        try lab.lab("move", "mn2", "wlan")
        if router != "wlan" { try lab.lab("move", "mr", "wlan", "--over", "wlan0") }
    }

    @Test("Without overlap they go on from the new network, and the path's smaller MTU is found")
    func withoutOverlap() throws {
        let lab = try Lab.shared
        for (_, cn, _) in Self.families { _ = try lab.on("inner", "ping", "-c", "1", "-W", "2", cn) }
        _ = try lab.start("cn", "socat", "TCP6-LISTEN:7107,ipv6only=0,reuseaddr,fork", "SYSTEM:cat")
        try lab.wait("the server listens") { try lab.shell("cn", "ss -ltn").text.contains(":7107") }
        // Each line is echoed; the pauses between them span the handover.
        let clients = try ["198.51.100.20", "[2001:db8:20::20]"].map { target in
            try lab.start("inner", "/bin/bash", "-c", "(echo one; sleep 5; echo two; sleep 1) | socat -t 10 - TCP:\(target):7107")
        }
        try lab.wait("the first line is echoed") { clients.allSatisfy { $0.text.contains("one") } }
        try lab.lab("move", "mr", "cellular", "--no-overlap")
        for client in clients { #expect(try client.wait(seconds: 20).text.contains("two"), "\(client.text)") }
        #expect(try lab.shell("r", "ip link set cn mtu 1400").status == 0)
        for (index, (family, cn, _)) in Self.families.enumerated() {
            _ = try lab.start("cn", "iperf3", "-s", "-1", "-p", "\(5420 + index)")
            try lab.wait("iperf3 listens") { try lab.shell("cn", "ss -ltn").text.contains(":\(5420 + index)") }
            let transfer = try lab.on("inner", "iperf3", family, "-c", cn, "-p", "\(5420 + index)", "-n", "2M")
            #expect(transfer.status == 0, "\(transfer.text)")
            #expect(try lab.shell("inner", "ip \(family) route get \(cn)").text.contains("mtu 1400"))
        }
        #expect(try lab.shell("r", "ip link set cn mtu 1500").status == 0)
        try lab.lab("move", "mr", "wlan")
    }

    @Test("The record of the whole prefix is one, and a MoPre that the IMS does not know is refused")
    func record() throws {
        let lab = try Lab.shared
        let list = try lab.on("ims1", "mat", "ims", "list", "--control", lab.control("ims1"))
        #expect(list.text.contains("192.0.2.64/28") && list.text.contains("2001:db8:10:ff00::/56"), "\(list.text)")
        #expect(try lab.shell("r", "ip route add 172.16.1.16/28 via 203.0.113.5").status == 0)
        #expect(try lab.shell("mr", "sed -i 's/198.18.1.16/172.16.1.16/' /run/\(lab.name)/mr/matd.yaml").status == 0)
        try lab.lab("restart", "mr")
        try lab.wait("the refusal is told") { lab.log("mr").contains("172.16.1.16/28 is not among the mobile prefixes configured") }
        #expect(try lab.shell("mr", "sed -i 's/172.16.1.16/198.18.1.16/' /run/\(lab.name)/mr/matd.yaml").status == 0)
        try lab.lab("restart", "mr")
        let status = try lab.on("mr", "mat", "status", "--wait", "10", "--control", lab.control("mr"))
        #expect(status.status == 0, "\(status.text)")
    }
}

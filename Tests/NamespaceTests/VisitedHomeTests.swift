import Foundation
import MATSignal
import Testing

/// A program asks for a home address of the network that its host is in, and talks from there while the host moves on (protocol.md section 12).
///
/// ims2 is wlan's IMS as well: it takes visitors from there. mn (at home at ims1) visits; mn2 is the other end, from cellular.
@Suite("Visited homes in network namespaces", .serialized, .lab("visit"))
struct VisitedHomeTests {
    private static let peers = [("-4", "192.0.2.11"), ("-6", "2001:db8:10::11")]
    /// wlan, and the outside of the NAT of `home`.
    private static let networks = ["203.0.113.0/26", "2001:db8:a::/64", "198.19.1.0/25"]
    static let pools = ["198.51.100.128/26", "2001:db8:20:0:f000::/80"]

    private func edit(_ path: String, _ change: (String) throws -> String) throws {
        try change(String(contentsOfFile: path, encoding: .utf8)).write(toFile: path, atomically: true, encoding: .utf8)
    }

    /// Makes ims2 the IMS of wlan, as its zone says of mn's addresses there, and has mn take visited homes.
    func prepare(_ lab: Lab, homes: String? = nil) throws {
        try edit("/run/\(lab.name)/ims2/imsd.yaml") { text in
            let served = Self.networks.map { "  - prefix: \"\($0)\"\n" }.joined()
            let only = homes.map { ", homes: [\"\($0)\"]" } ?? ""
            let quoted = Self.pools.map { "\"\($0)\"" }.joined(separator: ", ")
            let from = Self.networks.map { "\"\($0)\"" }.joined(separator: ", ")
            let visitors = "visitors: {pools: [\(quoted)], from: [\(from)]\(only)}\n"
            let plain = text.split(separator: "\n").filter { !$0.hasPrefix("visitors:") && !served.contains("\($0)\n") }.joined(separator: "\n")
            return plain.replacingOccurrences(of: "prefixes:\n", with: "prefixes:\n\(served)") + "\n" + visitors
        }
        try lab.lab("restart", "ims2")
        try edit("/run/\(lab.name)/mn/matd.yaml") { text in text.contains("visited:") ? text : text + "visited: yes\nvisited-linger: 1s\n" }
        try lab.lab("restart", "mn")
        try lab.wait("mn is registered in both families") { try lab.status("mn")["registered"] as? Bool == true }
        let zones = "/run/\(lab.name)/ns/zones"
        let data = try imsRecord(lab)
        for address in try addresses(lab) {
            let name = Self.reverse(address)
            try edit("\(zones)/\(address.family == .ipv4 ? "113.0.203.in-addr.arpa" : "8.b.d.0.1.0.0.2.ip6.arpa")") { text in
                text.contains("\(name) TYPE65400") ? text : text + "\(name) \(data)\n"
            }
        }
        try readZones(lab)
        for address in try addresses(lab) {
            try lab.wait("the DNS says who serves \(address)") { try named(lab, Self.reverse(address)) }
        }
    }

    /// Type and data of the record that names ims2.
    private func imsRecord(_ lab: Lab) throws -> String {
        let zone = try String(contentsOfFile: "/run/\(lab.name)/ns/zones/100.51.198.in-addr.arpa", encoding: .utf8)
        let record = try #require(zone.split(separator: "\n").first { $0.contains("TYPE65400") })
        return try #require(record.range(of: "TYPE65400").map { String(record[$0.lowerBound...]) })
    }

    /// Has the DNS read the zones' files, and forget what it knew.
    private func readZones(_ lab: Lab) throws {
        for (host, server) in [("ns", "nsd"), ("resolver", "unbound")] {
            let signalled = try lab.shell(host, "kill -HUP $(cut -d' ' -f1 /run/\(lab.name)/\(host)/\(server).pid)")
            #expect(signalled.status == 0, "\(signalled.text)")
        }
    }

    /// Whether there is an IMS record at a name.
    private func named(_ lab: Lab, _ name: String) throws -> Bool {
        try lab.on("resolver", "dig", "+short", "+time=1", "+tries=1", "@203.0.113.131", "-t", "TYPE65400", name).text.contains("\\#")
    }

    /// mn's addresses in wlan.
    func addresses(_ lab: Lab) throws -> [IPAddress] {
        (try lab.status("mn")["locators"] as? [[String: Any]] ?? []).filter { $0["interface"] as? String == "wlan0" }
            .compactMap { ($0["address"] as? String).flatMap { IPAddress($0) } }
    }

    private static func reverse(_ address: IPAddress) -> String {
        if let number = address.ipv4 { return (0..<4).map { "\(number >> (8 * $0) & 255)" }.joined(separator: ".") + ".in-addr.arpa." }
        let nibbles = address.octets.flatMap { [$0 >> 4, $0 & 15] }
        return nibbles.reversed().map { String($0, radix: 16) }.joined(separator: ".") + ".ip6.arpa."
    }

    /// The example program, as its first lines say that it is made.
    private func example(_ lab: Lab) throws -> String {
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("docs/examples/visit.c").path
        let program = "/run/\(lab.name)/visit"
        let made = try lab.on("mn", "cc", "-Wall", "-Werror", "-o", program, source)
        #expect(made.status == 0, "\(made.text)")
        return program
    }

    private func ims(_ lab: Lab, _ arguments: String...) throws -> String {
        try lab.shell("ims2", (["mat", "ims"] + arguments + ["--control", lab.control("ims2")]).joined(separator: " ")).text
    }

    func waitUntilGivenBack(_ lab: Lab, _ homes: [String]) throws {
        try lab.wait("\(homes) are given back") {
            try ims(lab, "enrolled").split(separator: "\n").allSatisfy { line in !homes.contains { line.contains($0) } }
        }
    }

    /// A connection of the example program's, to who gives back each line.
    private final class Talk {
        let process: Background
        private let input: String
        private var lines = 0

        init(_ lab: Lab, _ program: String, _ family: String, _ peer: String) throws {
            input = "/run/\(lab.name)/talk\(family)"
            unlink(input)
            guard mkfifo(input, 0o600) == 0 else { throw Lab.Failure(description: "mkfifo \(input)") }
            let arguments = "\(family == "-6" ? "-6 " : "")-c \(lab.control("mn")) \(peer) 7009"
            process = try lab.start("mn", "/bin/bash", "-c", "exec 3<>\(input); exec \(program) \(arguments) <&3")
        }

        /// What it talks from, once it does.
        var home: String? { process.text.split(separator: "\n").first { $0.hasPrefix("from ") }.map { String($0.dropFirst(5)) } }

        func check(_ lab: Lab, _ when: String) throws {
            lines += 1
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: input))
            try handle.write(contentsOf: Data("line \(lines)\n".utf8))
            try handle.close()
            try lab.wait("line \(lines) comes back \(when)") { process.text.contains("line \(lines)\n") }
        }
    }

    @Test("A program's connection from a visited home goes by the short path, survives moves, and gives the address back at its end; both families")
    func visit() throws {
        let lab = try Lab.shared
        try lab.handOverWithoutOverlap("mn2", to: "cellular")
        try prepare(lab)
        let program = try example(lab)
        let server = try lab.start("mn2", "socat", "TCP6-LISTEN:7009,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        defer { server.terminate() }
        try lab.wait("the server listens") { try lab.shell("mn2", "ss -ltn").text.contains(":7009") }

        let began = Date()
        let talks = try Self.peers.map { family, peer in try Talk(lab, program, family, peer) }
        for talk in talks { try lab.wait("the program talks: \(talk.process.text)\n\(lab.log("mn").suffix(3000))") { talk.home != nil } }
        print("from asking to a connection, both families: \(String(format: "%.2f", Date().timeIntervalSince(began))) s")
        let homes = talks.compactMap(\.home)
        for (home, pool) in zip(homes, Self.pools) { #expect(try #require(IPPrefix(pool)).contains(try #require(IPAddress(home)))) }
        for talk in talks { try talk.check(lab, "at first") }
        let enrolled = try ims(lab, "enrolled")
        for home in homes { #expect(enrolled.contains(home), "\(enrolled)") }
        #expect(enrolled.contains("visit"), "\(enrolled)")
        // From end to end, at mn's own address, by no relay.
        let own = try addresses(lab).map { "\($0)" }
        for home in homes {
            try lab.wait("mn2 sends to \(home) where mn is") {
                try lab.peers("mn2").contains { peer in
                    peer["home"] as? String == home && peer["path"] as? String == "encapsulated"
                        && own.contains { (peer["locator"] as? String ?? "").contains($0) }
                }
            }
        }

        // A plain host is talked to as from any home address: under the host's own.
        for (home, plain) in zip(homes, ["203.0.113.200", "2001:db8:99::200"]) {
            let ping = try lab.on("mn", "ping", "-I", home, "-c", "3", "-i", "0.2", "-W", "2", plain)
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        }

        try lab.handOverWithoutOverlap("mn", to: "cellular")
        for talk in talks { try talk.check(lab, "after a move without overlap") }
        try lab.handOverWithOverlap("mn", to: "wlan")
        for talk in talks { try talk.check(lab, "after a move with overlap") }
        #expect(talks.compactMap(\.home) == homes && talks.allSatisfy(\.process.isRunning))

        // They say nothing before they end: their connections to the agent do.
        for talk in talks { talk.process.terminate() }
        try waitUntilGivenBack(lab, homes)
        for home in homes { try lab.wait("\(home) is gone from mn") { try !lab.shell("mn", "ip address show; ip rule").text.contains(home) } }
        #expect(lab.log("mn").contains("is given back"))
        // Its own home is as it was.
        let ping = try lab.on("mn", "ping", "-c", "2", "-i", "0.2", "-W", "2", "192.0.2.11")
        #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
    }

    @Test("A restart of matd while a program visits leaves nothing of the visited home, and the node goes on at its own; the program gets another")
    func restarted() throws {
        let lab = try Lab.shared
        try prepare(lab)
        let program = try example(lab)
        let server = try lab.start("mn2", "socat", "TCP6-LISTEN:7009,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        defer { server.terminate() }
        try lab.wait("the server listens") { try lab.shell("mn2", "ss -ltn").text.contains(":7009") }
        let talks = try Self.peers.map { family, peer in try Talk(lab, program, family, peer) }
        defer { for talk in talks { talk.process.terminate() } }
        for talk in talks { try lab.wait("the program talks: \(talk.process.text)") { talk.home != nil } }
        for talk in talks { try talk.check(lab, "before the restart") }
        let homes = talks.compactMap(\.home)
        let kernelState = "ip address show; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"
        try lab.lab("restart", "mn")
        try lab.wait("mn is registered in both families") { try lab.status("mn")["registered"] as? Bool == true }
        for home in homes {
            try lab.wait("\(home) is gone from mn") {
                try !lab.shell("mn", "\(kernelState); nft list ruleset").text.contains(home)
            }
        }
        for (family, peer) in Self.peers {
            let ping = try lab.on("mn", "ping", family, "-c", "2", "-i", "0.2", "-W", "2", peer)
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
        }
        // The same node is the same visitor.
        for talk in talks { talk.process.terminate() }
        for (talk, (family, peer)) in zip(talks, Self.peers) {
            let again = try Talk(lab, program, family, peer)
            defer { again.process.terminate() }
            try lab.wait("the program talks again: \(again.process.text)\n\(lab.log("mn").suffix(2000))") { again.home != nil }
            #expect(again.home == talk.home)
            try again.check(lab, "after the restart")
        }
        try waitUntilGivenBack(lab, homes)
    }

    // MARK: Programs that know nothing of it

    /// Talks over one connection of each family, as long as both go on.
    private static func talker(_ begin: String = "") -> String {
        let connections = peers.enumerated().map { "exec \($0 + 4)<>/dev/tcp/\($1.1)/7009" }.joined(separator: "; ")
        let exchange = peers.indices.map { "echo $n >&\($0 + 4); read -t 60 -u \($0 + 4) line || exit 1" }.joined(separator: "; ")
        return "\(begin)\(connections); n=0; while sleep 0.05; do n=$((n+1)); \(exchange); echo back $EPOCHREALTIME; done"
    }

    private func goesOn(_ lab: Lab, _ program: Background, _ when: String) throws {
        let before = program.text.utf8.count
        try lab.wait("it goes on \(when): \(program.text.suffix(100))\n\(lab.log("mn").suffix(3000))", seconds: 30) {
            program.text.utf8.count > before + 20
        }
    }

    /// The longest time between two lines of a talker.
    private func silence(_ program: Background, since start: Double) -> Double {
        let times = program.text.split(separator: "\n").compactMap { Double($0.dropFirst("back ".count)) }.filter { $0 > start - 1 }
        return zip(times, times.dropFirst()).map { $1 - $0 }.max() ?? 0
    }

    /// What mn2 sees connections of the program from.
    private func seen(_ lab: Lab) throws -> [IPAddress] {
        let pools = Self.pools.compactMap { IPPrefix($0) }
        return try lab.on("mn2", "ss", "-Htn", "state", "established", "sport = :7009").text.matches(of: /\[(?:::ffff:)?([0-9a-f.:]+)\]:\d+ *\n/)
            .compactMap { IPAddress(String($0.1)) }.filter { address in pools.contains { $0.contains(address) } }
    }

    @Test(
        "A program run by `mat run --via visited`, and one attached so, start from visited homes of both families, survive moves and the agent's being killed, and their end gives the addresses back"
    )
    func programs() throws {
        let lab = try Lab.shared
        try lab.handOverWithoutOverlap("mn2", to: "cellular")
        // Nobody else's sockets are captured.
        let file = "/run/\(lab.name)/mn/matd.yaml"
        try edit(file) { $0.replacingOccurrences(of: "traffic: everything", with: "traffic: nothing") }
        defer { try? edit(file) { $0.replacingOccurrences(of: "traffic: nothing", with: "traffic: everything") } }
        try prepare(lab)
        let server = try lab.start("mn2", "socat", "TCP6-LISTEN:7009,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        defer { server.terminate() }
        try lab.wait("the server listens") { try lab.shell("mn2", "ss -ltn").text.contains(":7009") }
        let control = ["--control", lab.control("mn")]
        func mat(_ words: String...) throws -> String { try lab.on("mn", "mat", arguments: words + control).text }

        let run = try lab.start(
            "mn", "/usr/bin/env", arguments: ["mat", "run"] + control + ["--via", "visited", "/bin/bash", "-c", Self.talker("echo $$; ")])
        defer { run.terminate() }
        let fifo = "/run/\(lab.name)/begin"
        let waiting = try lab.start(
            "mn", "/bin/bash", "-c", "rm -f \(fifo); mkfifo \(fifo); exec 3<>\(fifo); echo $$; \(Self.talker("read -u 3; "))")
        defer { waiting.terminate() }
        try goesOn(lab, run, "at first")
        let attached = try mat("attach", try #require(waiting.text.split(separator: "\n").first.map(String.init)), "--via", "visited")
        #expect(attached.contains("(visited)"), "\(attached)")
        _ = try lab.shell("mn", "echo >\(fifo)")
        try goesOn(lab, waiting, "once it is attached")
        let connections = try seen(lab)
        let homes = Set(connections.map { "\($0)" })
        #expect(homes.count == 2 && connections.count == 4, "\(connections)")
        let ps = try mat("ps")
        #expect(ps.contains("(visited):") && homes.allSatisfy { ps.contains($0) } && ps.contains("encapsulated, to"), "\(ps)")

        try lab.handOverWithoutOverlap("mn", to: "cellular")
        for program in [run, waiting] { try goesOn(lab, program, "after a move without overlap") }
        // From where it is now its homes are the same.
        let killed = Date().timeIntervalSince1970
        try lab.lab("stop", "mn", "KILL")
        try lab.lab("start", "mn")
        try lab.wait("mn is registered in both families") { try lab.status("mn")["registered"] as? Bool == true }
        for program in [run, waiting] { try goesOn(lab, program, "after the agent was killed") }
        print("the longest silence of a conversation over a kill of the agent: \(silence(run, since: killed)) s")
        try lab.handOverWithOverlap("mn", to: "wlan")
        for program in [run, waiting] { try goesOn(lab, program, "after a move with overlap") }
        let stillSeen = try Set(seen(lab).map { "\($0)" })
        #expect(stillSeen == homes)
        for plain in ["203.0.113.200", "2001:db8:99::200"] {
            let ping = ["--via", "visited", "ping", "-c", "2", "-i", "0.2", "-W", "2", plain]
            let again = try lab.on("mn", "mat", arguments: ["run"] + control + ping)
            #expect(again.text.contains(" 0% packet loss"), "\(again.text)")
        }
        run.terminate()
        _ = try run.wait(seconds: 10)
        try goesOn(lab, waiting, "when the other one has ended")
        let enrolled = try ims(lab, "enrolled")
        for home in homes { #expect(enrolled.contains(home), "\(enrolled)") }

        waiting.terminate()
        try waitUntilGivenBack(lab, homes.sorted())
        for home in homes {
            try lab.wait("\(home) is gone from mn") { try !lab.shell("mn", "ip address show; ip rule; ip -6 rule").text.contains(home) }
        }
        let rules = try lab.shell("mn", "ip rule; ip -6 rule").text
        #expect(!rules.contains("fwmark 0x62880"), "\(rules)")
    }

    @Test("Behind a NAT the network is that of the address outside; what began from its visited homes survives moves to other NATs and out")
    func translated() throws {
        let lab = try Lab.shared
        try lab.handOverWithoutOverlap("mn2", to: "cellular")
        try prepare(lab)
        let (outside, name) = ("198.19.1.2", "2.1.19.198.in-addr.arpa.")
        try edit("/run/\(lab.name)/resolver/unbound.conf") { text in
            text.contains(name) ? text : text + "server:\n  local-data: '\(name) \(try imsRecord(lab))'\n"
        }
        try readZones(lab)
        try lab.wait("the DNS says who serves \(outside)") { try named(lab, name) }
        let server = try lab.start("mn2", "socat", "TCP6-LISTEN:7009,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        defer { server.terminate() }
        try lab.wait("the server listens") { try lab.shell("mn2", "ss -ltn").text.contains(":7009") }
        try lab.lab("move", "mn", "home")
        defer { _ = try? lab.lab("move", "mn", "wlan") }
        func isRegistered() throws -> Bool {
            (try lab.status("mn")["homes"] as? [[String: Any]] ?? []).contains {
                $0["state"] as? String == "registered" && $0["address"] as? String == "192.0.2.10"
            }
        }
        try lab.wait("mn is registered, and knows where it is seen") {
            try isRegistered() && lab.on("mn", "mat", "status", "--control", lab.control("mn")).text.contains(outside)
        }
        let control = ["--control", lab.control("mn")]
        let run = try lab.start("mn", "/usr/bin/env", arguments: ["mat", "run"] + control + ["--via", "visited", "/bin/bash", "-c", Self.talker()])
        defer { run.terminate() }
        try goesOn(lab, run, "behind the NAT")
        let homes = Set(try seen(lab).map { "\($0)" })
        #expect(homes.count == 2, "\(homes)")
        try lab.wait("mn2 sends to where the NAT is: \(try lab.peers("mn2"))") {
            let peers = try lab.peers("mn2").filter { homes.contains($0["home"] as? String ?? "") }
            return peers.count == 2 && peers.allSatisfy { ($0["locator"] as? String ?? "").contains(outside) }
        }
        for network in ["carrier", "home2", "cellular"] {
            try lab.lab("move", "mn", network)
            try goesOn(lab, run, "in \(network)")
        }
        let stillSeen = try Set(seen(lab).map { "\($0)" })
        #expect(stillSeen == homes)
        run.terminate()
        try waitUntilGivenBack(lab, homes.sorted())
    }

    @Test("A home that can't be verified, and one that is not taken in, get no address; both logs say why")
    func refused() throws {
        let lab = try Lab.shared
        try prepare(lab, homes: "10.0.0.0/8")
        let program = try example(lab)
        func ask() throws -> String { try lab.shell("mn", "\(program) -c \(lab.control("mn")) </dev/null").text }
        let unwanted = try ask()
        #expect(unwanted.contains("no visited home") && unwanted.contains("who are at home in 10.0.0.0/8"), "\(unwanted)")
        try prepare(lab)
        // The home's zone says nothing of an IMS any more.
        let zone = "/run/\(lab.name)/ns/zones/2.0.192.in-addr.arpa"
        let whole = try String(contentsOfFile: zone, encoding: .utf8)
        defer {
            try? whole.write(toFile: zone, atomically: true, encoding: .utf8)
            try? readZones(lab)
        }
        let words = [" TYPE65400 ", " SRV ", " TXT "]
        try edit(zone) { text in
            text.split(separator: "\n").filter { line in !words.contains { line.contains($0) } }.joined(separator: "\n") + "\n"
        }
        try readZones(lab)
        try lab.wait("the DNS says nothing of mn's home") { try !named(lab, "10.2.0.192.in-addr.arpa.") }
        // What it knew of the home's keys.
        try lab.lab("restart", "ims2")
        let unknown = try ask()
        #expect(unknown.contains("can't be verified: the DNS lists no IMS for it"), "\(unknown)")
        for log in [lab.log("ims2", "imsd"), lab.log("mn")] { #expect(log.contains("the home 192.0.2.10 can't be verified"), "\(log.suffix(2000))") }
        #expect(try !ims(lab, "enrolled").contains("visit"))
    }
}

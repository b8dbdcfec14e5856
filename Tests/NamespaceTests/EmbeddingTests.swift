import Foundation
import MATSignal
import Testing

/// Programs of another package (Examples), which use what MATClient and MATSignal give to everybody.
extension VisitedHomeTests {
    @Test(
        "Programs of another package find a node from a host without an agent, see it move as soon as it does, and talk from a visited home while their host moves",
        arguments: [("192.0.2.10", "192.0.2.11"), ("2001:db8:10::10", "2001:db8:10::11")])
    func embedded(home: String, peer: String) throws {
        let lab = try Lab.shared
        try lab.handOverWithoutOverlap("mn2", to: "cellular")
        try prepare(lab)
        let family = try #require(IPAddress(home)).family
        let examples = ["lookup", "watch", "visit"].map { "\(lab.binaries)/example-\($0)" }
        func own() throws -> String { "\(try #require(try addresses(lab).first { $0.family == family }))" }

        let before = try own()
        let found = try lab.on("plain", examples[0], home)
        #expect(found.status == 0 && found.text.contains("\(home) is at \(before)\n"), "\(found.text)")
        let plain = try lab.on("plain", examples[0], family == .ipv4 ? "203.0.113.200" : "2001:db8:99::200")
        #expect(plain.text.contains("is a plain address"), "\(plain.text)")
        let unknown = try lab.on("plain", examples[0], family == .ipv4 ? "192.0.2.99" : "2001:db8:10::99")
        #expect(unknown.text.contains("is not registered"), "\(unknown.text)")

        let watch = try lab.start("plain", examples[1], home)
        defer { watch.terminate() }
        try lab.wait("the watch tells where \(home) is: \(watch.text)") { watch.text.contains("\(home) is at \(before)\n") }

        let server = try lab.start("mn2", "socat", "TCP6-LISTEN:7010,ipv6only=0,reuseaddr,fork", "EXEC:cat")
        defer { server.terminate() }
        try lab.wait("the server listens") { try lab.shell("mn2", "ss -ltn").text.contains(":7010") }
        let input = "/run/\(lab.name)/embedded"
        unlink(input)
        guard mkfifo(input, 0o600) == 0 else { throw Lab.Failure(description: "mkfifo \(input)") }
        let visit = try lab.start("mn", "/bin/bash", "-c", "exec 3<>\(input); exec \(examples[2]) \(peer) 7010 \(lab.control("mn")) <&3")
        defer { visit.terminate() }
        func say(_ line: String) throws {
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: input))
            try handle.write(contentsOf: Data("\(line)\n".utf8))
            try handle.close()
            try lab.wait("\(line) comes back: \(visit.text)") { visit.text.contains("\(line)\n") }
        }
        try say("before the move")
        let visited = try #require(visit.text.split(separator: "\n").first { $0.hasPrefix("from ") }.map { String($0.dropFirst(5)) })
        let (pool, lent) = (try #require(IPPrefix(family == .ipv4 ? Self.pools[0] : Self.pools[1])), try #require(IPAddress(visited)))
        #expect(pool.contains(lent))

        let moved = Date()
        try lab.handOverWithoutOverlap("mn", to: "cellular")
        let there = (try lab.status("mn")["locators"] as? [[String: Any]] ?? []).compactMap { $0["address"] as? String }
        // It is pushed: without a subscription it would be seen within 30 s.
        try lab.wait("the watch sees the move to \(there): \(watch.text)", seconds: 10) {
            watch.text.split(separator: "\n").last.map { line in there.contains { line.hasSuffix(" \($0)") || line.contains(" \($0),") } } ?? false
        }
        print(
            "a move without overlap, seen by a watch on a plain host: \(String(format: "%.1f", Date().timeIntervalSince(moved))) s after its beginning"
        )
        try say("after the move")

        try lab.handOverWithOverlap("mn", to: "wlan")
        visit.terminate()
        try waitUntilGivenBack(lab, [visited])
    }

    @Test("A program of another package reads what is on the wire, and says what is none of it")
    func decoded() throws {
        let lab = try Lab.shared
        let cookie = Cookie(client: 7)
        let query = SignalMessage(sequence: 5, .maQuery(MAQuery(cookie: cookie, hoa: HomeAddress(IPAddress(ipv4: 0xC000_020A)))))
        let line = query.octets.map { String(format: "%02x", $0) }.joined()
        let read = try lab.shell("mn", "printf '\(line)\\n\(line.dropLast(8))\\n' | \(lab.binaries)/example-decode")
        let lines = read.text.split(separator: "\n")
        #expect(lines.count == 2, "\(read.text)")
        #expect(
            lines.first?.contains("MA Query, 40 octets, sequence number 5") == true && lines.first?.contains("192.0.2.10") == true, "\(read.text)")
        #expect(lines.last?.hasPrefix("no message: ") == true, "\(read.text)")
    }
}

import Foundation
import Testing

/// The ways in which two nodes move (NTMobile's table 1, and others): `deploy/lab patterns` goes through them with TCP and UDP in both directions
/// and paths of 40 ms, and what it says is judged here. Each walk is a conversation that lasts for all of its patterns.
///
/// Times are not judged but for a bound that also a busy machine keeps; docs/paths.md has those of a quiet one.
@Suite("Patterns of movement in network namespaces", .serialized, .lab("pattern"))
struct PatternTests {
    /// From the new address until packets arrive, at the most.
    static let milliseconds = 5000.0

    private struct Outcome: Decodable {
        var id: String
        var after: [String?]
        var toPeer: Double?
        var toMover: Double?
        var lostToPeer: Int
        var lostToMover: Int
        var problems: [String]
    }

    private func outcomes(_ arguments: [String]) throws -> [Outcome] {
        let lab = try Lab.shared
        let file = "/tmp/\(lab.name)-patterns.json"
        defer { unlink(file) }
        let text = try lab.tool(["patterns"] + arguments + ["--json", file], seconds: 170)
        // Times in round trips and milliseconds, for who compares machines.
        print(text)
        let data = try #require(FileManager.default.contents(atPath: file), "\(text)")
        return try JSONDecoder().decode([Outcome].self, from: data)
    }

    @Test(
        "TCP and UDP go on in both directions, lose no octet, and end up on the path that docs/paths.md says",
        arguments: [
            ["server"], ["nodes"], ["both"], ["site"], ["edm"], ["failures"], ["ipv6", "ipv6-nodes"], ["families", "families6"], ["clocks"],
            ["plain"], ["instances"],
        ])
    func walk(_ names: [String]) throws {
        let expected = try Self.documented()
        let outcomes = try outcomes(["--only"] + names)
        #expect(!outcomes.isEmpty)
        for outcome in outcomes {
            #expect(outcome.problems.isEmpty, "\(outcome.id)")
            #expect((outcome.toPeer ?? .infinity) < Self.milliseconds && (outcome.toMover ?? .infinity) < Self.milliseconds, "\(outcome.id)")
            let path = try #require(expected[outcome.id], "docs/paths.md has no pattern \(outcome.id)")
            #expect(outcome.after.allSatisfy { $0 == path }, "\(outcome.id): \(outcome.after) instead of \(path)")
        }
    }

    /// The old network may go a moment after the peer has acked, and a machine that is busy with other things may drop some by itself: what lost any is
    /// gone through again, twice at most. What these are about loses 30 to 60 each time where it fails.
    @Test(
        """
        With overlap no packet is lost: also where only a relay leads to the peer, where a firewall drops what it has not seen beginning, and \
        where the new network lacks the home address's family
        """,
        arguments: [
            ["1", "3", "5", "9", "14", "both-gg", "16"], ["15b"], ["6-fw"], ["v6-only", "p-v6-only"], ["6-v4-only", "6-v4-only-g"], ["6-p", "6-p-g"],
        ])
    func overlap(_ patterns: [String]) throws {
        var left = patterns
        var lost: [String: [Int]] = [:]
        for _ in 1...3 where !left.isEmpty {
            let outcomes = try outcomes(["--overlap", "--only"] + left)
            for pattern in left {
                let outcome = try #require(outcomes.first { $0.id == pattern })
                let problems = outcome.problems.filter { !$0.hasSuffix("in spite of the overlap") }
                #expect(problems.isEmpty, "\(pattern)")
                lost[pattern, default: []].append(outcome.lostToPeer + outcome.lostToMover)
            }
            left.removeAll { lost[$0]?.last == 0 }
        }
        #expect(left.isEmpty, "lost in each run: \(lost)")
    }

    @Test(
        "Who comes back from a network that is known to be filtered, with overlap or without, is rewritten to again, also in a stream in one direction",
        arguments: [[], ["--speakers", "mover"], ["--speakers", "peer"]])
    func filteredBefore(speakers: [String]) throws {
        let outcomes = try outcomes(["--both"] + speakers + ["--only", "6-1", "6-fw", "6-fw-g"])
        #expect(outcomes.count == 6)
        for outcome in outcomes {
            let problems = outcome.problems.filter { !$0.hasSuffix("in spite of the overlap") }
            #expect(problems.isEmpty, "\(outcome.id)")
        }
    }

    @Test("Ten times from NAT to NAT, to a node behind another: ssh, TCP and 50 packets a second go on, and nothing stays on a relay")
    func switches() throws {
        struct Report: Decodable {
            var switches: Int
            var longestMilliseconds: Double
            var problems: [String]
        }
        let lab = try Lab.shared
        let file = "/tmp/\(lab.name)-switches.json"
        defer { unlink(file) }
        let text = try lab.tool(["switches", "--count", "10", "--json", file], seconds: 120)
        let report = try JSONDecoder().decode(Report.self, from: #require(FileManager.default.contents(atPath: file), "\(text)"))
        #expect(report.switches == 10 && report.problems.isEmpty, "\(text)")
        #expect(report.longestMilliseconds < Self.milliseconds, "\(text)")
    }

    /// The path after each pattern, of the table in docs/paths.md.
    private static func documented() throws -> [String: String] {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("docs/paths.md"), encoding: .utf8)
        return text.split(separator: "\n").reduce(into: [:]) { paths, line in
            let columns = line.split(separator: "|", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
            if line.hasPrefix("| "), columns.count > 6 { paths[columns[1]] = columns[5] }
        }
    }
}

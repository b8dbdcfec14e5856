import ArgumentParser
import FoundationEssentials
import Glibc
import MATLab
import MATPatterns

/// The ways in which two nodes move, one after the other.
struct Patterns: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Go through the ways in which nodes move, with TCP and UDP both ways, and say how long each took.",
        discussion: """
            In the lab that stands; else one is built for it and taken down. Paths through the router take 40 ms there and back meanwhile. Times are \
            from the new address, by the kernel's word, until packets arrive that were sent since. The exit status is 2 if something did not hold.
            """)

    @ParentCommand var root: MatLab
    @Option(parsing: .upToNextOption, help: ArgumentHelp("Only these walks or patterns, by name.", valueName: "name")) var only: [String] = []
    @Flag(help: "List the walks and patterns.") var list = false
    @Flag(help: "The new network comes before the old one goes: nothing may be lost.") var overlap = false
    @Flag(help: "Both without and with overlap.") var both = false
    @Option(help: "Who sends datagrams: both with a TCP connection beside them, or one of \"mover\" and \"peer\" to one that says nothing.")
    var speakers = Conversation.Speakers.both
    @Option(help: ArgumentHelp("Write all results into this file, as JSON.", valueName: "file")) var json: String?
    @Option(help: ArgumentHelp("Write the table into this file, as Markdown.", valueName: "file")) var markdown: String?

    func run() throws {
        if list {
            for walk in Walk.all {
                print("\(walk.name): \(walk.summary)")
                for pattern in walk.patterns { print("    \(pattern.id)\t\(pattern.title)\t\(pattern.expected.rawValue)") }
            }
            return
        }
        Interruption.watch()
        try complaining {
            let names = Set(only)
            let known = Set(Walk.all.flatMap { [$0.name] + $0.patterns.map(\.id) })
            if let unknown = names.subtracting(known).sorted().first { throw LabError("no walk or pattern \"\(unknown)\"; --list names them") }
            let lab = try root.lab(needsPrograms: true)
            let wasThere = lab.stands
            if !wasThere { try lab.up(startsDaemons: true) }
            defer { if !wasThere { lab.down() } }
            let paths = LongPaths(lab: lab)
            try paths.delay(milliseconds: PatternRun.roundTripMilliseconds / 2)
            defer { if wasThere { try? paths.undelay() } }
            let results = try self.results(lab, names)
            if let json { try Self.write(json, JSONEncoder().encode(results)) }
            if let markdown { try Self.write(markdown, Data(PatternResult.table(results).utf8)) }
            let failed = results.filter { !$0.held }
            print(
                "\(results.count) patterns, \(failed.count) of them did not hold"
                    + (failed.isEmpty ? "" : ": " + failed.map(\.id).joined(separator: " ")))
            if !failed.isEmpty { throw ExitCode(2) }
        }
    }

    private func results(_ lab: Lab, _ names: Set<String>) throws -> [PatternResult] {
        var results: [PatternResult] = []
        var number = 0
        for withOverlap in both ? [false, true] : [overlap] {
            let run = PatternRun(lab: lab, withOverlap: withOverlap, speakers: speakers) { tell($0.line) }
            for var walk in Walk.all {
                number += 1
                if !names.isEmpty, !names.contains(walk.name) { walk.patterns = walk.patterns.filter { names.contains($0.id) } }
                if withOverlap { walk.patterns = walk.patterns.filter(\.isMove) }
                results += try run.run(walk, number: number)
            }
        }
        return results
    }

    private static func write(_ path: String, _ data: Data) throws {
        do { try data.write(to: URL(fileURLWithPath: path)) } catch { throw LabError("\(path) can't be written: \(error)") }
    }
}

extension Conversation.Speakers: ExpressibleByArgument {}

/// At once, also into a pipe: who waits wants to see it.
private func tell(_ line: String) { _ = "\(line)\n".withCString { Glibc.write(1, $0, strlen($0)) } }

/// One node, from translator to translator, again and again.
struct Switch: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switches",
        abstract: "Take mn from NAT to NAT many times, under ssh and a stream of 50 packets a second to mn2 behind another NAT.",
        discussion: "In the lab that stands; else one is built for it and taken down. The exit status is 2 if something ended or came to a halt.")

    @ParentCommand var root: MatLab
    @Option(help: "How often.") var count = 100
    @Flag(help: "The next network comes before the one in use goes; then no packet may be lost.") var overlap = false
    @Option(help: ArgumentHelp("Write the figures into this file, as JSON.", valueName: "file")) var json: String?

    func run() throws {
        Interruption.watch()
        try complaining {
            guard (1...10_000).contains(count) else { throw LabError("--count goes from 1 to 10000") }
            let lab = try root.lab(needsPrograms: true)
            let wasThere = lab.stands
            if !wasThere { try lab.up(startsDaemons: true) }
            defer { if !wasThere { lab.down() } }
            let report = try Switches(lab: lab, withOverlap: overlap).run(count: count, say: tell)
            if let json {
                do { try JSONEncoder().encode(report).write(to: URL(fileURLWithPath: json)) } catch {
                    throw LabError("\(json) can't be written: \(error)")
                }
            }
            func whole(_ value: Double) -> String { "\(Int(value.rounded())) ms" }
            print(
                """
                \(report.switches) of \(count) switches; goes on after \(whole(report.medianMilliseconds)) (median), \(whole(report.longestMilliseconds)) at most, from the new address
                longest gap \(whole(report.longestGapMilliseconds))\(overlap ? "" : ", without any network included"); lost \(report.lost) of \(report.sent) packets; ssh brought \(report.lines) lines
                """)
            for problem in report.problems { print("FAILED: \(problem)") }
            if !report.problems.isEmpty || report.switches < count { throw ExitCode(2) }
        }
    }
}

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
            let run = PatternRun(lab: lab, withOverlap: withOverlap) { Self.tell($0.line) }
            for var walk in Walk.all {
                number += 1
                if !names.isEmpty, !names.contains(walk.name) { walk.patterns = walk.patterns.filter { names.contains($0.id) } }
                if withOverlap { walk.patterns = walk.patterns.filter(\.isMove) }
                results += try run.run(walk, number: number)
            }
        }
        return results
    }

    /// At once, also into a pipe: who waits wants to see it.
    private static func tell(_ line: String) { _ = "\(line)\n".withCString { Glibc.write(1, $0, strlen($0)) } }

    private static func write(_ path: String, _ data: Data) throws {
        do { try data.write(to: URL(fileURLWithPath: path)) } catch { throw LabError("\(path) can't be written: \(error)") }
    }
}

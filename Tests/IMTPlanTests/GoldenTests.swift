import Foundation
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// What the plan says, in the octets that the kernel gets. The files in `Golden` were written by the code as it was before the plan was a
/// module of its own. Each message stands under the nft or ip command that it stands for (the kernel's own list of what it had made of it),
/// in hexadecimal digits, with sequence number 0; `= n` is message n of `nft-add-table.a-peer-of-each-family`.
///
/// A change of the rules is meant to show here. After one that `EveryPacketTests` allows, MAT_GOLDEN=write writes the octets anew; the
/// commands above them are for whoever reviews the change to correct.
@Suite("Golden octets") struct GoldenTests {
    private static let base = "nft-add-table.a-peer-of-each-family"

    @Test("A ruleset and its changes have the octets of the nft commands", arguments: GoldenScenario.all)
    func rulesets(_ scenario: GoldenScenario) throws {
        var plan = TranslationPlan(scenario.configuration)
        plan.needs = scenario.needs
        let model = try scenario.model()
        var batch = NFTBatch(firstSequence: 0)
        if let changes = scenario.changes {
            let touched = TouchedKeys(changes)
            var changed = model
            try changed.apply(changes)
            for table in plan.families {
                let sets = changed.differences(from: model, family: table.family, touched: touched)
                batch.append(plan.changes(from: model, to: changed, sets, of: table, saying: changes))
            }
        } else {
            for change in plan.installation(of: model, replacing: [], flags: TableProtection.none.flags) { batch.append(change) }
        }
        try compare(Self.messages(batch.seal().bytes), with: scenario.name)
    }

    @Test("Routes and rules have the octets of the ip commands", arguments: GoldenRoutes.all)
    func routes(_ golden: GoldenRoutes) throws {
        var writer = NetlinkWriter(firstSequence: 0)
        for change in golden.changes { RouteSocket.append(change, to: &writer) }
        try compare(Self.messages(Array(writer.bytes)), with: golden.name)
    }

    // MARK: Files

    private func compare(_ messages: [[UInt8]], with name: String) throws {
        let lines = try Self.file(name).split(separator: "\n")
        let base = try name == Self.base ? [] : Self.file(Self.base).split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
        let commands = lines.filter { $0.hasPrefix("#") }
        let expected = lines.filter { !$0.hasPrefix("#") }.map { $0.hasPrefix("= ") ? Int($0.dropFirst(2)).map { base[$0] } ?? "" : String($0) }
        let found = messages.map { $0.map { String(format: "%02x", $0) }.joined() }
        if ProcessInfo.processInfo.environment["MAT_GOLDEN"] == "write" { return try write(found, commands.map(String.init), base, name) }
        #expect(found.count == expected.count)
        for (index, (octets, wanted)) in zip(found, expected).enumerated() where octets != wanted {
            Issue.record("message \(index), \(commands[index]):\nis     \(octets)\nshould \(wanted)")
        }
    }

    private func write(_ found: [String], _ commands: [String], _ base: [String], _ name: String) throws {
        let text = found.enumerated().map { index, octets in
            (commands.indices.contains(index) ? commands[index] : "# ?") + "\n" + (base.firstIndex(of: octets).map { "= \($0)" } ?? octets) + "\n"
        }
        let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Golden/\(name).hex")
        try text.joined().write(to: path, atomically: true, encoding: .utf8)
    }

    private static func file(_ name: String) throws -> String {
        let url = try #require(Bundle.module.url(forResource: name, withExtension: "hex", subdirectory: "Golden"))
        return try String(contentsOf: url, encoding: .utf8)
    }

    /// One by one, with sequence number 0.
    private static func messages(_ octets: [UInt8]) -> [[UInt8]] {
        var rest = octets[...]
        var result: [[UInt8]] = []
        while rest.count >= 16 {
            let length = rest.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
            var message = Array(rest.prefix(length))
            message.replaceSubrange(8..<12, with: [0, 0, 0, 0])
            result.append(message)
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return result
    }
}

extension GoldenScenario: CustomTestStringConvertible { var testDescription: String { name } }
extension GoldenRoutes: CustomTestStringConvertible { var testDescription: String { name } }

import Foundation
import IMS
import MATNode
import MATRelay
import Testing

/// The example configurations say that what is commented out shows the default.
@Suite("Example configurations")
struct ExampleTests {
    /// An example file's text, and the same with all settings uncommented but these keys and what is below them.
    private func texts(_ name: String, without examples: Set<String>) throws -> (asItIs: String, whole: String) {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("deploy/config/\(name).yaml.example"), encoding: .utf8)
        var skippedIndent: Int?
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> Substring in
            guard let match = line.wholeMatch(of: /(?<indent> *)#(?<more> *)(?<item>(?:- )?)(?<key>[a-z-]+):(?<value>.*)/) else {
                if !line.trimmingCharacters(in: .whitespaces).hasPrefix("#") { skippedIndent = nil }
                return line
            }
            // Sentences, and keys within a section that is commented out, have a blank behind the `#`.
            let indent = match.indent.count + match.more.count
            if let skipped = skippedIndent, indent > skipped { return line }
            if examples.contains(String(match.key)) {
                skippedIndent = indent
                return line
            }
            skippedIndent = nil
            return match.more.count % 2 == 0 ? "\(match.indent)\(match.more)\(match.item)\(match.key):\(match.value)" : line
        }
        return (text, lines.joined(separator: "\n"))
    }

    @Test("What matd.yaml.example shows commented out is the default")
    func matd() throws {
        let (asItIs, whole) = try texts("matd", without: ["control-group", "peers", "mtu", "metrics"])
        #expect(whole.contains("\n  hold-down-max: 5m") && whole.contains("\nrouted: []") && whole.contains("\nrouting-rules: first"))
        let expected = try NodeConfiguration(parsing: asItIs, file: "as it is")
        #expect("\(try NodeConfiguration(parsing: whole, file: "whole"))" == "\(expected)")
    }

    @Test("What imsd.yaml.example shows commented out is the default, where that is not the number of processors or of other things")
    func imsd() throws {
        let (asItIs, whole) = try texts(
            "imsd",
            without: [
                "control-group", "etcd", "metrics", "view", "threads", "visitors", "verifiers", "stranger-messages-per-second",
                "inquiries-per-second",
                "radius", "accounts-file", "joins-per-second",
            ])
        #expect(whole.contains("\n  stranger-verifications-per-second: 500") && whole.contains("\ndrain: 2s"))
        // A prefix's quota of mappings has the name of the table's bound.
        let quota = "    mappings: 1000\n"
        #expect(whole.contains(quota))
        let expected = try IMSConfiguration(parsing: asItIs, file: "as it is")
        #expect("\(try IMSConfiguration(parsing: whole.replacing(quota, with: ""), file: "whole"))" == "\(expected)")
    }

    @Test("What mat-relay.yaml.example shows commented out is the default, where that is not the number of processors or half of another")
    func relay() throws {
        let (asItIs, whole) = try texts(
            "mat-relay", without: ["gateway", "metrics", "view", "threads", "state", "month", "visitors-rate", "visitor-bindings"])
        #expect(whole.contains("\n  rate: 20Mbit") && whole.contains("\ndrain: 0s") && whole.contains("\n    refuse-visitors: false"))
        let expected = try RelayConfiguration(parsing: asItIs, file: "as it is")
        #expect("\(try RelayConfiguration(parsing: whole, file: "whole"))" == "\(expected)")
    }
}

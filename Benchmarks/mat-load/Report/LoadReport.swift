import BenchSupport
import Foundation
import MATSignal

/// What a run found: for people as lines, for programs as JSON.
struct LoadReport: Codable {
    struct Part: Codable {
        var name: String
        var seconds: Double
        var sent: UInt64
        var answered: UInt64
        /// Answers with code 0, and how many of them a second.
        var ok: UInt64
        var perSecond: Double
        /// Final answers by what their code means.
        var codes: [String: UInt64]
        /// Answers that were followed: cookies wanted, "try later".
        var interim: [String: UInt64]
        var unanswered: UInt64
        var resent: UInt64
        var microseconds: LatencySummary
        /// Figures that only this part has.
        var more: [String: Double] = [:]
    }

    var command: String
    var parameters: [String: String]
    var parts: [Part] = []

    mutating func add(_ name: String, _ tally: Tally, seconds: Double, more: [String: Double] = [:]) {
        parts.append(
            Part(
                name: name, seconds: seconds, sent: tally.sent, answered: tally.answered, ok: tally.ok,
                perSecond: seconds > 0 ? Double(tally.ok) / seconds : 0, codes: Self.named(tally.codes), interim: Self.named(tally.interim),
                unanswered: tally.unanswered, resent: tally.resent, microseconds: LatencySummary(tally.latency), more: more))
    }

    private static func named(_ codes: [UInt64]) -> [String: UInt64] {
        var result: [String: UInt64] = [:]
        for (code, count) in codes.enumerated() where count > 0 {
            result[ResponseCode(rawValue: UInt8(truncatingIfNeeded: code)).description] = count
        }
        return result
    }

    var lines: [String] {
        var table = TextTable(["", "sent", "ok", "ok/s", "unanswered", "resent", "p50 us", "p90", "p99", "p99.9", "max"])
        var more: [String] = []
        for part in parts {
            let times = part.microseconds
            table.rows.append(
                [
                    part.name, "\(part.sent)", "\(part.ok)", number(part.perSecond, 0), "\(part.unanswered)", "\(part.resent)",
                ] + [times.p50, times.p90, times.p99, times.p999, times.max].map { number($0, 1) })
            let codes = part.codes.merging(part.interim.map { ("\($0.key), followed", $0.value) }) { $0 + $1 }
            more.append(
                "\(part.name): "
                    + (codes.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
                    + part.more.sorted { $0.key < $1.key }.map { "\($0.key) \(number($0.value, 1))" })
                    .joined(separator: ", "))
        }
        return table.lines + more
    }

    /// Prints the lines, or writes JSON; "-" is standard output.
    func publish(json: String?) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        if json != "-" { for line in lines { print(line) } }
        guard let json else { return }
        let text = String(decoding: try encoder.encode(self), as: UTF8.self)
        if json == "-" { print(text) } else { try (text + "\n").write(toFile: json, atomically: true, encoding: .utf8) }
    }
}

import BenchSupport
import Foundation

/// The tables, as text for people and as Markdown for the documentation.
extension BenchReport {
    private static let heads = [
        "", "UDP kp/s", "of plain", "+-", "ns/packet", "+ns", "of plain", "RTT us", "p99", "+ns/host", "TCP Gb/s", "of plain", "+-",
    ]

    private func cells(_ row: Row) -> [String] {
        func median(_ figure: Figure, _ scale: Double, _ digits: Int) -> String {
            number(row.figures[figure.rawValue]?.median, scale, digits)
        }
        func spread(_ figure: Figure) -> String { percent(row.figures[figure.rawValue]?.spread) }
        func ratio(_ figure: Figure) -> String { number(row.ofPlain[figure.rawValue], 1, 3) }
        func more(_ figure: Figure) -> String {
            row.variant == "plain" ? "-" : number(row.moreThanPlain[figure.rawValue], 1, 0)
        }
        return [
            median(.packets, 1e-3, 1), ratio(.packets), spread(.packets), median(.processor, 1, 0), more(.processor), ratio(.processor),
            median(.roundTrip, 1e-3, 2), median(.roundTrip99, 1e-3, 2), more(.roundTrip), median(.stream, 1e-9, 2), ratio(.stream),
            spread(.stream),
        ]
    }

    private func name(_ row: Row) -> String {
        var text = "\(row.variant) \(row.family)"
        if row.peers > 0 { text += " \(row.peers)" }
        switch row.pattern {
        case .pair: break
        case .out: text += " out"
        case .into: text += " in"
        }
        return row.isBefore == true ? text + ", before" : text
    }

    // MARK: For a terminal

    func lines() -> [String] {
        var table = TextTable(Self.heads)
        var failed: [String] = []
        for row in rows {
            if let failure = row.failure { failed.append("\(name(row)): \(failure)") }
            if row.failure == nil || !row.figures.isEmpty { table.rows.append([name(row)] + cells(row)) }
        }
        var all = rows.isEmpty ? [] : table.lines
        all += failed.map { "not measured, or not in every round: \($0)" }
        if isNoisy {
            all.append(
                "Others used the processor: plain's rounds lie more than \(Int(Self.noiseMax * 100)) % apart (+-). ns/packet is the thread's "
                    + "own processor time and suffers least.")
        }
        if !changes.isEmpty {
            all.append("")
            var table = TextTable(["", "peers", "median", "", "least", "most"])
            table.rows = changes.map {
                [$0.name, "\($0.peers)", amount($0.median), $0.unit, amount($0.values.min() ?? 0), amount($0.values.max() ?? 0)]
            }
            all += table.lines
        }
        return all
    }

    // MARK: For the documentation

    func markdown() -> String {
        var text = "\(Machine.line(machine)). Medians of \(rounds) interleaved rounds, \(number(seconds, 1, 2)) s each.\n"
        if isNoisy { text += "Others used the processor meanwhile: see the columns +-.\n" }
        for (family, title) in [("v4", "IPv4"), ("v6", "IPv6")] {
            let chosen = rows.filter { $0.family == family }
            guard !chosen.isEmpty else { continue }
            text += "\n**\(title)**\n\n| variant | peers | " + Self.heads.dropFirst().joined(separator: " | ") + " |\n"
            text += "|---|--:|" + String(repeating: "--:|", count: Self.heads.count - 1) + "\n"
            for row in chosen {
                let peers = row.peers > 0 ? "\(row.peers)" : ""
                let pattern = row.pattern == .pair ? "" : row.pattern == .out ? ", to all of them" : ", from all of them"
                text += "| \(row.title)\(pattern)\(row.isBefore == true ? ", before" : "") | \(peers) | "
                text += row.figures.isEmpty ? "\(row.failure ?? "")" : cells(row).joined(separator: " | ")
                text += " |\n"
            }
        }
        guard !changes.isEmpty else { return text }
        text += "\n| changes and memory | peers | median | unit |\n|---|--:|--:|---|\n"
        for change in changes { text += "| \(change.name) | \(change.peers) | \(amount(change.median)) | \(change.unit) |\n" }
        return text
    }

    private func number(_ value: Double?, _ scale: Double, _ digits: Int) -> String {
        value.map { String(format: "%.\(digits)f", $0 * scale) } ?? "-"
    }
    private func percent(_ value: Double?) -> String { value.map { String(format: "%.1f%%", $0 * 100) } ?? "-" }
    private func amount(_ value: Double) -> String { String(format: abs(value) >= 100 ? "%.0f" : "%.2f", value) }
}

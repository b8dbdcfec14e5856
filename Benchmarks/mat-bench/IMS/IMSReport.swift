import BenchSupport
import Foundation

/// Everything that one run found, as JSON and as the table of docs/ims-benchmarks.md.
struct IMSReport: Codable {
    var machine: [String: String]
    var plan: IMSPlan
    var figures: IMSFigures

    init(figures: IMSFigures, plan: IMSPlan, host: IMSHost) {
        self.figures = figures
        self.plan = plan
        machine = Machine.facts()
        machine["server on core"] = "\(host.serverCore)"
        machine["load on core"] = "\(host.loadCore)"
    }

    private var table: TextTable {
        var table = TextTable(["", "median", "unit", "least", "most", "goal", ""])
        var group = ""
        for figure in figures.all {
            if figure.group != group {
                group = figure.group
                table.rows.append(["\(group):", "", "", "", "", "", ""])
            }
            table.rows.append([
                figure.name, amount(figure.median), figure.unit, amount(figure.values.min() ?? 0), amount(figure.values.max() ?? 0),
                figure.goal ?? "", figure.isMet.map { $0 ? "met" : "MISSED" } ?? "",
            ])
        }
        return table
    }

    private var head: String {
        "\(Machine.line(machine)). Medians of \(plan.runs) interleaved rounds of \(number(plan.seconds, 1)) s; \(plan.mappings) mappings."
    }

    var lines: [String] {
        [head] + table.lines + figures.failures.sorted { $0.key < $1.key }.map { "not measured: \($0.key): \($0.value)" }
    }

    var markdown: String {
        head + "\n\n" + table.markdown + figures.failures.sorted { $0.key < $1.key }.map { "\nNot measured: \($0.key): \($0.value)\n" }.joined()
    }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
    }

    private func amount(_ value: Double) -> String { number(value, abs(value) >= 1000 ? 0 : abs(value) >= 10 ? 1 : 3) }
}

import Foundation

/// The table that people read.
struct TableReport {
    let samples: Samples

    func lines() -> [String] {
        var rows: [[String]] = [[
            "", "UDP kp/s", "of plain", "+-", "ns/packet", "+ns", "of plain", "RTT us", "p99", "+ns/host", "TCP Gb/s", "of plain", "+-",
        ]]
        for item in samples.cases {
            if let reason = samples.failures[item], samples.all(item, .packets).isEmpty {
                rows.append([item.name, "not measured: \(reason)"])
                continue
            }
            rows.append([
                item.name,
                number(samples.median(item, .packets), 1e-3, 1), number(samples.compared(item, .packets) { $0 / $1 }, 1, 3),
                percent(samples.spread(item, .packets)),
                number(samples.median(item, .processor), 1, 0), number(samples.compared(item, .processor) { $0 - $1 }, 1, 0),
                number(samples.compared(item, .processor) { $1 / $0 }, 1, 3),
                number(samples.median(item, .roundTrip), 1e-3, 2), number(samples.median(item, .roundTrip99), 1e-3, 2),
                number(samples.compared(item, .roundTrip) { ($0 - $1) / 2 }, 1, 0),
                number(samples.median(item, .stream), 1e-9, 2), number(samples.compared(item, .stream) { $0 / $1 }, 1, 3),
                percent(samples.spread(item, .stream)),
            ])
        }
        let widths = rows[0].indices.map { column in
            rows.map { $0.count > 2 && column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            if row.count == 2 { return row[0].padding(toLength: max(widths[0], row[0].count), withPad: " ", startingAt: 0) + "  " + row[1] }
            return row.enumerated().map { column, text in
                let fill = String(repeating: " ", count: max(0, widths[column] - text.count))
                return column == 0 ? text + fill : fill + text
            }.joined(separator: "  ")
        }
    }

    private func number(_ value: Double?, _ scale: Double, _ digits: Int) -> String {
        value.map { String(format: "%.\(digits)f", $0 * scale) } ?? "-"
    }
    private func percent(_ value: Double?) -> String { value.map { String(format: "%.1f%%", $0 * 100) } ?? "-" }
}

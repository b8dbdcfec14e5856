import Foundation

/// Rows of cells, for a terminal and as Markdown. The first column is text and stands left, the others are figures and stand right.
package struct TextTable: Sendable {
    package var heads: [String]
    package var rows: [[String]] = []

    package init(_ heads: [String]) { self.heads = heads }

    package var lines: [String] {
        let all = [heads] + rows
        let widths = heads.indices.map { column in all.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0 }
        return all.map { row in
            row.enumerated().map { column, text in
                let fill = String(repeating: " ", count: max(0, (column < widths.count ? widths[column] : 0) - text.count))
                return column == 0 ? text + fill : fill + text
            }.joined(separator: "  ")
        }
    }

    package var markdown: String {
        var text = "| " + heads.joined(separator: " | ") + " |\n|---|" + String(repeating: "--:|", count: max(0, heads.count - 1)) + "\n"
        for row in rows { text += "| " + row.joined(separator: " | ") + " |\n" }
        return text
    }
}

/// A figure as tables show it; "-" for none.
package func number(_ value: Double?, _ digits: Int) -> String { value.map { String(format: "%.\(digits)f", $0) } ?? "-" }

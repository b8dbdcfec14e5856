/// Columns of text, aligned with spaces: numbers to the right, the rest to the left.
struct TextTable {
    enum Alignment { case left, right }

    private let heads: [String]
    private let alignments: [Alignment]
    private var rows: [[String]] = []
    /// Columns that may be left out where the terminal is too narrow for all, those with the highest number first. By their place.
    var yields: [Int: Int] = [:]
    /// Columns of long cells that go below their row where it is too narrow all the same, the last alone if that is enough: an address is shown
    /// whole or not at all. One alone stays in its row where there is room. By their place.
    var spills: [Int] = []
    /// They belong together, as two ends of one conversation do: all of them or none.
    var spillsTogether = false

    init(_ columns: [(head: String, alignment: Alignment)]) {
        heads = columns.map(\.head)
        alignments = columns.map(\.alignment)
    }

    var isEmpty: Bool { rows.isEmpty }

    /// Missing cells at the end are empty; more than there are columns are left out.
    mutating func add(_ cells: [String]) {
        rows.append(Array((cells + Array(repeating: "", count: heads.count)).prefix(heads.count)))
    }

    /// The lines, each with `indent` spaces in front and none behind. Columns in which every cell is empty are left out.
    func lines(indent: Int = 0, _ style: TextStyle = .plain) -> [String] {
        var shown = heads.indices.filter { column in rows.contains { !$0[column].isEmpty } }
        let all = heads.indices.map { column in ([heads[column]] + rows.map { $0[column] }).map(Frame.visible).max() ?? 0 }
        func width() -> Int { indent + shown.reduce(0) { $0 + all[$1] } + 2 * max(0, shown.count - 1) }
        while let columns = style.columns, width() > columns,
            let next = shown.filter({ yields[$0] != nil }).max(by: { yields[$0, default: 0] < yields[$1, default: 0] })
        {
            shown.removeAll { $0 == next }
        }
        var spilled: [Int] = []
        if let columns = style.columns, width() > columns {
            spilled = spills.filter(shown.contains)
            // The last alone, if that is enough: what stays is in columns.
            if !spillsTogether, let last = spilled.last, width() - all[last] - 2 <= columns { spilled = [last] }
            shown.removeAll(where: spilled.contains)
        }
        let widths = shown.map { all[$0] }
        func line(_ cells: [String]) -> String {
            var text = String(repeating: " ", count: indent)
            for (width, column) in zip(widths, shown) {
                let fill = String(repeating: " ", count: max(0, width - Frame.visible(cells[column])))
                text += (alignments[column] == .right ? fill + cells[column] : cells[column] + fill) + "  "
            }
            return text
        }
        func lines(_ cells: [String]) -> [String] {
            let row = line(cells)
            let rest = spilled.map { cells[$0] }.filter { !$0.isEmpty }
            guard let columns = style.columns, !rest.isEmpty else { return [Self.trimmed(row)] }
            if spilled.count == 1, Frame.visible(row) + Frame.visible(rest[0]) <= columns { return [Self.trimmed(row + rest[0])] }
            // A sentence goes on under its beginning, as far as its words have room there.
            let room = columns - Frame.visible(row)
            if spilled.count == 1, room >= Self.sentenceMin, rest[0].split(separator: " ").allSatisfy({ Frame.visible(String($0)) <= room }) {
                return Frame.wrap(row + rest[0], columns: columns, indent: Frame.visible(row))
            }
            return [Self.trimmed(row)] + Self.packed(rest, indent: indent + 4, columns: columns)
        }
        return lines(heads).map(style.head) + rows.flatMap(lines)
    }

    /// A narrower column is no place for a sentence.
    private static let sentenceMin = 24

    private static func trimmed(_ line: String) -> String {
        line.lastIndex { $0 != " " }.map { String(line[...$0]) } ?? ""
    }

    /// As many cells a line as have room, with two spaces between them.
    private static func packed(_ cells: [String], indent: Int, columns: Int) -> [String] {
        let margin = String(repeating: " ", count: indent)
        var lines: [String] = []
        for cell in cells {
            if let last = lines.last, Frame.visible(last) + 2 + Frame.visible(cell) <= columns {
                lines[lines.count - 1] += "  " + cell
            } else {
                lines.append(margin + cell)
            }
        }
        return lines.flatMap { Frame.wrap($0, columns: columns, indent: indent) }
    }
}

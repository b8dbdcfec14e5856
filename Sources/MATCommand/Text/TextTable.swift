/// Columns of text, aligned with spaces: numbers to the right, the rest to the left.
struct TextTable {
    enum Alignment { case left, right }

    private let heads: [String]
    private let alignments: [Alignment]
    private var rows: [[String]] = []
    /// Columns that may be left out where the terminal is too narrow for all, those with the highest number first. By their place.
    var yields: [Int: Int] = [:]

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
        let all = heads.indices.map { column in ([heads[column]] + rows.map { $0[column] }).map(\.count).max() ?? 0 }
        func width() -> Int { indent + shown.reduce(0) { $0 + all[$1] } + 2 * max(0, shown.count - 1) }
        while let columns = style.columns, width() > columns,
            let next = shown.filter({ yields[$0] != nil }).max(by: { yields[$0, default: 0] < yields[$1, default: 0] })
        {
            shown.removeAll { $0 == next }
        }
        let widths = shown.map { all[$0] }
        func line(_ cells: [String]) -> String {
            var text = String(repeating: " ", count: indent)
            for (width, column) in zip(widths, shown) {
                let fill = String(repeating: " ", count: max(0, width - cells[column].count))
                text += (alignments[column] == .right ? fill + cells[column] : cells[column] + fill) + "  "
            }
            while text.last == " " { text.removeLast() }
            return text
        }
        return [style.head(line(heads))] + rows.map(line)
    }
}

/// Lines as they fit a terminal. Pure; `LiveView` writes them.
enum Frame {
    /// Cuts or folds lines to the columns, and leaves out what is below the last row but one, saying how much.
    static func fit(_ lines: [String], columns: Int, rows: Int) -> [String] {
        let folded = lines.flatMap { fold($0, columns: max(1, columns)) }
        guard folded.count > rows, rows > 0 else { return folded }
        let hidden = folded.count - rows + 1
        return folded.prefix(rows - 1) + ["... \(Quantity.count(Int64(hidden), "more line")); a higher window shows more"]
    }

    /// A line folded between words, as far as they are short enough, with so many spaces before all lines but the first. Colours take no columns.
    static func wrap(_ line: String, columns: Int, indent: Int) -> [String] {
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        var lines: [String] = []
        var (current, width) = (String(words.first ?? ""), visible(words.first ?? ""))
        for word in words.dropFirst() {
            let length = visible(word)
            guard width > indent, width + 1 + length > columns else {
                current += " " + word
                width += 1 + length
                continue
            }
            // Of the spaces between two columns none begins a line.
            if word.isEmpty { continue }
            while current.last == " " { current.removeLast() }
            lines.append(current)
            (current, width) = (String(repeating: " ", count: indent) + word, indent + length)
        }
        return lines + [current]
    }

    /// Likewise, under the last of the line's columns that leaves room for some words.
    static func wrap(_ line: String, columns: Int) -> [String] {
        guard visible(line[...]) > columns else { return [line] }
        var (indent, place, spaces, isInSequence) = (0, 0, 0, false)
        for character in line {
            if character == "\u{1B}" { isInSequence = true }
            if isInSequence {
                isInSequence = character != "m"
                continue
            }
            // Two spaces part columns, and an arrow leads a remedy.
            if character != " ", spaces == place || spaces >= 2, place <= columns - wordsMin { indent = place }
            spaces = character == " " ? spaces + 1 : 0
            place += 1
        }
        let margin = line.prefix { $0 == " " }.count
        let isArrow = line.dropFirst(margin).hasPrefix("-> ")
        return wrap(line, columns: columns, indent: isArrow ? margin + 3 : max(indent, margin + (indent <= margin ? 2 : 0)))
    }

    /// A column that is narrower than this is no place for a sentence.
    private static let wordsMin = 24

    /// The columns that a text takes.
    static func visible(_ text: String) -> Int { visible(text[...]) }

    private static func visible(_ text: Substring) -> Int {
        var (count, isInSequence) = (0, false)
        for character in text {
            if character == "\u{1B}" { isInSequence = true } else if !isInSequence { count += 1 } else if character == "m" { isInSequence = false }
        }
        return count
    }

    /// A line in pieces of at most so many columns. Colours take none, and go on in the next piece.
    static func fold(_ line: String, columns: Int) -> [String] {
        var pieces: [String] = []
        var (piece, width, color) = ("", 0, "")
        var rest = Substring(line)
        while let character = rest.first {
            if character == "\u{1B}", let end = rest.firstIndex(of: "m") {
                let sequence = String(rest[...end])
                color = sequence == "\u{1B}[0m" ? "" : sequence
                piece += sequence
                rest = rest[rest.index(after: end)...]
                continue
            }
            if width == columns {
                pieces.append(color.isEmpty ? piece : piece + "\u{1B}[0m")
                (piece, width) = (color, 0)
            }
            // What would move the cursor is not ours.
            piece.append(character.isNewline || character == "\t" || character == "\u{1B}" ? " " : character)
            width += 1
            rest = rest.dropFirst()
        }
        return pieces + [piece]
    }

    /// What a terminal is sent: from its first row, each line to its end, and nothing below.
    static func octets(_ lines: [String]) -> String {
        "\u{1B}[H" + lines.map { $0 + "\u{1B}[K" }.joined(separator: "\n") + "\u{1B}[J"
    }
}

import Glibc

/// Colour, where a person looks at a terminal and has not refused it (https://no-color.org), and how wide that is.
struct TextStyle: Sendable {
    let isColored: Bool
    /// `nil`: as wide as the text wants.
    var columns: Int?

    static let plain = TextStyle(isColored: false)

    static var forStandardOutput: TextStyle {
        let refused = getenv("NO_COLOR").map { $0.pointee != 0 } ?? false
        let isDumb = getenv("TERM").map { strcmp($0, "dumb") == 0 } ?? true
        return TextStyle(isColored: Terminal.isThere && !refused && !isDumb, columns: Terminal.isThere ? Terminal.size.columns : nil)
    }

    func head(_ text: String) -> String { wrap(text, "1") }
    func good(_ text: String) -> String { wrap(text, "32") }
    func bad(_ text: String) -> String { wrap(text, "31") }

    /// Lines as a text, none wider than the terminal as far as their words let that.
    func page(_ lines: [String]) -> String {
        folded(lines).joined(separator: "\n") + "\n"
    }

    func folded(_ lines: [String]) -> [String] { columns.map { columns in lines.flatMap { Frame.wrap($0, columns: columns) } } ?? lines }

    /// One line, what goes on of it below these columns.
    func folded(_ line: String, indent: Int) -> [String] { columns.map { Frame.wrap(line, columns: $0, indent: indent) } ?? [line] }

    /// Words that fit no line, as reverse names of IPv6 addresses, without their middle; a program gets them whole.
    func shortened(_ text: String, indent: Int) -> String {
        guard let columns, columns - indent >= Self.wordMin else { return text }
        let room = columns - indent
        return text.split(separator: " ", omittingEmptySubsequences: false).map { word in
            guard word.count > room else { return String(word) }
            let end = (room - 3) / 2
            return "\(word.prefix(room - 3 - end))...\(word.suffix(end))"
        }.joined(separator: " ")
    }

    /// Less room leaves nothing to know a word by.
    private static let wordMin = 24

    /// As wide, for what stands below a heading.
    var uncolored: TextStyle { TextStyle(isColored: false, columns: columns) }

    private func wrap(_ text: String, _ code: String) -> String {
        isColored ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }
}

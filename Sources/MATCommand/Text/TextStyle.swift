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

    /// As wide, for what stands below a heading.
    var uncolored: TextStyle { TextStyle(isColored: false, columns: columns) }

    private func wrap(_ text: String, _ code: String) -> String {
        isColored ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }
}

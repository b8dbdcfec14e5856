import CQREncode
import MATRuntime

/// A text as a QR code for a terminal: two rows of the code in one line, by half blocks.
enum QRText {
    /// Around the code, in modules; cameras want it.
    private static let margin = 2

    static func make(_ text: String) throws(CommandFailure) -> String {
        guard let code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L) else { throw CommandFailure("the text is too long for a QR code") }
        defer { QRcode_free(code) }
        let width = Int(code.pointee.width)
        func isDark(_ row: Int, _ column: Int) -> Bool {
            guard (0..<width).contains(row), (0..<width).contains(column), let data = code.pointee.data else { return false }
            return data[row * width + column] & 1 != 0
        }
        var lines: [String] = []
        for row in stride(from: -margin, to: width + margin, by: 2) {
            // Light modules are drawn, so that it reads on a dark terminal as well as on paper's.
            let line = (-margin..<width + margin).map { column in
                switch (isDark(row, column), isDark(row + 1, column)) {
                case (false, false): "\u{2588}"
                case (false, true): "\u{2580}"
                case (true, false): "\u{2584}"
                case (true, true): " "
                }
            }
            lines.append(line.joined())
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

import MATControl

/// `mat history --svg`: a row for each handover, with bars for the time without an address, until registered, and until all peers knew.
///
/// ```
///   2026-11-21 05:49:10   10.1.0.5 → 198.51.100.7    ▓▓▓▓▓▓▓▓░░░░░░──   310 ms
///                                                    │       │     └ all peers told
///                                                    │       └ registered
///                                                    └ without an address
/// ```
enum HistoryPicture {
    private static let row = 22
    private static let labels = 460
    private static let bars = 480
    private static let top = 56

    static func svg(_ report: HistoryReport) -> String {
        let longest = max(1, report.handovers.map(total).max() ?? 1)
        let height = top + max(1, report.handovers.count) * row + 20
        var parts = [
            """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(labels + bars + 120) \(height)" font-family="sans-serif" font-size="12">
            <style>text { fill: #222 } .gap { fill: #c0392b } .registered { fill: #2471a3 } .told { fill: #7fb3d5 } rect.ground { fill: #fff }
            @media (prefers-color-scheme: dark) { text { fill: #ddd } rect.ground { fill: #111 } }</style>
            <rect class="ground" width="100%" height="100%"/>
            <text x="10" y="20" font-size="15">Handovers</text>
            <rect class="gap" x="10" y="30" width="10" height="10"/><text x="24" y="39">without an address</text>
            <rect class="registered" x="160" y="30" width="10" height="10"/><text x="174" y="39">until registered</text>
            <rect class="told" x="290" y="30" width="10" height="10"/><text x="304" y="39">until the last peer knew</text>
            """
        ]
        for (index, handover) in report.handovers.enumerated() {
            let y = top + index * row
            let when = Quantity.date(unixMilliseconds: handover.atMilliseconds).dropLast(4)
            let (from, to) = (handover.from?.address ?? "nowhere", handover.to?.address ?? "nowhere")
            parts.append("<text x=\"10\" y=\"\(y + 14)\">\(escaped("\(when)  \(from) → \(to)"))</text>")
            var x = labels
            func bar(_ name: String, _ milliseconds: Int64) {
                guard milliseconds > 0 else { return }
                let width = max(1, Int(Double(milliseconds) / Double(longest) * Double(bars)))
                parts.append("<rect class=\"\(name)\" x=\"\(x)\" y=\"\(y + 4)\" width=\"\(width)\" height=\"12\"/>")
                x += width
            }
            let (gap, registered, told) = times(handover)
            bar("gap", gap)
            bar("registered", registered)
            bar("told", max(0, told - registered))
            parts.append("<text x=\"\(x + 6)\" y=\"\(y + 14)\">\(HistoryText.time(total(handover)))</text>")
        }
        return parts.joined(separator: "\n") + "\n</svg>\n"
    }

    private static func times(_ handover: HistoryReport.Handover) -> (gap: Int64, registered: Int64, told: Int64) {
        (handover.withoutAddressMilliseconds ?? 0, handover.registeredAfterMilliseconds ?? 0, handover.toldAfterMilliseconds ?? 0)
    }

    /// Of the whole handover, in ms. What a report says of times is held to a day: a picture has room for no more.
    private static func total(_ handover: HistoryReport.Handover) -> Int64 {
        let (gap, registered, told) = times(handover)
        func held(_ time: Int64) -> Int64 { min(max(time, 0), 86_400_000) }
        return held(gap) + max(held(registered), held(told))
    }

    private static func escaped(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "&": result += "&amp;"
            default: result.append(character)
            }
        }
    }
}

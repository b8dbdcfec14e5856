import MATControl

/// `mat why` for people.
enum WhyText {
    /// More would hide what is above.
    private static let plainMax = 20

    private static func plainLines(_ conversations: [WhyReport.PlainConversation]) -> [String] {
        guard !conversations.isEmpty else { return [] }
        let count = Quantity.count(Int64(conversations.count), "conversation")
        let reasons = distinct(conversations.map(\.reason))
        var lines = ["", "  \(count) with it \(conversations.count == 1 ? "is" : "are") plain, and would not survive a move:"]
        for reason in reasons {
            lines += conversations.prefix(plainMax).filter { $0.reason == reason }.map { "    \($0.transport)  \($0.local) -> \($0.remote)" }
            if conversations.prefix(plainMax).contains(where: { $0.reason == reason }) { lines.append("      \(reason)") }
        }
        if conversations.count > plainMax { lines.append("    and \(conversations.count - plainMax) more") }
        return lines
    }

    /// In what order a node takes paths (protocol.md section 11.4).
    private static func rank(_ candidate: WhyReport.Candidate) -> Int { PeerReport.Path.allCases.firstIndex(of: candidate.path) ?? Int.max }

    /// Each once, in order.
    private static func distinct(_ texts: [String]) -> [String] { texts.reduce(into: []) { if !$0.contains($1) { $0.append($1) } } }

    static func text(_ report: WhyReport, _ style: TextStyle = .plain) -> String {
        let used = report.candidates.first(where: \.used)
        let way = used.map { "\($0.path.rawValue), \($0.path == .relayed ? "by" : "to") \($0.to)\($0.from.map { " from \($0)" } ?? "")" }
        var lines = [style.head("\(report.peer): \(way ?? "no path")")]
        if let problem = report.problem { lines.append("  \(style.bad(problem))") }
        for translation in report.translations { lines.append("  \(translation)") }
        if let text = report.peerTranslation { lines.append("  \(report.peer): \(text)") }
        var table = TextTable([("", .left), ("PATH", .left), ("TO", .left), ("LAST RESULT", .left)])
        table.spills = [3]
        for candidate in report.candidates { table.add([candidate.used ? "used" : "", candidate.path.rawValue, candidate.to, candidate.state]) }
        if !table.isEmpty { lines += [""] + table.lines(indent: 2, style) }
        // What a path that goes behind the used one lacks would change nothing.
        let remedies = distinct(report.candidates.filter { !$0.used && rank($0) < used.map(rank) ?? Int.max }.compactMap(\.remedy))
        if !remedies.isEmpty { lines += ["", "  a better path would need:"] + remedies.map { "    \($0)" } }
        return style.page(lines + plainLines(report.plain ?? []))
    }
}

import MATControl

/// `mat why` for people.
enum WhyText {
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
        let remedies = report.candidates.filter { !$0.used }.compactMap(\.remedy).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        if !remedies.isEmpty { lines += ["", "  a better path would need:"] + remedies.map { "    \($0)" } }
        return style.page(lines)
    }
}

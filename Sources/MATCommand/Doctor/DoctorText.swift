/// `mat doctor` for people: what is wrong first.
enum DoctorText {
    static func text(_ report: DoctorReport, _ style: TextStyle = .plain) -> String {
        let worst: [DoctorFinding.Severity] = [.problem, .warning, .note, .ok]
        let width = report.findings.map(\.subject.count).max() ?? 0
        var lines: [String] = []
        for severity in worst {
            for finding in report.findings where finding.severity == severity {
                let word = severity.rawValue + String(repeating: " ", count: 7 - severity.rawValue.count)
                let fill = String(repeating: " ", count: width - finding.subject.count)
                let text = "\(color(word, severity, style))  \(finding.subject)\(fill)  \(finding.text)"
                lines += style.folded(text, indent: 11 + width)
                guard let remedy = finding.remedy else { continue }
                lines += style.folded("\(String(repeating: " ", count: 11 + width))-> \(remedy)", indent: 14 + width)
            }
        }
        let counts = worst.dropLast().compactMap { severity -> String? in
            let count = report.findings.count { $0.severity == severity }
            return count == 0 ? nil : Quantity.count(Int64(count), severity.rawValue)
        }
        lines.append(counts.isEmpty ? style.good("nothing is wrong") : counts.joined(separator: ", "))
        return style.page(lines)
    }

    private static func color(_ word: String, _ severity: DoctorFinding.Severity, _ style: TextStyle) -> String {
        switch severity {
        case .problem, .warning: style.bad(word)
        case .ok: style.good(word)
        case .note: word
        }
    }
}

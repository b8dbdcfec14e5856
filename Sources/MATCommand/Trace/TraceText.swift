/// `mat trace` for people: a line for each stage, and last where packets stop.
enum TraceText {
    static func text(_ report: TraceReport, _ style: TextStyle = .plain) -> String {
        let width = TraceReport.Stage.allCases.map(\.title.count).max() ?? 0
        let indent = String(repeating: " ", count: width + 9)
        var lines: [String] = []
        for step in report.steps {
            let fill = String(repeating: " ", count: width - step.stage.title.count)
            lines.append("\(step.stage.title)\(fill)  \(word(step.outcome, style))  \(step.text)")
            lines += step.details.map { indent + "  " + style.shortened($0, indent: indent.count + 2) }
            if step.stage == .path { lines += report.hops.map { "\(indent)  hop \($0.number): \(hop($0))" } }
            if let remedy = step.remedy, step.outcome != .ok { lines.append("\(indent)-> \(remedy)") }
        }
        if let stop = report.stop {
            lines.append(style.bad("packets to \(report.hoa) stop at \(stop.stage.title): \(stop.text)"))
        } else if report.steps.allSatisfy({ $0.outcome == .ok }) {
            lines.append(style.good("packets to \(report.hoa) arrive, and answers come back"))
        } else if report.steps.contains(where: { $0.stage == .node && $0.outcome == .doubt }), report.steps.last?.outcome == .skipped {
            lines.append("as far as this could be seen nothing stops packets to \(report.hoa)")
        } else {
            let isInDoubt = report.steps.contains { $0.outcome == .doubt }
            lines.append("nothing stops packets to \(report.hoa)\(isInDoubt ? "; see what is in doubt above" : "")")
        }
        return style.page(lines)
    }

    private static func word(_ outcome: TraceReport.Outcome, _ style: TextStyle) -> String {
        switch outcome {
        case .ok: style.good("ok   ")
        case .doubt: style.bad("doubt")
        case .stops: style.bad("STOPS")
        case .skipped: "-    "
        }
    }

    private static func hop(_ hop: TraceReport.Hop) -> String {
        guard let address = hop.address else { return "no answer" }
        return address + (hop.tookMilliseconds.map { ", \(Quantity.milliseconds(.microseconds(Int64($0 * 1000))))" } ?? "")
    }
}

extension TraceReport.Stage {
    var title: String {
        switch self {
        case .node: "node"
        case .dns: "DNS"
        case .ims: "IMS"
        case .cache: "cache"
        case .imt: "IMT"
        case .routes: "routes"
        case .path: "path"
        }
    }
}

import Glibc

/// The run as a picture: TCP throughput, and the gaps between probes in both directions, over one time axis with everything that
/// happened marked on it.
///
///     title, legend
///     numbered marks            what happened; phases shaded
///     throughput                Mbit/s per bin
///     gaps client → server      milliseconds, logarithmic: 1 ms (undisturbed) to seconds; lost probes as crosses
///     gaps server → client
///     the marks' meaning
public struct Chart {
    private static let width = 1200.0
    private static let left = 86.0
    private static let right = 24.0
    private static let panelHeight = 190.0
    private static let panelGap = 46.0
    private static let headHeight = 118.0
    private static let keyLine = 19.0
    private static let binsMax = 1000
    private static let colours: [AddressFamily: String] = [.ipv4: "#1668b0", .ipv6: "#d9660a"]
    private static let marksMax = 60

    private let report: ProbeReport
    private var body = ""

    public init(_ report: ProbeReport) { self.report = report }

    private var plotWidth: Double { Self.width - Self.left - Self.right }
    private var span: Double { max(0.001, report.seconds(report.end)) }
    private func x(_ time: Nanoseconds) -> Double { Self.left + min(1, max(0, report.seconds(time) / span)) * plotWidth }
    private func top(_ panel: Int) -> Double { Self.headHeight + Double(panel) * (Self.panelHeight + Self.panelGap) }

    /// The whole document.
    public func svg(title: String) -> String {
        var chart = self
        let names = report.directions.map(\.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        let panels = 1 + names.count
        let marks = report.events.filter { $0.time >= report.origin && $0.time <= report.end }.prefix(Self.marksMax)
        let plotBottom = top(panels - 1) + Self.panelHeight
        chart.shadePhases(to: plotBottom)
        chart.throughput(panel: 0)
        for (index, name) in names.enumerated() { chart.gaps(name, panel: index + 1) }
        chart.mark(Array(marks), to: plotBottom)
        chart.timeAxis(panels: panels)
        chart.legend(title)
        let height = plotBottom + 62 + Double((marks.count + 1) / 2) * Self.keyLine
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(fixed(Self.width, 0)) \(fixed(height, 0))" \
            width="\(fixed(Self.width, 0))" height="\(fixed(height, 0))" font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
            <rect width="100%" height="100%" fill="#ffffff"/>
            \(chart.body)</svg>

            """
    }

    // MARK: Panels

    private mutating func throughput(panel: Int) {
        let y = top(panel)
        // Bins of 100 ms, wider in long runs: wide enough for a rate, narrow enough to show a stall.
        let bin = max(0.1, span / Double(Self.binsMax))
        let count = max(1, Int(span / bin))
        var series: [(AddressFamily, [Double])] = []
        for transfer in report.transfers {
            var rates = [Double](repeating: 0, count: count)
            var previous = TransferLog.Progress(time: transfer.log.header.started, octets: 0)
            for step in transfer.log.progress where step.octets >= previous.octets {
                let index = Int(report.seconds(step.time) / bin)
                if rates.indices.contains(index) { rates[index] += Double(step.octets - previous.octets) * 8 / 1e6 / bin }
                previous = step
            }
            series.append((transfer.log.header.family, rates))
        }
        // After a stall TCP delivers in one bin what it held back; one such peak must not flatten all the rest.
        let sorted = series.flatMap { $0.1 }.sorted()
        let usual = sorted.isEmpty ? 1 : sorted[sorted.count * 97 / 100]
        let isCut = (sorted.last ?? 0) > usual * 2.5
        let largest = ticked(max(0.1, isCut ? usual * 1.6 : sorted.last ?? 1))
        frame(panel, "TCP throughput, Mbit/s, " + (report.transfers.first?.name ?? "no transfer") + (isCut ? " (peaks cut)" : ""))
        for step in 0...4 {
            let value = largest * Double(step) / 4
            gridLine(y + Self.panelHeight * (1 - Double(step) / 4), fixed(value, largest < 8 ? 1 : 0))
        }
        for (family, rates) in series {
            let points = rates.enumerated().map { index, rate in
                "\(fixed(Self.left + (Double(index) + 0.5) * bin / span * plotWidth, 1)),\(fixed(y + Self.panelHeight * (1 - min(1, rate / largest)), 1))"
            }
            line(points, family)
        }
    }

    /// For every moment the length of the gap it lies in, so that an outage is as wide as it lasted and as high as it was long.
    private mutating func gaps(_ name: String, panel: Int) {
        let y = top(panel)
        let directions = report.directions.filter { $0.name == name }
        frame(panel, "Gap between 1 ms probes, ms, \(name)")
        let decades = 4.0  // 0.5 ms to 5 s
        func height(_ milliseconds: Double) -> Double {
            y + Self.panelHeight * (1 - min(1, max(0, (log10(milliseconds) - log10(0.5)) / decades)))
        }
        for value in [1.0, 10, 100, 1000] { gridLine(height(value), fixed(value, 0)) }
        let limit = height(ProbeReport.overlapGapMillisecondsMax)
        body +=
            "<line x1=\"\(fixed(Self.left, 1))\" x2=\"\(fixed(Self.width - Self.right, 1))\" y1=\"\(fixed(limit, 1))\" y2=\"\(fixed(limit, 1))\" stroke=\"#b00020\" stroke-dasharray=\"6 4\"/>\n"
        text(Self.width - Self.right - 4, limit - 4, "20 ms: limit with overlap", anchor: "end", colour: "#b00020", size: 11)
        let bins = Int(plotWidth)
        for direction in directions {
            var largest = [Double](repeating: 0, count: bins)
            for gap in report.gaps(direction, over: 0) {
                let from = Int(min(1, max(0, report.seconds(gap.from) / span)) * Double(bins))
                let to = Int(min(1, max(0, report.seconds(gap.to) / span)) * Double(bins))
                for index in max(0, from)...max(from, to) where index < bins { largest[index] = max(largest[index], gap.milliseconds) }
            }
            let points = largest.enumerated().filter { $0.element > 0 }.map { index, value in
                "\(fixed(Self.left + Double(index) + 0.5, 1)),\(fixed(height(value), 1))"
            }
            line(points, direction.family)
        }
        // Crosses at the foot, one row a family, and at most one a pixel.
        for (row, direction) in directions.enumerated() {
            let foot = y + Self.panelHeight - 8 - Double(row) * 11
            for column in Set(report.losses(direction).map { Int(x($0)) }).sorted() {
                let at = Double(column)
                body +=
                    "<path d=\"M\(fixed(at - 3, 1)) \(fixed(foot - 3, 1))l6 6m0 -6l-6 6\" stroke=\"\(Self.colours[direction.family] ?? "#000")\" stroke-width=\"1.5\"/>\n"
            }
        }
    }

    // MARK: Events

    private mutating func shadePhases(to bottom: Double) {
        let begins = report.phases
        for phase in begins {
            let from = x(phase.begin.time)
            let to = phase.until == .max ? Self.width - Self.right : x(phase.until)
            let colour = [.interruption, .interruptionTranslated].contains(phase.begin.expect) ? "#fdf1e3" : "#eef5ea"
            body +=
                "<rect x=\"\(fixed(from, 1))\" y=\"\(fixed(Self.headHeight, 1))\" width=\"\(fixed(max(0, to - from), 1))\" height=\"\(fixed(bottom - Self.headHeight, 1))\" fill=\"\(colour)\"/>\n"
            if to - from > 120 { text((from + to) / 2, Self.headHeight - 44, phase.begin.text, anchor: "middle", colour: "#444444", size: 12) }
        }
    }

    private mutating func mark(_ events: [ProbeEvent], to bottom: Double) {
        // Marks that would cover each other go into a second or third row.
        var rowEnds = [-100.0, -100, -100]
        let half = (events.count + 1) / 2
        for (index, event) in events.enumerated() {
            let at = x(event.time)
            let places = rowEnds.map { max(at, $0 + 18) }
            let row = places.indices.min { (places[$0], $0) < (places[$1], $1) } ?? 0
            let badge = places[row]
            rowEnds[row] = badge
            let y = Self.headHeight - 10 - Double(row) * 13
            body +=
                "<line x1=\"\(fixed(at, 1))\" x2=\"\(fixed(at, 1))\" y1=\"\(fixed(y + 6, 1))\" y2=\"\(fixed(bottom, 1))\" stroke=\"#555555\" stroke-width=\"0.8\" stroke-dasharray=\"2 3\"/>\n"
            body += "<rect x=\"\(fixed(badge - 8.5, 1))\" y=\"\(fixed(y - 6, 1))\" width=\"17\" height=\"12\" rx=\"5\" fill=\"#333333\"/>\n"
            text(badge, y + 3.6, "\(index + 1)", anchor: "middle", colour: "#ffffff", size: 10)
            let column = index < half ? 0.0 : 1
            let keyX = Self.left + column * plotWidth / 2
            let keyY = bottom + 62 + Double(index < half ? index : index - half) * Self.keyLine
            text(keyX, keyY, "\(index + 1)", anchor: "end", colour: "#111111", size: 12, isBold: true)
            text(keyX + 8, keyY, fixed(report.seconds(event.time), 3) + " s  " + event.text, anchor: "start", colour: "#111111", size: 12)
        }
    }

    private mutating func legend(_ title: String) {
        text(Self.left, 30, title, anchor: "start", colour: "#111111", size: 19, isBold: true)
        var at = Self.left
        for family in [AddressFamily.ipv4, .ipv6] {
            body +=
                "<line x1=\"\(fixed(at, 1))\" x2=\"\(fixed(at + 26, 1))\" y1=\"50\" y2=\"50\" stroke=\"\(Self.colours[family] ?? "#000")\" stroke-width=\"3\"/>\n"
            text(at + 32, 54.5, family.title, anchor: "start", colour: "#111111", size: 13)
            at += 92
        }
        body += "<path d=\"M\(fixed(at, 1)) 46l8 8m0 -8l-8 8\" stroke=\"#333333\" stroke-width=\"1.8\"/>\n"
        let lost = report.directions.reduce(UInt64(0)) { $0 + $1.log.header.inbound.lost }
        text(at + 16, 54.5, "lost probe (\(lost) in all)", anchor: "start", colour: "#111111", size: 13)
        body += "<rect x=\"\(fixed(at + 176, 1))\" y=\"44\" width=\"17\" height=\"12\" rx=\"5\" fill=\"#333333\"/>\n"
        text(at + 200, 54.5, "event, explained below", anchor: "start", colour: "#111111", size: 13)
    }

    // MARK: Axes

    private mutating func timeAxis(panels: Int) {
        let step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].first { span / $0 <= 16 } ?? 1800
        for panel in 0..<panels {
            let bottom = top(panel) + Self.panelHeight
            var value = 0.0
            while value <= span {
                let at = Self.left + value / span * plotWidth
                body +=
                    "<line x1=\"\(fixed(at, 1))\" x2=\"\(fixed(at, 1))\" y1=\"\(fixed(bottom, 1))\" y2=\"\(fixed(bottom + 5, 1))\" stroke=\"#333333\"/>\n"
                text(at, bottom + 18, fixed(value, step < 1 ? 1 : 0), anchor: "middle", colour: "#333333", size: 12)
                value += step
            }
        }
        text(Self.left + plotWidth / 2, top(panels - 1) + Self.panelHeight + 36, "time, s", anchor: "middle", colour: "#333333", size: 13)
    }

    private mutating func frame(_ panel: Int, _ title: String) {
        let y = top(panel)
        body +=
            "<rect x=\"\(fixed(Self.left, 1))\" y=\"\(fixed(y, 1))\" width=\"\(fixed(plotWidth, 1))\" height=\"\(fixed(Self.panelHeight, 1))\" fill=\"none\" stroke=\"#333333\"/>\n"
        let middle = y + Self.panelHeight / 2
        let parts = title.split(separator: ",", maxSplits: 1).map { String($0.drop { $0 == " " }) }
        for (index, part) in parts.enumerated() {
            let at = 18.0 + Double(index) * 17
            body +=
                "<text transform=\"translate(\(fixed(at, 1)) \(fixed(middle, 1))) rotate(-90)\" text-anchor=\"middle\" fill=\"#111111\" font-size=\"12.5\">\(escaped(part))</text>\n"
        }
    }

    private mutating func gridLine(_ y: Double, _ label: String) {
        body +=
            "<line x1=\"\(fixed(Self.left, 1))\" x2=\"\(fixed(Self.width - Self.right, 1))\" y1=\"\(fixed(y, 1))\" y2=\"\(fixed(y, 1))\" stroke=\"#cccccc\" stroke-width=\"0.7\"/>\n"
        text(Self.left - 6, y + 4, label, anchor: "end", colour: "#333333", size: 12)
    }

    private mutating func line(_ points: [String], _ family: AddressFamily) {
        guard !points.isEmpty else { return }
        body +=
            "<polyline points=\"\(points.joined(separator: " "))\" fill=\"none\" stroke=\"\(Self.colours[family] ?? "#000")\" stroke-width=\"1.6\" stroke-opacity=\"0.9\" stroke-linejoin=\"round\"/>\n"
    }

    private mutating func text(_ x: Double, _ y: Double, _ content: String, anchor: String, colour: String, size: Double, isBold: Bool = false) {
        body +=
            "<text x=\"\(fixed(x, 1))\" y=\"\(fixed(y, 1))\" text-anchor=\"\(anchor)\" fill=\"\(colour)\" font-size=\"\(fixed(size, 1))\"\(isBold ? " font-weight=\"bold\"" : "")>\(escaped(content))</text>\n"
    }

    private func escaped(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "&": result += "&amp;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
    }

    /// The next value at which four equal steps have round numbers.
    private func ticked(_ value: Double) -> Double {
        var scale = 1.0
        while scale * 10 < value { scale *= 10 }
        for factor in [1.0, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8] where scale * factor >= value * 1.02 { return scale * factor }
        return scale * 10.4 >= value * 1.02 ? scale * 12 : value
    }
}

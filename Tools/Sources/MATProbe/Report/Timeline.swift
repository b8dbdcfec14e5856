extension ProbeReport {
    /// Gaps longer than this appear in the timeline.
    static let toldGapMilliseconds = 5.0
    /// A run that stutters must not hide what happened behind thousands of lines.
    static let toldGapsMax = 40

    /// What happened, in order, and what each stream amounts to; for people.
    public func timeline() -> String {
        var lines: [(time: Nanoseconds, text: String)] = events.map { event in
            (event.time, event.event == "begin" ? "── \(event.text) ──" : event.text)
        }
        var gapLines: [(time: Nanoseconds, length: Double, text: String)] = []
        for direction in directions {
            for gap in gaps(direction, over: Self.toldGapMilliseconds) {
                var text = "   gap of \(fixed(gap.milliseconds, 1)) ms  \(direction.title)"
                if gap.milliseconds - gap.networkMilliseconds > 0.5 { text += " (network \(fixed(gap.networkMilliseconds, 1)) ms)" }
                gapLines.append((gap.to, gap.milliseconds, text))
            }
            for run in lossRuns(direction) {
                lines.append((run.from, "   \(run.count) lost  \(direction.title)"))
            }
        }
        for transfer in transfers {
            let header = transfer.log.header
            if header.longestStallMilliseconds > Self.toldGapMilliseconds {
                let text = "   TCP without progress for \(fixed(header.longestStallMilliseconds, 1)) ms  \(transfer.title) (its longest)"
                lines.append((header.longestStallFrom + Nanoseconds(header.longestStallMilliseconds * 1e6), text))
            }
            if header.isReset { lines.append((header.ended, "   TCP RESET  \(transfer.title)")) }
        }
        let told = gapLines.sorted { $0.length > $1.length }.prefix(Self.toldGapsMax)
        lines += told.map { ($0.time, $0.text) }
        var text = "      time  what happened\n"
        for line in lines.sorted(by: { $0.time < $1.time }) { text += padded(fixed(seconds(line.time), 3) + " s", 10) + "  \(line.text)\n" }
        if gapLines.count > told.count {
            text += "            and \(gapLines.count - told.count) shorter gaps over \(fixed(Self.toldGapMilliseconds, 0)) ms\n"
        }
        return text + "\n" + tables()
    }

    private func tables() -> String {
        var rows = [["1 ms probes", "sent", "arrived", "lost", "doubled", "reordered", "longest gap", "of the network"]]
        for direction in directions {
            let inbound = direction.log.header.inbound
            rows.append([
                direction.title, "\(inbound.sent)", "\(inbound.received)", "\(inbound.lost)", "\(inbound.duplicated)", "\(inbound.reordered)",
                fixed(inbound.largestGapMilliseconds, 1) + " ms", fixed(inbound.largestNetworkGapMilliseconds, 1) + " ms",
            ])
        }
        if let interval = directions.first?.interval, interval != ProbeClock.perMillisecond {
            rows[0][0] = "\(fixed(Double(interval) / 1e6, 2)) ms probes"
        }
        var transferRows = [["TCP", "MB", "Mbit/s", "longest stall", "reset"]]
        for transfer in transfers {
            let header = transfer.log.header
            let seconds = max(0.001, Double(header.ended - header.started) / 1e9)
            transferRows.append([
                transfer.title, fixed(Double(header.octets) / 1e6, 1), fixed(Double(header.octets) * 8 / 1e6 / seconds, 1),
                fixed(header.longestStallMilliseconds, 1) + " ms", header.isReset ? "YES" : header.isComplete ? "no" : "no, but broken",
            ])
        }
        var text = directions.isEmpty ? "" : table(rows) + "\n"
        if !transfers.isEmpty { text += table(transferRows) }
        return text
    }

    /// Neighbouring losses as one: from when, and how many.
    private func lossRuns(_ direction: Direction) -> [(from: Nanoseconds, count: Int)] {
        var runs: [(from: Nanoseconds, to: Nanoseconds, count: Int)] = []
        for time in losses(direction) {
            if let last = runs.indices.last, time - runs[last].to < 100 * ProbeClock.perMillisecond {
                runs[last].to = time
                runs[last].count += 1
            } else {
                runs.append((time, time, 1))
            }
        }
        return runs.prefix(Self.toldGapsMax).map { ($0.from, $0.count) }
    }
}

private func padded(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }

/// The first column to the left, figures to the right.
private func table(_ rows: [[String]]) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
        row.enumerated().map { column, cell in
            column == 0 ? cell + String(repeating: " ", count: widths[0] - cell.count) : "  " + padded(cell, widths[column])
        }.joined() + "\n"
    }.joined()
}

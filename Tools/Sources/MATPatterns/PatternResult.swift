/// What came of a pattern.
public struct PatternResult: Codable, Sendable {
    public var id: String
    public var title: String
    public var walk: String
    public var withOverlap: Bool
    public var expected: Pattern.Path
    /// NTMobile's.
    public var tunnel: String?
    public var simulatedToPeer: Int?
    public var simulatedToMover: Int?
    /// How each end with an agent sent to the other; the mover's end first.
    public var before: [String?] = []
    public var after: [String?] = []
    /// From the new address to the first arrival of a datagram that was sent since, in milliseconds; `nil`: it did not come in time.
    public var toPeer: Double?
    public var toMover: Double?
    /// The same of octets of the TCP connection, whose sender also waits for its own timer.
    public var streamToPeer: Double?
    public var streamToMover: Double?
    /// Until both ends said that the path is the expected one.
    public var final: Double?
    /// Between two arrivals in either direction, after that.
    public var longestGapThen: Double?
    public var lostToPeer = 0
    public var lostToMover = 0
    /// What did not hold.
    public var problems: [String] = []

    init(_ pattern: Pattern, walk: Walk, withOverlap: Bool, problem: String? = nil) {
        id = pattern.id
        title = pattern.title
        self.walk = walk.name
        self.withOverlap = withOverlap
        expected = pattern.expected
        tunnel = pattern.tunnel?.rawValue
        simulatedToPeer = pattern.simulated?.toPeer
        simulatedToMover = pattern.simulated?.toMover
        if let problem { problems = [problem] }
    }

    public var held: Bool { problems.isEmpty }

    private static func short(_ paths: [String?]) -> String {
        Set(paths).count == 1 ? (paths.first ?? nil) ?? "none" : paths.map { $0 ?? "none" }.joined(separator: "/")
    }

    /// The slower direction, in round trips.
    private var roundTrips: String {
        let slower = [toPeer, toMover].compactMap { $0 }.max()
        return slower.map { "\(($0 / Double(PatternRun.roundTripMilliseconds) * 10).rounded() / 10)" } ?? ""
    }

    /// For who watches.
    public var line: String {
        func column(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(1, width - text.count)) }
        func number(_ value: Double?) -> String { value.map { "\(Int($0.rounded()))" } ?? "-" }
        let overlap = withOverlap ? "; lost \(lostToPeer) and \(lostToMover)" : ""
        return column(id, 26) + column(title, 56) + column("\(Self.short(before)) -> \(Self.short(after))", 32)
            + "resumed after \(number(toPeer)) and \(number(toMover)) ms (\(roundTrips) RTT), final path after \(number(final)) ms, worst gap then \(number(longestGapThen)) ms"
            + overlap + problems.map { "\n    FAILED: \($0)" }.joined()
    }

    // MARK: The table

    /// As a table in Markdown; of each pattern the run without overlap, and what was lost in that with overlap.
    public static func table(_ results: [PatternResult]) -> String {
        var lines = [
            "| pattern | mover before ⇒ after, peer | NTMobile | path before | path after | to the peer | to the mover | RTT | path final after | simulated | lost with overlap |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        func milliseconds(_ value: Double?) -> String { value.map { "\(Int($0.rounded())) ms" } ?? "not" }
        for result in results where !result.withOverlap {
            let overlapped = results.first { $0.id == result.id && $0.withOverlap }
            let columns = [
                result.id, result.title, result.tunnel ?? "", short(result.before), short(result.after), milliseconds(result.toPeer),
                milliseconds(result.toMover), result.roundTrips, milliseconds(result.final),
                result.simulatedToPeer.flatMap { there in result.simulatedToMover.map { "\(there) and \($0) ms" } } ?? "",
                overlapped.map { "\($0.lostToPeer + $0.lostToMover)" } ?? "",
            ]
            lines.append("| " + columns.joined(separator: " | ") + " |")
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

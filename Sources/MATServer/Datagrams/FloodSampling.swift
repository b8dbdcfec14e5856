import MATSignal

/// Which part of one kind of datagrams the kernel is to let through, so that what comes is about as much as can be of use.
///
/// ```
///              more than the budget came in a tenth of a second
///   all ────────────────────────────────────────────────────────► of the lines that bring more than their share of it, a part:
///    ▲                                                             what the others leave of the budget / what those bring
///    └─ the budget would do for all ◄──────────────────────────────┘ anew for each tenth
/// ```
/// Sources fall into lines, by a hash that nobody outside knows. A flood of one source, or of a few, is one line's or a few lines', and who is in
/// another is heard as ever. One of thousands of sources fills all lines; of what comes then each datagram has the same chance, and a node that
/// tries again has another. What is let through stands for what was not: a line's rate is what came of it, divided by the part.
package struct FloodSampling: Sendable {
    package static let linesCount = 32
    /// How often it is decided anew.
    package static let window: Duration = .milliseconds(100)
    /// Of the part: smaller differences change nothing.
    private static let toleranceDivisor = 5.0
    /// So that in the worst flood something is still seen of it, and of its end.
    package static let partMin = 0.001

    private var perSecond: Double
    private var begun: MonotonicTime?
    private var counts = [UInt32](repeating: 0, count: linesCount)
    /// What each line brings a second, whether it is let through or not.
    private var rates = [Double](repeating: 0, count: linesCount)
    /// A bit for each line of which only a part is let through.
    package private(set) var sampledLines: UInt32 = 0
    /// What is let through of these.
    package private(set) var part = 1.0

    /// - Parameter perSecond: what may come.
    package init(perSecond: Int) { self.perSecond = Double(max(1, perSecond)) }

    package mutating func setBudget(perSecond: Int) { self.perSecond = Double(max(1, perSecond)) }

    /// One has come.
    package mutating func came(line: Int) {
        guard counts.indices.contains(line) else { return }
        counts[line] &+= 1
    }

    /// - Returns: whether what is to be let through is something else from now on.
    package mutating func turn(at now: MonotonicTime) -> Bool {
        guard let begun else {
            begun = now
            return false
        }
        let nanoseconds = (now - begun).nanosecondsSaturated
        guard nanoseconds >= Self.window.nanosecondsSaturated else { return false }
        self.begun = now
        var total = 0.0
        for line in 0..<Self.linesCount {
            let offered = Double(counts[line]) / (isSampled(line) ? part : 1) * 1e9 / Double(nanoseconds)
            counts[line] = 0
            // Half of what was before: of few datagrams one more or less says little.
            rates[line] = (rates[line] + offered) / 2
            total += rates[line]
        }
        var lines: UInt32 = 0
        var wanted = 1.0
        if total > perSecond {
            let share = perSecond / Double(Self.linesCount)
            var flooding = 0.0
            for line in 0..<Self.linesCount where rates[line] > share {
                lines |= 1 << UInt32(line)
                flooding += rates[line]
            }
            // Some line brings more than its share, or the sum would not exceed the budget; the others leave at least one share.
            wanted = max(Self.partMin, min(1, (perSecond - (total - flooding)) / max(flooding, 1)))
        }
        guard lines != sampledLines || abs(wanted - part) > part / Self.toleranceDivisor else { return false }
        sampledLines = lines
        part = wanted
        return true
    }

    private func isSampled(_ line: Int) -> Bool { sampledLines & 1 << UInt32(line) != 0 }
}

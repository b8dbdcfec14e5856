/// What `ping` printed of a run, echo by echo.
struct Echoes: CustomStringConvertible {
    private(set) var answered: Set<Int> = []
    /// What it was told instead of an answer.
    private(set) var errors: [Substring] = []
    private(set) var sentCount = 0
    private var title: Substring = ""
    /// Seconds since 1970, where ping was called with -D.
    private var times: [Int: Substring] = [:]

    init(_ text: String) {
        for line in text.split(separator: "\n") {
            if line.hasPrefix("From ") || line.hasPrefix("ping: ") {
                errors.append(line)
            } else if line.hasPrefix("PING ") {
                title = line
            } else if let match = line.firstMatch(of: /bytes from .*icmp_seq=(\d+)/), let number = Int(match.1) {
                answered.insert(number)
                times[number] = line.firstMatch(of: /^\[([0-9.]+)\]/)?.1
            } else if let match = line.firstMatch(of: /^(\d+) packets transmitted/), let count = Int(match.1) {
                sentCount = count
            }
        }
    }

    /// Those without an answer though a later one was answered.
    var lost: [Int] { (1...max(1, answered.max() ?? 0)).filter { !answered.contains($0) } }
    /// Those sent after the last that was answered.
    var underWayCount: Int { sentCount - (answered.max() ?? 0) }
    /// Each was answered, and none got an error, but for the one that was under way when ping was interrupted.
    var isWhole: Bool { lost.isEmpty && errors.isEmpty && underWayCount <= 1 }

    var description: String {
        let since = lost.first.flatMap { times[$0 - 1] }.map { " after \($0)" } ?? ""
        let end = "lost \(lost.prefix(20))\(since), \(underWayCount) under way, errors \(errors.prefix(5))"
        return "\(title): \(sentCount) sent, \(answered.count) answered, \(end)"
    }
}

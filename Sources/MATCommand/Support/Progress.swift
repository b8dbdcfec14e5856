import Glibc
import MATRuntime
import MATSignal

/// How far long work is: one line of the terminal, written anew twice a second. Nothing where standard error is no terminal.
struct Progress {
    private static let pause: Duration = .milliseconds(500)

    /// What is counted, as in "lines imported".
    private let noun: String
    private let isShown = isatty(STDERR_FILENO) == 1
    private var count = 0
    private var due = SystemClock.now().monotonic + Self.pause
    private var isWritten = false

    init(_ noun: String) { self.noun = noun }

    mutating func advance(by steps: Int) {
        count += steps
        guard isShown, SystemClock.now().monotonic >= due else { return }
        due = SystemClock.now().monotonic + Self.pause
        isWritten = true
        Self.write("\r\(count) \(noun)\u{1B}[K")
    }

    /// Takes the line away, for what comes next.
    mutating func end() {
        if isWritten { Self.write("\r\u{1B}[K") }
        isWritten = false
    }

    private static func write(_ text: String) {
        let octets = Array(text.utf8)
        _ = Glibc.write(STDERR_FILENO, octets, octets.count)
    }
}

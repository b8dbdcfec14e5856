import FoundationEssentials
import Glibc
import Namespaces

/// A process of a lab, known by a file with its id and when it was started, since the lab outlives the program that builds it.
struct RecordedProcess {
    /// Until it is killed.
    private static let patienceSeconds = 5.0

    let file: String

    /// Starts a program in a namespace, which goes on when this one has ended.
    static func start(_ command: [String], in namespace: String, log: String, file: String) throws {
        let child = try Child(["ip", "netns", "exec", namespace] + command, output: .file(log), inNewSession: true)
        try "\(child.pid) \(birth(child.pid).map { "\($0)" } ?? "")\n".write(toFile: file, atomically: false, encoding: .utf8)
    }

    /// The process, if it still runs. Its id alone does not tell: the kernel gives it to others later.
    var pid: pid_t? {
        let fields = ((try? String(contentsOfFile: file, encoding: .utf8)) ?? "").split(whereSeparator: \.isWhitespace)
        guard fields.count == 2, let pid = pid_t(fields[0]), let born = UInt64(fields[1]), Self.birth(pid) == born else { return nil }
        return pid
    }

    /// When a process was started, in the kernel's ticks; `nil` if it has ended. A zombie that its parent has not collected yet is as good
    /// as gone.
    private static func birth(_ pid: pid_t) -> UInt64? {
        guard let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8), let end = stat.lastIndex(of: ")") else { return nil }
        // The program's name, in parentheses, may hold anything. After it come the state (field 3) and, as field 22, the time.
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }

    /// Ends the processes that run, and waits for them.
    static func end(_ processes: [RecordedProcess], _ signal: Int32 = SIGTERM) {
        for process in processes { if let pid = process.pid { kill(pid, signal) } }
        for process in processes {
            let deadline = monotonicSeconds() + patienceSeconds
            while process.pid != nil, monotonicSeconds() < deadline { usleep(10_000) }
            if let pid = process.pid { kill(pid, SIGKILL) }
            unlink(process.file)
        }
    }
}

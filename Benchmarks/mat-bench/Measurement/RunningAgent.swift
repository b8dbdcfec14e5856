import BenchSupport
import Foundation
import Glibc
import Namespaces

/// The real `matd`, registered and with peers, in a lab of its own (deploy/lab): what it holds and uses while nothing happens.
struct RunningAgent {
    /// Where mat, matd and imsd are.
    let programs: String
    let script: String
    let seconds: Double

    private let name = "mbl\(getpid())"

    init(beside program: String, seconds: Double) throws {
        programs = URL(fileURLWithPath: program).deletingLastPathComponent().path
        // .build/TRIPLE/release or .build/release: the project is above .build.
        guard let range = programs.range(of: "/.build/") else { throw BenchError("\(programs) is not in a build directory") }
        script = String(programs[..<range.lowerBound]) + "/deploy/lab"
        self.seconds = seconds
    }

    /// - Returns: resident memory, and the share of one core over `seconds`, of mn's agent with one peer in each family.
    func run() throws -> [ChangeFigure] {
        for needed in ["mat", "matd", "imsd", "mat-relay", "mat-lab"] where access("\(programs)/\(needed)", X_OK) != 0 {
            throw BenchError("\(programs)/\(needed) is not built")
        }
        CleanUp.shared.lastCommand = "\(script) --name \(name) down"
        defer {
            _ = try? shell("\(script) --name \(name) down")
            CleanUp.shared.lastCommand = nil
        }
        try shell("\(script) --name \(name) --bin \(programs) up")
        for peer in ["198.51.100.20", "2001:db8:20::20"] { try shell("ip netns exec \(name)-mn ping -c 3 -i 0.2 -W 3 \(peer)") }
        let text = try String(contentsOfFile: "/run/\(name)/mn/matd.pid", encoding: .utf8)
        guard let process = text.split(separator: " ").first else { throw BenchError("no id of matd in \(text)") }
        // What the conversation's start has left to do is done by then, and the counts are left to the kernel (`NodeShell`).
        sleep(15)
        let start = try used(process)
        usleep(UInt32(seconds * 1e6))
        let share = (try used(process) - start) / (seconds * 1e9)
        let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        func kilobytes(_ key: String) -> Double {
            let line = status.split(separator: "\n").first { $0.hasPrefix(key) }
            return line.flatMap { Double($0.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first ?? "") } ?? 0
        }
        return [
            ChangeFigure(name: "matd: resident", unit: "MB", peers: 2, values: [kilobytes("VmRSS:") * 1024 / 1e6]),
            ChangeFigure(name: "matd: resident, without file pages", unit: "MB", peers: 2, values: [kilobytes("RssAnon:") * 1024 / 1e6]),
            ChangeFigure(name: "matd: processor while idle, \(Int(seconds)) s", unit: "%", peers: 2, values: [share * 100]),
        ]
    }

    /// Nanoseconds on a processor so far: the first number of /proc/PID/schedstat.
    private func used(_ process: Substring) throws -> Double {
        let text = try String(contentsOfFile: "/proc/\(process)/schedstat", encoding: .utf8)
        guard let first = text.split(separator: " ").first, let value = Double(first) else { throw BenchError("schedstat: \(text)") }
        return value
    }
}

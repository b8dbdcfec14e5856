import Foundation
import Synchronization

/// What subscribers were told, when, and by whom.
final class PushLog: Sendable {
    static let subscribersCount = 12

    struct Pushed {
        var at: Int64
        var servers: Set<Int>
        /// Datagrams, retransmissions among them.
        var count = 1
    }

    struct State {
        var subscribed = 0
        /// The sequence that is being registered.
        var tried: UInt64 = 0
        /// When each sequence was acknowledged to the node that moves, and in which phase.
        var acked: [(sequence: UInt64, at: Int64, phase: Int)] = []
        var phases: [String] = ["before"]
        /// By subscriber.
        var pushed = [[UInt64: Pushed]](repeating: [:], count: PushLog.subscribersCount)
        var complaints: [String] = []
    }

    private let state = Mutex(State())
    private let stopped = Mutex(false)
    var now: State { state.withLock { $0 } }
    func update(_ change: (inout sending State) -> Void) { state.withLock { change(&$0) } }
    var isStopped: Bool { stopped.withLock { $0 } }
    func stop() { stopped.withLock { $0 = true } }

    func begin(_ phase: String) { update { $0.phases.append(phase) } }
    func acknowledged(_ sequence: UInt64) { update { $0.acked.append((sequence, milliseconds(), $0.phases.count - 1)) } }

    func pushed(_ sequence: UInt64, to subscriber: Int, by server: Int) {
        update {
            if $0.pushed[subscriber][sequence] == nil {
                $0.pushed[subscriber][sequence] = Pushed(at: milliseconds(), servers: [server])
            } else {
                $0.pushed[subscriber][sequence]?.servers.insert(server)
                $0.pushed[subscriber][sequence]?.count += 1
            }
        }
    }

    struct Line: CustomStringConvertible {
        var phase: String
        var records = 0
        var pushed = 0
        var double = 0
        var datagrams = 0
        var worst: Int64 = 0
        var description: String {
            let share = pushed == 0 ? 0 : Double(double) / Double(pushed) * 100
            return "\(phase): \(records) records, \(pushed) pushed, \(double) of them (\(String(format: "%.1f", share)) %) by more than one "
                + "server, \(datagrams) datagrams, the latest news \(worst) ms old"
        }
    }

    /// Late is a subscriber that has not been told of a record, or of a newer one, so long after it was acknowledged.
    var report: [Line] {
        let now = now
        return now.phases.indices.dropFirst().map { phase in
            var line = Line(phase: now.phases[phase])
            for (sequence, at, _) in now.acked.filter({ $0.phase == phase }) {
                line.records += 1
                for pushed in now.pushed {
                    if let push = pushed[sequence] {
                        line.pushed += 1
                        line.datagrams += push.count
                        if push.servers.count > 1 { line.double += 1 }
                    }
                    guard let told = pushed.filter({ $0.key >= sequence }).map(\.value.at).min() else { continue }
                    line.worst = max(line.worst, told - at)
                }
            }
            return line
        }
    }

    func worstLateness(in phases: [String]) -> Int64 { report.filter { phases.contains($0.phase) }.map(\.worst).max() ?? 0 }

    func doubleShare(in phase: String) -> Double {
        let lines = report.filter { $0.phase == phase }
        let pushed = lines.reduce(0) { $0 + $1.pushed }
        return pushed == 0 ? 0 : Double(lines.reduce(0) { $0 + $1.double }) / Double(pushed)
    }

    /// Subscribers that were not told of a record nor of a newer one, though it was acknowledged a second before the end.
    var missed: [String] {
        let now = now
        guard let end = now.acked.last?.at else { return [] }
        return now.acked.filter { $0.at < end - 1000 }.flatMap { sequence, _, phase in
            now.pushed.indices.filter { !now.pushed[$0].keys.contains { $0 >= sequence } }
                .map { "subscriber \($0) was not told of \(sequence) (\(now.phases[phase]))" }
        }
    }
}

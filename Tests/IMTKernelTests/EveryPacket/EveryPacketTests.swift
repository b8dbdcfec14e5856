import Foundation
import Namespaces
import Synchronization
import Testing

/// The property that everything else serves, on every combination of what a packet, a socket, the node and the agent can be: see
/// PacketModel for what is expected, and PacketWorld for how it is watched.
@Suite("Every packet", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct EveryPacketTests {
    @Test(
        "No packet of a mapped conversation meets the wrong party, and no HoA leaves untranslated, whatever the agent knows",
        .timeLimit(.minutes(3)))
    func everyPacket() throws {
        let began = Date()
        // A part of the states, for a person who looks for a cause.
        let part = ProcessInfo.processInfo.environment["PACKET_STATES"]
        let isProtected = try PacketWorld(.away).isProtected()
        if !isProtected { print("Every packet: without flushed rulesets, from which this kernel can't keep tables") }
        let states = NodeState.allCases.filter { state in
            (part.map { "\(state)".contains($0) } ?? true) && (isProtected || state.agent != .flushed)
        }
        let next = Mutex(0)
        let results = Mutex((violations: [Violation](), count: 0))
        // Each in a thread that stays on its processor; most of the time is waiting, for `ip` and for what openers wait.
        let workers = (0..<4).map { number in
            BackgroundWork {
                stayOnOneProcessor(number % max(1, ProcessInfo.processInfo.processorCount))
                while true {
                    let place = next.withLock { value in
                        value += 1
                        return value - 1
                    }
                    guard place < states.count else { return }
                    let (found, count): ([Violation], Int)
                    do {
                        let run = try PacketRun(states[place])
                        found = try run.run()
                        count = run.count
                    } catch {
                        throw ShellError("\(states[place]): \(error)")
                    }
                    results.withLock {
                        $0.violations += found
                        $0.count += count
                    }
                }
            }
        }
        for worker in workers { try worker.wait() }
        let (violations, count) = results.withLock { ($0.violations, $0.count) }
        let expected = states.reduce(0) { $0 + 2 * (2 * $1.arrivals.count + LeavingPacket.all.count) }
        print(
            "Every packet: \(count) combinations in \(states.count) states of the node, \(violations.count) violations, \(Int(Date().timeIntervalSince(began))) s"
        )
        #expect(count == expected)
        #expect(violations.isEmpty, "\n\(Self.table(violations))")
    }

    /// Like ones together: a line for each rule and what became of its packets, with the values of each dimension that it was so with.
    static func table(_ violations: [Violation], linesMax: Int = 80) -> String {
        struct Line: Hashable {
            var expected: String, seen: String, own: OwnAddress, place: Place
        }
        let groups = Dictionary(grouping: violations) {
            Line(expected: $0.expected, seen: $0.seen, own: $0.node.own, place: $0.node.place)
        }
        let lines = groups.map { line, found in
            func values(_ all: [String], _ of: (Violation) -> String) -> String {
                let present = Set(found.map(of))
                return present.isSuperset(of: all) && all.count > 1 ? "*" : present.sorted().joined(separator: ", ")
            }
            return [
                line.expected, line.seen, line.place.rawValue, line.own.rawValue,
                values(AgentState.allCases.map(\.rawValue), \.node.agent.rawValue),
                values(["IPv4", "IPv6"]) { $0.isIPv4 ? "IPv4" : "IPv6" },
                values(["first", "again"]) { $0.isRepeated ? "again" : "first" },
                values(SourceState.allCases.map(\.rawValue), \.party),
                values(ArrivingKind.allCases.map(\.rawValue), \.kind), values(SocketState.allCases.map(\.rawValue), \.socket),
                "\(found.count)",
            ]
        }.sorted { $0.lexicographicallyPrecedes($1) }
        let titles = ["should be", "was", "home", "own address", "agent", "family", "time", "peer", "packet", "socket", "count"]
        let widths = titles.indices.map { column in ([titles] + lines).map { $0[column].count }.max() ?? 0 }
        let shown = ([titles] + lines.prefix(linesMax)).map { line in
            zip(line, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }.joined(separator: "  ")
        }
        return (shown + (lines.count > linesMax ? ["and \(lines.count - linesMax) more"] : [])).joined(separator: "\n")
    }
}

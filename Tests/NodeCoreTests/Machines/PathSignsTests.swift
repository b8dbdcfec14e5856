import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Signs of a path") struct PathSignsTests {
    private var path = PathSigns(time(0))

    /// Reads the counts every 100 ms, from a time until another.
    private mutating func read(
        _ from: Int64, _ to: Int64, sending: (Int64) -> Bool = { _ in true }, hearing: (Int64) -> Bool = { _ in false }
    ) -> [(at: Int64, action: PathSigns.Action)] {
        var actions: [(at: Int64, action: PathSigns.Action)] = []
        for at in stride(from: from, through: to, by: 100) {
            while let due = path.due, due <= time(at), let action = path.takeDue(due) {
                actions.append(((due - time(0)).millisecondsSaturated, action))
            }
            if sending(at) { sent += 1 }
            if hearing(at) { heard += 1 }
            if let action = path.counted(sent: sent, heard: heard, time(at)) { actions.append((at, action)) }
        }
        return actions
    }

    private var sent: UInt64 = 0
    private var heard: UInt64 = 0

    @Test("A path that is sent to and gives no sign for 500 ms is probed, and left after two probes unanswered")
    mutating func silence() {
        #expect(read(0, 1000, hearing: { _ in true }).isEmpty)
        let actions = read(1100, 3000)
        #expect(actions.map(\.at) == [1600, 1850, 2100])
        #expect(actions.map(\.action) == [.probe, .probe, .leave])
        #expect(path.isSilent)
    }

    @Test("What is known of its round trip says how long an answer is waited for, within bounds", arguments: [(10, 100), (200, 400), (3000, 1000)])
    mutating func roundTrip(_ known: Int, wait: Int) {
        path.learn(roundTrip: .milliseconds(known))
        #expect(read(0, 5000).map(\.at) == [600, 600 + Int64(wait), 600 + 2 * Int64(wait)])
    }

    @Test("A stream that nobody answers keeps its path for as long as probes are answered")
    mutating func oneWay() {
        var probes = 0
        for at in stride(from: Int64(0), through: 60_000, by: 100) {
            for (_, action) in read(at, at) {
                guard action == .probe else {
                    Issue.record("left at \(at) ms")
                    return
                }
                probes += 1
                path.sign(time(at + 40))
            }
        }
        #expect((80...120).contains(probes), "\(probes)")
    }

    @Test("The last packet of a conversation wants no answer, and nothing is asked; nor of a path that only receives")
    mutating func lastPacket() {
        #expect(read(0, 1000, hearing: { _ in true }).isEmpty)
        #expect(read(1100, 10_000, sending: { $0 == 1100 }).isEmpty)
        #expect(!path.isInUse)
        #expect(read(10_100, 20_000, sending: { _ in false }, hearing: { _ in true }).isEmpty)
    }

    @Test("A packet on the path, or an answer, ends every doubt, also after it was left")
    mutating func recovery() {
        #expect(read(0, 700).map(\.action) == [.probe])
        path.sign(time(710))
        #expect(path.due == nil)
        #expect(read(800, 5000).map(\.action) == [.probe, .probe, .leave])
        #expect(read(5100, 5100, hearing: { _ in true }).isEmpty)
        #expect(!path.isSilent)
    }

    @Test("Counts that begin anew, as after a change of the path's endpoint, are no sign and no silence")
    mutating func countsAnew() {
        #expect(read(0, 400).isEmpty)
        (sent, heard) = (0, 0)
        #expect(read(500, 500).isEmpty)
        #expect(read(600, 800).map(\.at) == [600])
    }

    @Test("Its counts are read for two seconds after the last packet")
    mutating func use() {
        #expect(read(0, 1000).map(\.action).first == .probe)
        path.sign(time(1000))
        #expect(read(1100, 2900, sending: { _ in false }).isEmpty && path.isInUse)
        #expect(read(3000, 3100, sending: { _ in false }).isEmpty && !path.isInUse)
        path.use(time(4000))
        #expect(path.isInUse)
    }
}

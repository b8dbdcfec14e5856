import Foundation
import MATSignal
import MATTesting
import NodeCore
import Testing

/// Dictionaries and sets are walked in another order in every process. What is decided must not depend on it: a seed that shows a fault has to
/// show it again, and two nodes that are told the same have to do the same.
///
/// The test's own executable is run again by itself, with another hash seed each time, and writes down every action of every core in order.
@Suite("The same seed gives the same run") struct SameRunTests {
    private static let logVariable = "MAT_ACTION_LOG"
    /// Of the run that is written down. With both set by hand, two builds can be compared over many runs.
    private static let seedVariable = "MAT_ACTION_SEED"

    @Test("Every action of every node and server is the same in three processes with different hash seeds")
    func processes() throws {
        if let path = ProcessInfo.processInfo.environment[Self.logVariable] {
            let seed = ProcessInfo.processInfo.environment[Self.seedVariable].flatMap(UInt64.init) ?? 5
            try Data(Self.actions(seed: seed).joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: path))
            return
        }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("mat-same-run-\(ProcessInfo.processInfo.processIdentifier)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let runs = try [true, false, false].enumerated().map { index, isDeterministic in
            try Self.run(isDeterministic, writing: folder.appendingPathComponent("\(index)"))
        }
        let logs = try runs.map { try $0() }
        #expect(logs[0].count > 5000, "only \(logs[0].count) actions")
        for other in logs.dropFirst() where other != logs[0] {
            let place = zip(logs[0], other).enumerated().first { $1.0 != $1.1 }
            Issue.record(
                "of \(logs[0].count) and \(other.count) actions, these are the first that differ: \(place.map { "\($0.offset): \($0.element)" } ?? "one goes on")"
            )
        }
    }

    /// Begins a run in a process of its own.
    ///
    /// - Returns: what waits for its end and reads what it wrote.
    private static func run(_ isDeterministic: Bool, writing log: URL) throws -> () throws -> [Substring] {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        process.arguments = ["--testing-library", "swift-testing", "--filter", "SameRunTests"]
        var environment = ProcessInfo.processInfo.environment
        environment[logVariable] = log.path
        environment["SWIFT_DETERMINISTIC_HASHING"] = isDeterministic ? "1" : nil
        process.environment = environment
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        return {
            process.waitUntilExit()
            #expect(process.terminationStatus == 0, "\(process.executableURL?.path ?? "") ended with \(process.terminationStatus)")
            return String(decoding: try Data(contentsOf: log), as: UTF8.self).split(separator: "\n")
        }
    }

    /// A network in which much happens at once: a node that talks to twelve others and to plain hosts, moves, stays without address, loses paths,
    /// and starts anew, with tables so small that they are always full.
    static func actions(seed: UInt64) -> [String] {
        let network = SimulatedNetwork(
            seed: seed, conditions: NetworkConditions(latency: .milliseconds(2) ... .milliseconds(40), loss: 0.1, duplication: 0.05))
        var lines: [String] = []
        network.onAction = { lines.append(shortened($0)) }
        let dns = SimulatedDNS(network)
        let authorities = [TestAuthority(seed: 201), TestAuthority(seed: 202)]
        let servers = [
            SimulatedIMS(network, dns, addresses: [ip("192.88.1.1")], serving: prefix("198.51.100.0/24"), authority: authorities[0]),
            SimulatedIMS(
                network, dns, addresses: [ip("192.88.2.1"), ip("192.88.2.2")], serving: prefix("203.0.113.0/24"), authority: authorities[1]),
        ]
        let mn = SimulatedNode(network, dns, authorities[0].enrol(home("198.51.100.1"), seed: 11)) { configuration in
            configuration.serversMax = 6
            configuration.strangersMax = 4
            configuration.paths.pathsMax = 6
            configuration.paths.detoursMax = 2
            configuration.peerIdleMax = .seconds(40)
        }
        let others = (0..<12).map { (index: Int) -> SimulatedNode in
            let hoa: HomeAddress = home((index % 2 == 0 ? "198.51.100." : "203.0.113.") + String(20 + index))
            return SimulatedNode(network, dns, authorities[index % 2].enrol(hoa, seed: UInt8(20 + index)))
        }
        let plain = (0..<8).map { SimulatedPlainHost(network, at: ip("198.18.9.\(10 + $0)")) }
        mn.move(to: [ip("192.0.2.10"), ip("192.0.3.10")])
        for (index, node) in others.enumerated() { node.move(to: [ip("198.18.0.\(10 + index)"), ip("198.18.1.\(10 + index)")]) }
        network.run(for: .seconds(3))

        var sent = 0
        func talk(_ seconds: Int) {
            for _ in 0..<seconds * 5 {
                sent += 1
                for node in others {
                    mn.send(UserPacket(sent, .segment), to: node.hoa.address)
                    if !node.delivered.isEmpty { node.send(UserPacket(sent, .segment), to: mn.hoa.address) }
                }
                for host in plain {
                    mn.send(UserPacket(sent, .datagram), to: host.address)
                    if let place = mn.locators.first?.moa.address { host.send(UserPacket(sent, sent % 3 == 0 ? .opening : .segment), to: place) }
                }
                network.run(for: .milliseconds(200))
            }
        }
        talk(5)
        // Overlap, a path that is dead though its link is up, no address at all, and another.
        mn.move(to: [ip("192.0.3.10"), ip("192.0.2.10")])
        talk(3)
        network.isCut = { $0 == ip("192.0.3.10") || $1 == ip("192.0.3.10") }
        talk(6)
        network.isCut = { _, _ in false }
        mn.move(to: [])
        talk(2)
        mn.move(to: [ip("192.0.4.10")])
        for (index, node) in others.prefix(4).enumerated() { node.move(to: [ip("198.18.2.\(10 + index)")]) }
        talk(4)
        // A new agent finds entries of peers of which some are gone, and asks a server that has started anew.
        for node in others.suffix(3) { node.move(to: []) }
        mn.crash()
        servers[1].crash()
        servers[1].restart()
        mn.restart()
        talk(4)
        network.run(for: .seconds(75))
        talk(3)
        return lines
    }

    /// Enough to see what it is, and a digest (FNV-1a) of all of it.
    private static func shortened(_ line: String) -> String {
        var digest: UInt64 = 0xcbf2_9ce4_8422_2325
        for octet in line.utf8 { digest = (digest ^ UInt64(octet)) &* 0x100_0000_01b3 }
        return "\(line.prefix(120).replacing("\n", with: " ")) \(String(digest, radix: 16))"
    }
}

import ArgumentParser
import BenchSupport
import Foundation
import MATSignal
import Synchronization

struct Queries: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Asks where nodes are: as much as the server answers, or at a given rate.",
        discussion: """
            Without --rate so many queries as --window says are without an answer at any time (closed loop); with it they go out at that \
            rate whatever the server does (open loop), and latencies count from when each was due. With --notifies, --garbage, --joins: a flood \
            beside it, from the same thread. --recorded asks for what was asked for elsewhere, or for what a server holds, instead of drawing from \
            a population.
            """)

    @OptionGroup var target: TargetOptions
    @OptionGroup var query: QueryOptions
    @Option(
        help: ArgumentHelp(
            "Ask for the HoAs in this file, in its order: one on a line, an export of `mat ims export`, or a capture of `tcpdump -w`.",
            valueName: "file"))
    var recorded: String?
    @Option(help: "Messages a second, over all threads.") var rate: Double?
    @Option(help: "Datagrams without an answer at a time, per socket.") var window = 256
    @Option(help: "Sockets, each with a port of its own, per thread.") var sockets = 1
    @Option(help: "Threads.") var threads = 1
    @Option(help: "Not counted at the beginning, in seconds.") var warmUp = 0.3
    @Flag(help: "DNS queries for 00000000.bench. and so on instead (see --zone of population).") var dns = false
    @Option(help: "Beside it so many HA Notifies of strangers a second.") var notifies: Double?
    @Flag(help: "The strangers have no cookies: their sources could be forged.") var unproven = false
    @Option(help: "Beside it so many malformed datagrams a second.") var garbage: Double?
    @Option(help: "Beside it so many Joins a second, of sources with cookies.") var joins: Double?
    @Option(help: "The token that they are made with; a wrong one without it.") var token: String?

    mutating func validate() throws {
        guard (1...65_536).contains(window), (1...1024).contains(sockets), (1...64).contains(threads) else {
            throw ValidationError("--window wants 1 to 65536, --sockets 1 to 1024, --threads 1 to 64")
        }
        if recorded != nil, dns { throw ValidationError("--recorded has no names for --dns") }
        if let rate, rate < 1 { throw ValidationError("--rate wants at least 1") }
        guard warmUp >= 0, warmUp < 60 else { throw ValidationError("--warm-up wants 0 to 60") }
    }

    func run() throws {
        let needsNodes = recorded == nil || notifies != nil || garbage != nil || joins != nil
        let nodes = needsNodes ? try target.nodes() : nil
        let server = try target.endpoint()
        let asked = try recorded.map { Asked(try Recording(file: $0)) } ?? query.asked(try target.nodes(), seed: target.seed)
        let total = threads * sockets
        let pace = rate.map { Pace.rate($0 / Double(total)) } ?? .window(window * query.messages)
        let result = Mutex<(tally: Tally, failure: (any Error)?)>((Tally(), nil))
        let floods = Mutex<[(String, Tally)]>([])
        let command = self
        let body: @Sendable (Int) -> Void = { thread in
            do {
                try command.target.pin()
                let streams = try (0..<command.sockets).map { number in
                    try QueryStream(
                        QueryStream.Setting(
                            server: server, messagesPerDatagram: command.query.messages, pace: pace, isDNS: command.dns),
                        asked: asked, offset: (thread * command.sockets + number) * 77_777)
                }
                let beside = thread == 0 ? try nodes.map { try command.floods($0, server) } ?? [] : []
                // Only now: cookies and floods took their time.
                let countsFrom = Ticks.wall() &+ UInt64(command.warmUp * 1e9)
                let end = countsFrom &+ UInt64(command.target.seconds * 1e9)
                for stream in streams { stream.schedule(countsFrom: countsFrom, end: end) }
                for flood in beside { flood.stream.schedule(end: end) }
                Generator.run(streams as [any LoadStream] + beside.map(\.stream))
                result.withLock { for stream in streams { $0.tally.add(stream.tally) } }
                floods.withLock { list in
                    for (name, stream) in beside {
                        var tally = Tally()
                        tally.sent = stream.sent
                        tally.codes = stream.codes
                        list.append((name, tally))
                    }
                }
            } catch {
                result.withLock { $0.failure = $0.failure ?? error }
            }
        }
        let group = DispatchGroup()
        for thread in 1..<max(1, threads) where threads > 1 {
            group.enter()
            Thread.detachNewThread {
                body(thread)
                group.leave()
            }
        }
        body(0)
        group.wait()
        let (tally, failure) = result.withLock { $0 }
        if let failure { throw failure }
        var report = LoadReport(
            command: "queries",
            parameters: [
                "nodes": nodes.map { "\($0.count)" } ?? "", "recorded": recorded ?? "", "distribution": query.distribution,
                "messages": "\(query.messages)",
                "rate": rate.map { "\($0)" } ?? "closed loop", "window": "\(window)", "sockets": "\(total)",
            ])
        report.add("queries", tally, seconds: target.seconds)
        for (name, tally) in floods.withLock({ $0 }) { report.add(name, tally, seconds: target.seconds + warmUp) }
        try report.publish(json: target.json)
        if tally.ok == 0 { throw BenchError("no query was answered with ok") }
    }

    private func floods(_ nodes: Nodes, _ server: Endpoint) throws -> [(name: String, stream: FloodStream)] {
        var result: [(String, FloodStream)] = []
        if let notifies {
            let flood = try StrangerNotifies(isProven: !unproven).stream(nodes, server, rate: notifies, until: .max, seed: target.seed)
            result.append(("HA Notify flood", flood))
        }
        if let joins {
            let flood = try JoinsBeside(token: try token.map(parsed)).stream(nodes, server, rate: joins, until: .max, seed: target.seed)
            result.append(("Join flood", flood))
        }
        if let garbage {
            let strangers = try Strangers(isIPv4: server.address.isIPv4, count: 4096)
            let flood = Garbage.make(.mixed, from: strangers, about: nodes, seed: target.seed)
            result.append(
                ("malformed flood", FloodStream(flood, rate: garbage, until: .max, through: try LoadSocket(port: 0), to: server)))
        }
        return result
    }
}

import ArgumentParser
import MATControl
import MATRuntime
import MATSignal

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", abstract: "Say whether traffic is mapped or plain, why, and whether it survives a move.",
        discussion: """
            Of an address or name: what becomes of a conversation with it. Of a process: of each of its sockets. Of a socket, as \
            LOCAL:PORT-REMOTE:PORT or as ss(8) prints it: of that one. Exit status: 0 all of it goes on when this host or the other end moves, \
            1 some of it would not, or that is not known.
            """)

    @Argument(help: ArgumentHelp("An address, a process's number, a socket, or a host's name.", valueName: "what"))
    var what: [String]

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func validate() throws { _ = try target() }

    private func target() throws -> ExplainTarget {
        guard let target = ExplainTarget.parse(what) else {
            throw ValidationError(
                "mat explain takes an address, a process's number, or a socket such as 192.0.2.10:22-198.51.100.20:51234 (or a line of `ss -tun`), not \"\(what.joined(separator: " "))\""
            )
        }
        return target
    }

    func run() throws {
        let report = try report()
        try output.print(report) { ExplainText.text(report, $0) }
        if !report.survives { throw ExitCode(ExitStatus.failed.rawValue) }
    }

    private func report() throws -> ExplainReport {
        switch try target() {
        case .address(let address): return try explain([], addresses: [address])
        case .name(let name): return try explain([], addresses: try NameAddresses.of(name))
        case .process(let id):
            let sockets = try ProcessSockets.of(id)
            var report = try explain(sockets)
            report.process = ExplainReport.Process(id: id, name: ProcessSockets.name(of: id))
            if sockets.isEmpty { report.note = "it has no TCP or UDP sockets now" }
            return report
        case .end(let end):
            let sockets = ProcessSockets.all().filter { $0.local == end || $0.remote == end }
            guard sockets.isEmpty else { return try explain(sockets) }
            var report = try explain([], addresses: end.address.isUnspecified ? [] : [end.address])
            report.note = "no socket has \(end) at either end now; this is what would become of a new conversation with \(end.address)"
            return report
        case .socket(let local, let remote):
            let sockets = ProcessSockets.all().filter { $0.local == local && $0.remote == remote }
            guard sockets.isEmpty else { return try explain(sockets) }
            // As it is written at the other end.
            let reversed = ProcessSockets.all().filter { $0.local == remote && $0.remote == local }
            guard reversed.isEmpty else { return try explain(reversed) }
            var report = try explain([], addresses: [remote.address], from: local.address)
            report.note = "there is no such socket now; this is what would become of one"
            return report
        }
    }

    /// - Parameter addresses: beside the sockets, what is only an address.
    private func explain(_ sockets: [HostSocket], addresses: [IPAddress] = [], from own: IPAddress? = nil) throws(CommandFailure) -> ExplainReport {
        let connected = sockets.compactMap { socket in socket.remote.map { (socket: socket, remote: $0) } }
        let questions =
            connected.map { ExplainRequest.Conversation(local: "\($0.socket.local.address)", remote: "\($0.remote.address)") }
            + addresses.map { ExplainRequest.Conversation(local: own.map { "\($0)" }, remote: "\($0)") }
        var answers = TrafficReports(homes: [], traffic: [])
        var rest = questions[...]
        repeat {
            let part = try control.request(
                .explain, ExplainRequest(conversations: Array(rest.prefix(ExplainRequest.conversationsMax))), as: TrafficReports.self)
            answers.homes = part.homes
            answers.traffic += part.traffic
            rest = rest.dropFirst(ExplainRequest.conversationsMax)
        } while !rest.isEmpty
        guard answers.traffic.count == questions.count else {
            throw CommandFailure("matd answered about \(answers.traffic.count) of \(questions.count) conversations; are mat and matd of one version?")
        }
        let homes = answers.homes.compactMap { IPPrefix($0) ?? IPAddress($0).map { IPPrefix($0) } }
        return ExplainReport(
            process: nil, homes: answers.homes,
            conversations: answers.traffic.enumerated().map { index, traffic in
                ExplainReport.Conversation(
                    socket: connected.indices.contains(index) ? ExplainReport.Socket(connected[index].socket) : nil, traffic: traffic)
            }, waiting: sockets.filter { $0.remote == nil }.map { ExplainReport.Waiting($0, homes: homes) }, note: nil)
    }
}

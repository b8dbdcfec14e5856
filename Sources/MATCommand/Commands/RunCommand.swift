import ArgumentParser
import Glibc
import MATControl
import MATRuntime
import MATSignal

/// `--via`, of `mat run` and `mat attach`.
struct ViaOptions: ParsableArguments {
    @Option(
        name: .customLong("via"),
        help: ArgumentHelp(
            "What its sockets start from: a home address (once for each family at most), home for the first ones, plain for the network's own "
                + "addresses, gateway, or visited.", valueName: "home-address|home|plain|gateway|visited"))
    var vias: [String] = []

    func validate() throws {
        let addresses = vias.compactMap { IPAddress($0) }
        if addresses.count == vias.count {
            guard Set(addresses.map(\.family)).count == addresses.count else {
                throw ValidationError("--via takes one home address of each family at most")
            }
            return
        }
        guard vias.count == 1, SteerRequest.Via(rawValue: vias[0]) != nil else {
            throw ValidationError(
                "--via takes home addresses, or one of \(SteerRequest.Via.allCases.map(\.rawValue).joined(separator: ", ")), not \"\(vias.joined(separator: " "))\""
            )
        }
    }

    /// How long matd may take: a visited home is asked for from the network, the others are there.
    var timeout: Duration { vias == [SteerRequest.Via.visited.rawValue] ? .seconds(30) : .seconds(5) }

    func request(process: Int32?, network: UInt64?) -> SteerRequest {
        if let word = vias.first.flatMap(SteerRequest.Via.init(rawValue:)) { return SteerRequest(via: word, process: process, network: network) }
        return SteerRequest(via: .home, homes: vias.isEmpty ? nil : vias, process: process, network: network)
    }
}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Run a command as this node's home address, or plainly, whatever the rest of the host does.",
        usage: "mat run [--via <what>] [--control <path>] <command> [<argument> ...]",
        discussion: """
            The command and all that it starts use the addresses that --via names (by default the home addresses), whatever `traffic` in \
            matd.yaml says: whether it is linked statically or not, with threads, by way of shells or sudo. What a program binds itself to stays \
            its own choice. The kernel does it, by a control group; it ends with the last of these programs. Exit status: the command's; \
            126 it can't be run, 127 it is not there; 1 or 2 if matd refused or does not run.
            """)

    @OptionGroup var via: ViaOptions
    @OptionGroup var control: NodeControl

    @Argument(parsing: .captureForPassthrough, help: "The command, with its arguments.")
    var command: [String] = []

    func run() throws {
        let words = command.first == "--" ? Array(command.dropFirst()) : command
        guard let program = words.first else { throw ValidationError("Give a command to run, as in: mat run ssh host.example.net") }
        if program == "--help" || program == "-h" { throw CleanExit.helpRequest(self) }
        guard !program.hasPrefix("-") else { throw ValidationError("Unknown option '\(program)'") }
        // This process goes into the group, and becomes the command.
        let request = via.request(process: nil, network: ProcessFiles.network(of: getpid()))
        _ = try control.request(.steer, request, as: SteerReport.self, timeout: via.timeout)
        throw Self.become(words)
    }

    /// Only returns if the command can't be run.
    private static func become(_ words: [String]) -> CommandFailure {
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        execvp(words[0], arguments)
        let number = errno
        arguments.forEach { free($0) }
        return CommandFailure("\(words[0]): \(String(cString: strerror(number)))", status: number == ENOENT ? .commandNotFound : .commandNotRun)
    }
}

struct AttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach", abstract: "Have the next sockets of a running program start from this node's home address, or plainly.",
        discussion: """
            What the process makes and starts from now on is as if it had been started by `mat run`; sockets that it has stay as they are, and so do \
            processes that it has started. Users may do that to their own processes, root to all.
            """)

    @Argument(help: "The process.")
    var process: Int32

    @OptionGroup var via: ViaOptions
    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard process > 0 else { throw ValidationError("mat attach takes a process's number, not \(process)") }
    }

    func run() throws {
        let request = via.request(process: process, network: ProcessFiles.network(of: process))
        let report = try control.request(
            .steer, request, as: SteerReport.self, timeout: via.timeout, unanswered: "it may start from there all the same: see `mat ps`")
        try output.print(report) { _ in ProgramsText.text(report) }
    }
}

struct PsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "Show the programs that `mat run` and `mat attach` steer, their sockets, and how those reach their peers.",
        discussion: "Whose a socket is, is shown of processes that you may look into: your own, or as root all.")

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func run() throws {
        var report = try control.request(.programs, as: ProgramsReport.self)
        let holders = ProcessFiles.sockets(of: Set(report.groups.flatMap { $0.programs.map(\.process) }))
        for group in report.groups.indices {
            for socket in report.groups[group].sockets.indices {
                report.groups[group].sockets[socket].process = holders[report.groups[group].sockets[socket].inode]
            }
        }
        try output.print(report) { ProgramsText.text(report, $0) }
    }
}

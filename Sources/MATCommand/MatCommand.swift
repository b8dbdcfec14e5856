import ArgumentParser
import Glibc
import MATRuntime

/// The root of `mat`: only configuration. Each subcommand is in a file of its own; what they print is made by pure functions in Reports.
public struct MatCommand: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "mat", abstract: "Looks at and steers MAT: IP mobility without tunnels.",
        discussion: """
            Exit status: 0 done, 1 the answer is no or something failed, 2 the daemon can't be reached, 3 it was asked and gave no answer, 64 wrong usage. \
            The manual: mat(1).
            """,
        version: MATVersion.text,
        groupedSubcommands: [
            CommandGroup(
                name: "This node:",
                subcommands: [
                    StatusCommand.self, PeersCommand.self, TopCommand.self, ExplainCommand.self, WhyCommand.self, TraceCommand.self,
                    CaptureCommand.self,
                    HistoryCommand.self,
                    HandoverCommand.self,
                    LookupCommand.self, DoctorCommand.self, BugreportCommand.self,
                ]),
            CommandGroup(name: "Single programs:", subcommands: [RunCommand.self, AttachCommand.self, PsCommand.self]),
            CommandGroup(
                name: "Setting up:",
                subcommands: [JoinCommand.self, LeaveCommand.self, KeygenCommand.self, EnrolCommand.self, ZoneCommand.self]),
            CommandGroup(name: "A mapping server:", subcommands: [IMSCommand.self]),
        ])

    public init() {}

    /// Parses the process's arguments and runs the command. Does not return.
    public static func execute() -> Never {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let failure as CommandFailure {
            StandardError.write("mat: \(failure)")
            Glibc.exit(failure.status.rawValue)
        } catch {
            exit(withError: error)
        }
        Glibc.exit(0)
    }
}

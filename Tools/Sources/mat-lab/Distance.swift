import ArgumentParser
import MATLab

/// What makes paths long. The lab starts it.
struct DistanceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "distance", abstract: "Be a long way: what is routed into an interface comes out of it later; until ended by a signal.",
        discussion: "`delay r 20` puts it into the middle of the lab.")

    @Argument(help: "The interface to make.") var device: String
    @Argument(help: "1 to 60000.") var milliseconds: Int

    func run() throws {
        Interruption.watch()
        try complaining {
            guard (1...60_000).contains(milliseconds) else { throw LabError("distance needs milliseconds, 1 to 60000") }
            try Distance.run(device, milliseconds: milliseconds)
        }
    }
}

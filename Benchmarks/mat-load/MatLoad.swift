import ArgumentParser
import MATRuntime

@main
struct MatLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mat-load", abstract: "Puts load on an IMS, and tells what came of it.",
        discussion: "`mat-load population` first: it makes the nodes that the others speak for. docs/ims-benchmarks.md has examples.",
        version: MATVersion.text,
        subcommands: [
            PopulationCommand.self, Queries.self, UpdatesCommand.self, Notifies.self, Malformed.self, Storm.self, JoinsCommand.self,
        ])
}

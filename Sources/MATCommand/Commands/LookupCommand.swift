import ArgumentParser
import MATRuntime
import MATSignal

struct LookupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lookup",
        abstract: "Find out where a home address is: DNS, its IMS, the mapping, and whether to believe it.",
        discussion:
            "Goes the way a node goes, without any daemon, and shows each step. Fails (1) unless the address is registered and verified."
    )

    @Argument(help: "The home address.", transform: reading(.homeAddress))
    var hoa: HomeAddress

    @Option(
        help: ArgumentHelp("Ask this DNS server instead of the system's; may be repeated.", valueName: "address"),
        transform: reading(.endpoint(defaultPort: 53)))
    var resolver: [Endpoint] = []

    @OptionGroup var output: OutputOptions

    func run() throws {
        let findings = try LookupWalk.run(hoa, resolvers: resolver)
        try output.print(LookupJSON(value: LookupReport.json(findings))) { LookupReport.text(findings, $0) }
        // The report has said it all.
        if case .not = findings.verdict { throw ExitCode(ExitStatus.failed.rawValue) }
    }
}

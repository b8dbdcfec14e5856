import ArgumentParser
import MATRuntime
import MATSignal

struct LookupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lookup",
        abstract: "Find out where a home address is: DNS, its IMS, the mapping, and whether to believe it.",
        discussion:
            "Goes the way a node goes, without any daemon, and shows each step. DNS servers are those that matd.yaml names, else the system's. Of a name, of each of its addresses, as programs find them. Fails (1) unless all are registered and verified."
    )

    enum Target {
        case address(HomeAddress)
        case name(String)
    }

    @Argument(
        help: ArgumentHelp("The home address, or a host's name.", valueName: "hoa"),
        transform: { text in NameAddresses.isName(text) ? .name(text) : .address(try reading(.homeAddress)(text)) })
    var target: Target

    @Option(
        help: ArgumentHelp("Ask this DNS server instead of those that matd asks; may be repeated.", valueName: "address"),
        transform: reading(.endpoint(defaultPort: 53)))
    var resolver: [Endpoint] = []

    @OptionGroup var output: OutputOptions

    func run() throws {
        var isRegistered = true
        let dns = DNSChoice(named: resolver)
        for (index, hoa) in try homes().enumerated() {
            let findings = try LookupWalk.run(hoa, by: dns)
            if index > 0, !output.json { print() }
            try output.print(LookupJSON(value: LookupReport.json(findings))) { LookupReport.text(findings, $0) }
            if case .not = findings.verdict { isRegistered = false }
        }
        // The reports have said it all.
        if !isRegistered { throw ExitCode(ExitStatus.failed.rawValue) }
    }

    private func homes() throws(CommandFailure) -> [HomeAddress] {
        switch target {
        case .address(let hoa): [hoa]
        case .name(let name): try NameAddresses.of(name).map(HomeAddress.init)
        }
    }
}

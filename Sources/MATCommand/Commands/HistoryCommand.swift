import ArgumentParser
import MATControl
import MATRuntime

struct HistoryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Show the latest handovers: from where to where, why, and how long they took.",
        discussion: """
            matd remembers the latest 256 since its start. REGISTERED is the time from having the new address to the mapping server's ack, PEERS \
            how many of those that were talked to know the new address, and when the last of them did. HELD packets waited in the agent for a \
            way; those LOST waited for too long.
            """)

    @Option(name: [.customShort("n"), .long], help: ArgumentHelp("Show the latest so many.", valueName: "count"))
    var last: Int?

    @Option(help: ArgumentHelp("Draw them into this file as a picture (SVG).", valueName: "file"))
    var svg: String?

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard last.map({ $0 > 0 }) ?? true else { throw ValidationError("--last takes a number above 0") }
    }

    func run() throws {
        var report = try control.request(.history, as: HistoryReport.self)
        if let last { report.handovers = report.handovers.suffix(last) }
        if let svg {
            try OutputFile.write(HistoryPicture.svg(report), to: svg, .kept(new: 0o666))
        }
        try output.print(report) { HistoryText.text(report, $0) }
    }
}

import ArgumentParser
import IMS
import MATControl

extension IMSCommand {
    struct Import: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take over what `mat ims export` wrote, into the running imsd or, with --config, into the store of a stopped one.",
            discussion: """
                Everything is checked: the file's checksum, that the prefixes are served, certificates and signatures. Nothing is taken back: \
                what is older than what is held stays away. What is skipped is said, with the reason. Fails (1) if anything was skipped.
                """)

        @Argument(help: "The exported file.")
        var file: String

        @Flag(help: "Take nothing; say what would be skipped.")
        var check = false

        @Option(help: ArgumentHelp("imsd is stopped: write into the store that this imsd.yaml names.", valueName: "file"))
        var config: String?

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        /// A request of imsd's control socket has at most 65,536 octets.
        private static let requestOctetsMax = 60_000

        func run() throws {
            let source = try TransferSource(path: file)
            let outcome =
                if let config { try StoredTransfer(config, control).import(source, isTrial: check) } else { try importIntoDaemon(source) }
            var report = outcome.report
            report.exportedAtMilliseconds = source.header.exportedAt
            try output.print(report) { IMSText.transfer(outcome, isTrial: check, $0) }
            guard outcome.skippedCount == 0 else { throw ExitCode(ExitStatus.failed.rawValue) }
        }

        private func importIntoDaemon(_ source: TransferSource) throws(CommandFailure) -> TransferOutcome {
            var sum = TransferOutcome()
            var progress = Progress(check ? "lines checked" : "lines imported")
            defer { progress.end() }
            try source.forEachGroup(lines: 1024, octets: Self.requestOctetsMax) { lines throws(CommandFailure) in
                let request = ImportRequest(lines: lines.map(\.json), check: check)
                sum += TransferOutcome(
                    try control.request(
                        .import, request, as: ImportReport.self, timeout: .seconds(60),
                        unanswered: "imsd may have taken them all the same: import again, which takes what is missing"))
                progress.advance(by: lines.count)
            }
            return sum
        }
    }
}

import ArgumentParser
import Glibc
import IMS
import MATControl
import MATRuntime

extension IMSCommand {
    struct Export: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write all mappings and certificates as lines of JSON, for `mat ims import`.",
            discussion: """
                From the running imsd, or with --config from the store that this configuration names, while imsd is stopped. The first line \
                says what it is, the last how many lines there are and their checksum; imsd(8) describes the others.
                """)

        @Option(help: ArgumentHelp("Write to this file (mode 0600) instead of standard output.", valueName: "file"))
        var out: String?

        @Flag(help: "Also the secrets that cookies are made with, so that nodes' cookies stay valid, and tokens. Keep the file secret.")
        var secrets = false

        @Option(help: ArgumentHelp("imsd is stopped: read the store that this imsd.yaml names.", valueName: "file"))
        var config: String?

        @OptionGroup var control: IMSControl

        func run() throws {
            let sink = try TransferSink(path: out)
            var progress = Progress("lines exported")
            defer { progress.end() }
            func take(_ line: TransferLine) throws(CommandFailure) {
                try sink.write(line)
                // Lines that go to the terminal themselves show how far it is.
                if out != nil { progress.advance(by: 1) }
            }
            if let config { try StoredTransfer(config, control).export(secrets: secrets, take) } else { try exportFromDaemon(take) }
            let trailer = try sink.finish()
            progress.end()
            let mappings = Quantity.count(Int64(trailer.mappings), "mapping")
            StandardError.write("mat: exported \(mappings) and \(Quantity.count(Int64(trailer.certificates), "further certificate"))")
        }

        private func exportFromDaemon(_ take: (TransferLine) throws(CommandFailure) -> Void) throws(CommandFailure) {
            var place = ExportPlace()
            while true {
                let answer = try control.request(
                    .export, ExportRequest(place, secrets: secrets), as: ExportReport<JSONValue>.self, timeout: .seconds(60))
                for value in answer.lines {
                    let line: TransferLine
                    do throws(TransferError) {
                        line = try TransferLine(json: value)
                    } catch {
                        throw CommandFailure("a line of imsd's answer can't be read: \(error); are mat and imsd of one version?")
                    }
                    try take(line)
                }
                guard let next = answer.next else { return }
                place = next
            }
        }
    }
}

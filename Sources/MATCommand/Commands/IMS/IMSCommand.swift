import ArgumentParser
import MATControl
import MATRuntime
import MATSignal

struct IMSCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ims", abstract: "Look at and run the mapping server (imsd) of this host.",
        subcommands: [Status.self, List.self, Show.self, Revoke.self, Export.self, Import.self, Metrics.self, Token.self, Enrolled.self])

    struct Status: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show prefixes, keys, certificates, store and what was received and answered.")

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func run() throws {
            let status = try control.request(.status, as: IMSStatusReport.self)
            try output.print(status) { IMSText.status(status, $0) }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one mapping, where it came from and who follows it.")

        @Argument(help: "The home address.", transform: reading(.homeAddress))
        var hoa: HomeAddress

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func run() throws {
            let mapping = try control.request(.show, ShowRequest(hoa: "\(hoa)"), as: MappingReport.self)
            try output.print(mapping) { IMSText.mapping(mapping, now: SystemClock.now(), $0) }
        }
    }

    struct Metrics: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print what imsd counts, as Prometheus would read it.",
            discussion: "imsd.yaml's `metrics: listen:` offers the same over HTTP.")

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func run() throws {
            let metrics = try control.request(.metrics, as: MetricsReport.self)
            try output.print(MetricFamilies(families: metrics.families)) { _ in metrics.text }
        }
    }
}

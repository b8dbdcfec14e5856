import ArgumentParser
import MATRuntime
import MATSignal

struct IMSCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ims", abstract: "Look at the mapping server (imsd) of this host.",
        subcommands: [Status.self, List.self, Show.self])

    struct Status: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show prefixes, keys, store and what was received and answered.")

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func run() throws {
            let status = try control.request("status")
            output.print(status) { IMSReport.status(status, $0) }
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the registered mappings.")

        @Option(help: "The most to list.")
        var count = 100

        @Option(help: "Leave out this many at the start.")
        var offset = 0

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard (1...1000).contains(count), offset >= 0 else {
                throw ValidationError("--count is from 1 to 1000, --offset not negative")
            }
        }

        func run() throws {
            let list = try control.request("list", ["count": .number(count), "offset": .number(offset)])
            output.print(list) { IMSReport.list(list, now: SystemClock.now(), $0) }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one mapping, where it came from and who follows it.")

        @Argument(help: "The home address.", transform: reading(.homeAddress))
        var hoa: HomeAddress

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func run() throws {
            let mapping = try control.request("show", ["hoa": .text(hoa)])
            output.print(mapping) { IMSReport.mapping(mapping, now: SystemClock.now(), $0) }
        }
    }
}

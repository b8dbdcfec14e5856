import ArgumentParser
import MATControl
import MATRuntime
import MATSignal

extension IMSCommand {
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the home addresses: mappings, and those that are enrolled and never registered.",
            discussion: """
                A page at a time: --after with the last home address shown gives the next. --all goes through all pages; with --json it then \
                prints one object a line.
                """)

        enum State: String, CaseIterable, ExpressibleByArgument {
            case all, registered, expired, withdrawn, revoked, unseen
        }

        @Option(help: "The most to list at a time.")
        var count = 100

        @Option(help: ArgumentHelp("Begin behind this home address or prefix.", valueName: "hoa"), transform: reading(.prefix))
        var after: IPPrefix?

        @Option(help: ArgumentHelp("Only home addresses within this prefix.", valueName: "prefix"), transform: reading(.prefix))
        var prefix: IPPrefix?

        @Option(help: "Only mappings in this state.")
        var state = State.all

        @Flag(help: "Only those that nobody renewed in time; the same as --state expired.")
        var expired = false

        @Flag(help: "Go on until the end.")
        var all = false

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard (1...1000).contains(count) else { throw ValidationError("--count is from 1 to 1000") }
            if expired, state != .all, state != .expired { throw ValidationError("Give --state or --expired, not both") }
        }

        func run() throws {
            var after = after
            var isFirst = true
            while true {
                let list = try page(after)
                if all {
                    try printPart(list, isFirst: isFirst)
                } else {
                    try output.print(list) { IMSText.list(list, now: SystemClock.now(), $0) }
                }
                guard all, let next = list.next else { return }
                after = try Self.cursor(next)
                isFirst = false
            }
        }

        private func page(_ after: IPPrefix?) throws(CommandFailure) -> MappingListReport {
            let request = ListRequest(
                after: after.map { "\($0)" }, count: all ? 1000 : count, prefix: prefix.map { "\($0)" },
                state: expired ? State.expired.rawValue : state.rawValue)
            return try control.request(.list, request, as: MappingListReport.self)
        }

        private func printPart(_ list: MappingListReport, isFirst: Bool) throws {
            if output.json {
                for mapping in list.mappings { print(String(decoding: try ControlJSON.encode(Labelled(mapping)), as: UTF8.self)) }
            } else {
                var part = list
                part.next = nil
                print(IMSText.list(part, now: SystemClock.now(), .forStandardOutput, withHead: isFirst), terminator: "")
            }
        }

        private static func cursor(_ text: String) throws(CommandFailure) -> IPPrefix {
            guard let prefix = IPPrefix(text) else {
                throw CommandFailure("imsd's list goes on behind \"\(text)\", which is no prefix; are mat and imsd of one version?")
            }
            return prefix
        }
    }
}

import ArgumentParser
import Glibc
import MATProbe

struct Watch: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write an event for each address and default route that comes into use, until ended by a signal.")

    @Argument(help: "The file of events, one JSON object a line.")
    var events: String

    func run() throws {
        Interruption.handle()
        try complaining {
            try AddressWatch.run(path: events)
        }
    }
}

struct Event: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Write an event that happens now.")

    @Argument(help: "The file of events, one JSON object a line.")
    var events: String

    @Argument(help: "Its name; \"begin\" opens a phase that the report shades, and judges if --expect is given.")
    var event: String

    @Argument(help: "What people read.")
    var text: String

    @Option(
        help: """
            How to judge the phase: overlap (nothing lost, no gap over 20 ms), interruption (resumes 1.5 RTT + 50 ms after the address), or the same \
            between translators (no gap over 100 ms, 4.5 RTT + 250 ms).
            """)
    var expect: ProbeEvent.Expectation?

    func run() throws {
        try complaining {
            try ProbeEvent(event: event, text: text, expect: expect).append(to: events)
        }
    }
}

extension ProbeEvent.Expectation: ExpressibleByArgument {}

struct Report: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what happened: a timeline, a picture, and what held. The exit status is 2 if something did not hold.")

    @Argument(help: "The directory with *.log and events.jsonl.")
    var directory: String

    @Option(help: "Write the picture into this file.")
    var svg: String?

    @Option(help: "The picture's title.")
    var title = "Handover as applications see it"

    @Option(help: "What to call the host that connected.")
    var client = "client"

    @Option(help: "What to call the host that listened.")
    var server = "server"

    func run() throws {
        try complaining {
            let report = try ProbeReport(directory: directory, client: client, server: server)
            print(report.timeline())
            if let svg {
                let text = Chart(report).svg(title: title)
                guard let file = fopen(svg, "we") else { throw ProbeError("\(svg) cannot be written: \(String(cString: strerror(errno)))") }
                defer { fclose(file) }
                guard fputs(text, file) >= 0 else { throw ProbeError("\(svg) cannot be written") }
            }
            let judgements = report.judgements()
            for judgement in judgements { print("\(judgement.held ? "PASS" : "FAIL")  \(judgement.text)") }
            if judgements.contains(where: { !$0.held }) { throw ExitCode(2) }
        }
    }
}

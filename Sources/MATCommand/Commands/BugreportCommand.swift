import ArgumentParser
import MATCore
import MATRuntime

struct BugreportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bugreport", abstract: "Write what an engineer needs into a file, without secrets.",
        discussion: """
            Versions, mat doctor, status, peers, paths, handovers, configurations, firewall rules, routes and addresses, and the journal's last \
            lines. Private keys, tokens, passwords and RADIUS secrets are taken out, and comments of configurations; addresses of this host and its peers \
            are not. It is a text: read it before you send it. Run it as root, or the kernel's part is missing.
            """)

    @Option(help: ArgumentHelp("Write here; - is standard output. (default: mat-bugreport-DATE.txt)", valueName: "file"))
    var out: String?

    @Option(help: ArgumentHelp("Add the end of this log; may be repeated.", valueName: "file"))
    var log: [String] = []

    @OptionGroup var files: DaemonFiles

    func run() throws {
        let now = Quantity.date(unixMilliseconds: SystemClock.now().wallMilliseconds)
        let digits = now.filter { $0.isNumber || $0 == "-" || $0 == " " }.split(separator: " ").joined(separator: "-")
        let path = out ?? "mat-bugreport-\(digits).txt"
        // Before all is gathered, which takes a while.
        let file: OutputFile
        do throws(CommandFailure) { file = try OutputFile(path, .fixed(0o600)) } catch {
            throw CommandFailure("\(error); name another file with --out")
        }
        var survey = BugReportSurvey(files)
        survey.look(logs: log)
        let text = survey.report.write(
            head: """
                mat bugreport of \(now)
                It has addresses of this host and its peers, firewall rules and log lines. Private keys, tokens, passwords and RADIUS secrets are taken out.
                """)
        try file.write(Array(text.utf8))
        try file.finish()
        if path == "-" { return }
        // Behind the report itself, if that went to standard output, would be what is no part of it.
        StandardError.write(
            "mat: \(path): \(survey.report.sections.count) sections, \(text.utf8.count / 1000 + 1) kB. It has addresses of this host and its peers, and no keys, tokens or passwords; read it before you send it"
        )
    }
}

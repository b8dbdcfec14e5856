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
        var survey = BugReportSurvey(files)
        survey.look(logs: log)
        let text = survey.report.write(
            head: """
                mat bugreport of \(now)
                It has addresses of this host and its peers, firewall rules and log lines. Private keys, tokens, passwords and RADIUS secrets are taken out.
                """)
        if out == "-" { return print(text, terminator: "") }
        let digits = now.filter { $0.isNumber || $0 == "-" || $0 == " " }.split(separator: " ").joined(separator: "-")
        let path = out ?? "mat-bugreport-\(digits).txt"
        do throws(SystemError) {
            try TextFile.replace(path, with: text, mode: 0o600)
        } catch {
            throw CommandFailure("\(error); name another file with --out")
        }
        print(
            "\(path): \(survey.report.sections.count) sections, \(text.utf8.count / 1000 + 1) kB. It has addresses of this host and its peers, and no keys, tokens or passwords; read it before you send it"
        )
    }
}

import ArgumentParser
import MATControl
import MATRuntime

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Look at everything that MAT needs here, and say what is wrong and what to do.",
        discussion: """
            Looks at what is installed and configured: a node (matd.yaml), a mapping server (imsd.yaml), a relay (mat-relay.yaml), or all \
            that are named. Nothing is changed. Exit status: 0 nothing is wrong, 1 something does not work.
            """)

    @Flag(help: "Look at the node, whether or not its configuration is there.")
    var node = false

    @Flag(help: "Likewise at the mapping server.")
    var ims = false

    @Flag(help: "Likewise at the relay.")
    var relay = false

    @Flag(help: "Leave out what is in order.")
    var quiet = false

    @OptionGroup var files: DaemonFiles
    @OptionGroup var output: OutputOptions

    func run() throws {
        let isNamed = node || ims || relay
        func looks(_ flag: Bool, _ file: String) -> Bool { isNamed ? flag : DoctorSurvey.exists(file) }
        let roles = (node: looks(node, files.nodeConfig), ims: looks(ims, files.imsConfig), relay: looks(relay, files.relayConfig))
        guard roles.node || roles.ims || roles.relay else {
            throw CommandFailure(
                "there is neither \(files.nodeConfig) nor \(files.imsConfig) nor \(files.relayConfig); name what to look at (--node, --ims, --relay), or `mat join TOKEN` first"
            )
        }
        var survey = DoctorSurvey()
        survey.lookAtHost(isNode: roles.node)
        if roles.node { survey.lookAtNode(configuration: files.nodeConfig, control: files.nodeControl) }
        if roles.ims { survey.lookAtServer(configuration: files.imsConfig, control: files.imsControl) }
        if roles.relay { survey.lookAtRelay(configuration: files.relayConfig) }
        var report = DoctorReport(findings: survey.findings)
        if quiet { report.findings.removeAll { $0.severity == .ok } }
        try output.print(report) { DoctorText.text(report, $0) }
        if report.hasProblem { throw ExitCode(ExitStatus.failed.rawValue) }
    }
}

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

    @Option(help: ArgumentHelp("matd's configuration.", valueName: "file"))
    var nodeConfig = "/etc/matd/matd.yaml"

    @Option(help: ArgumentHelp("imsd's configuration.", valueName: "file"))
    var imsConfig = "/etc/imsd/imsd.yaml"

    @Option(help: ArgumentHelp("mat-relay's configuration.", valueName: "file"))
    var relayConfig = "/etc/mat-relay/mat-relay.yaml"

    @Option(name: .customLong("control"), help: ArgumentHelp("matd's control socket.", valueName: "path"))
    var nodeControl = NodeControl.defaultPath

    @Option(help: ArgumentHelp("imsd's control socket.", valueName: "path"))
    var imsControl = IMSControl.defaultPath

    @OptionGroup var output: OutputOptions

    func run() throws {
        let isNamed = node || ims || relay
        func looks(_ flag: Bool, _ file: String) -> Bool { isNamed ? flag : DoctorSurvey.exists(file) }
        let roles = (node: looks(node, nodeConfig), ims: looks(ims, imsConfig), relay: looks(relay, relayConfig))
        guard roles.node || roles.ims || roles.relay else {
            throw CommandFailure(
                "there is neither \(nodeConfig) nor \(imsConfig) nor \(relayConfig); name what to look at (--node, --ims, --relay), or `mat join TOKEN` first"
            )
        }
        var survey = DoctorSurvey()
        survey.lookAtHost(isNode: roles.node)
        if roles.node { survey.lookAtNode(configuration: nodeConfig, control: nodeControl) }
        if roles.ims { survey.lookAtServer(configuration: imsConfig, control: imsControl) }
        if roles.relay { survey.lookAtRelay(configuration: relayConfig) }
        var report = DoctorReport(findings: survey.findings)
        if quiet { report.findings.removeAll { $0.severity == .ok } }
        try output.print(report) { DoctorText.text(report, $0) }
        if report.hasProblem { throw ExitCode(ExitStatus.failed.rawValue) }
    }
}

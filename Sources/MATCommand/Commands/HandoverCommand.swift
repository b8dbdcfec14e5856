import ArgumentParser
import MATRuntime

struct HandoverCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "handover", abstract: "Move this node's traffic to another interface, without breaking connections.",
        discussion: """
            matd hands over by itself when addresses come and go; this is for choosing among interfaces that are up. The choice \
            holds until `mat handover --auto` or a restart of matd; while the interface has no address, the others are used.
            """)

    @Argument(help: "The interface to use first, such as wlan0.")
    var interface: String?

    @Flag(help: "Return to the order of preference in matd.yaml; the same as giving no interface.")
    var auto = false

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if auto, interface != nil { throw ValidationError("Give an interface or --auto, not both") }
    }

    func run() throws {
        let status = try control.request("handover", interface.map { ["interface": .string($0)] } ?? [:])
        output.print(status) { _ in HandoverReport.text(status) }
    }
}

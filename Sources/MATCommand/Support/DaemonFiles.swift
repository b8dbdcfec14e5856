import ArgumentParser

/// Where the daemons of a host have their configurations and listen.
struct DaemonFiles: ParsableArguments {
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

    var configurations: [String] { [nodeConfig, imsConfig, relayConfig] }
}

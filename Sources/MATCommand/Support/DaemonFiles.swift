import ArgumentParser
import Glibc

/// Where a host has what belongs to its daemons, if no option says otherwise: where the packages put it, or where the environment says. Hosts
/// of a lab share one file system, and `deploy/lab exec` sets these for each.
enum DaemonFile: String {
    case nodeControl = "MATD_CONTROL"
    case imsControl = "IMSD_CONTROL"
    case nodeConfiguration = "MATD_CONFIG"
    case imsConfiguration = "IMSD_CONFIG"
    case relayConfiguration = "MAT_RELAY_CONFIG"

    /// What a variable that is set to nothing means is what it means not to be set.
    var path: String {
        let named = getenv(rawValue).map { String(cString: $0) } ?? ""
        return named.isEmpty ? packaged : named
    }

    private var packaged: String {
        switch self {
        case .nodeControl: "/run/matd/control.sock"
        case .imsControl: "/run/imsd/control.sock"
        case .nodeConfiguration: "/etc/matd/matd.yaml"
        case .imsConfiguration: "/etc/imsd/imsd.yaml"
        case .relayConfiguration: "/etc/mat-relay/mat-relay.yaml"
        }
    }
}

/// Where the daemons of a host have their configurations and listen.
struct DaemonFiles: ParsableArguments {
    @Option(help: ArgumentHelp("matd's configuration.", valueName: "file"))
    var nodeConfig = DaemonFile.nodeConfiguration.path

    @Option(help: ArgumentHelp("imsd's configuration.", valueName: "file"))
    var imsConfig = DaemonFile.imsConfiguration.path

    @Option(help: ArgumentHelp("mat-relay's configuration.", valueName: "file"))
    var relayConfig = DaemonFile.relayConfiguration.path

    @Option(name: .customLong("control"), help: ArgumentHelp("matd's control socket.", valueName: "path"))
    var nodeControl = DaemonFile.nodeControl.path

    @Option(help: ArgumentHelp("imsd's control socket.", valueName: "path"))
    var imsControl = DaemonFile.imsControl.path

    var configurations: [String] { [nodeConfig, imsConfig, relayConfig] }
}

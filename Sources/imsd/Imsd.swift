import ArgumentParser
import Glibc
import IMS
import IMSCluster
import Logging
import MATRuntime
import MATServer
import Metrics

/// The mapping server: keeps where the nodes of its home address prefixes are, and tells who asks.
@main
struct Imsd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "imsd", abstract: "The IP address mapping server of MAT.",
        discussion: "Runs in the foreground and logs to standard error. SIGHUP reads the configuration anew. See imsd(8) and imsd.yaml(5).",
        version: MATVersion.text)

    @Option(name: [.short, .long], help: "The configuration file.")
    var config = "/etc/imsd/imsd.yaml"

    @Flag(help: "Check the configuration and the files it names, say what is wrong, and exit.")
    var check = false

    @Option(help: "Log this and what is worse: trace, debug, info, notice, warning or error. Overrides the file.")
    var logLevel: LogLevelWord?

    func run() throws {
        SecretFile.makeAllPrivate()
        let configuration: IMSConfiguration
        do throws(ConfigurationError) {
            configuration = try IMSConfiguration(path: config)
        } catch {
            complain("\(error)")
            throw ExitCode(78)  // EX_CONFIG of sysexits.h: systemd shows it by name
        }
        if check {
            do {
                try configuration.check()
                try configuration.etcd?.check()
            } catch {
                complain("\(error)")
                throw ExitCode(78)
            }
            print("\(config) is fine.")
            return
        }
        do {
            try configuration.checkStore()
        } catch {
            complain("\(error)")
            throw ExitCode(78)
        }
        let logger = Logger.daemon("imsd", configuration.logFormat, .chosen(Logger.Level(logLevel), configured: configuration.logLevel))
        let metrics = MetricsRegistry()
        MetricsSystem.bootstrap(metrics)
        do {
            let loop = try EventLoop()
            // A client that hangs up on the control socket must not end the daemon.
            signal(SIGPIPE, SIG_IGN)
            // Before the store starts a thread, so that all threads leave these signals to the loop.
            var server: IMSServer?
            try loop.onSignals([SIGTERM, SIGINT, SIGHUP]) { number in
                if number == SIGHUP {
                    server?.reload(path: config, logLevel: Logger.Level(logLevel))
                } else {
                    server?.drain()
                }
            }
            server = try IMSServer(
                configuration: configuration, store: configuration.openStore(), loop: loop, logger: logger, metrics: metrics)
            try server?.start()
            try loop.run()
        } catch {
            complain("\(error)")
            throw ExitCode(1)
        }
    }

    private func complain(_ text: String) { StandardError.write("imsd: \(text)") }
}

extension LogLevelWord: ExpressibleByArgument {}

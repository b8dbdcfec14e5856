import ArgumentParser
import Glibc
import Logging
import MATRelay
import MATRuntime
import MATServer
import Metrics

/// The relay: forwards packets between nodes that can't reach each other.
@main
struct Relay: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mat-relay", abstract: "Forwards packets between nodes that can't reach each other.",
        discussion: "Runs in the foreground and logs to standard error. SIGHUP reads the configuration anew. See mat-relay(8).",
        version: MATVersion.text)

    @Option(name: [.short, .long], help: "The configuration file.")
    var config = "/etc/mat-relay/mat-relay.yaml"

    @Flag(help: "Check the configuration and the directory it names, say what is wrong, and exit.")
    var check = false

    @Flag(help: "Take away what an earlier run has left in the kernel, which otherwise forwards on for the next one, and exit.")
    var remove = false

    @Option(help: "Log this and what is worse: trace, debug, info, notice, warning or error. Overrides the file.")
    var logLevel: LogLevelWord?

    func run() throws {
        SecretFile.makeAllPrivate()
        let configuration: RelayConfiguration
        do throws(ConfigurationError) {
            configuration = try RelayConfiguration(path: config)
        } catch {
            complain("\(error)")
            throw ExitCode(78)  // EX_CONFIG of sysexits.h: systemd shows it by name
        }
        if remove {
            do throws(RelayError) {
                try RelayService.removeKernel(configuration)
            } catch {
                complain("\(error)")
                throw ExitCode(1)
            }
            return
        }
        if check {
            do throws(RelayError) {
                try configuration.check()
            } catch {
                complain("\(error)")
                throw ExitCode(78)
            }
            print("\(config) is fine.")
            return
        }
        let level = Logger.Level.chosen(Logger.Level(logLevel), configured: configuration.logLevel)
        let logger = Logger.daemon("mat-relay", configuration.logFormat, level)
        let metrics = MetricsRegistry()
        MetricsSystem.bootstrap(metrics)
        do {
            let loop = try EventLoop()
            signal(SIGPIPE, SIG_IGN)
            // Before any thread starts, so that all threads leave these signals to the loop.
            var service: RelayService?
            try loop.onSignals([SIGTERM, SIGINT, SIGHUP]) { number in
                if number == SIGHUP {
                    service?.reload(path: config, logLevel: Logger.Level(logLevel))
                } else {
                    service?.drain()
                }
            }
            service = try RelayService(configuration: configuration, loop: loop, logger: logger, metrics: metrics)
            try service?.start()
            try loop.run()
        } catch {
            complain("\(error)")
            throw ExitCode(1)
        }
    }

    private func complain(_ text: String) { StandardError.write("mat-relay: \(text)") }
}

extension LogLevelWord: ExpressibleByArgument {}

import ArgumentParser
import Glibc
import Logging
import MATNode
import MATRuntime
import MATServer

/// The node agent: registers this machine's home addresses, keeps the kernel's address mapping table in step, and hands over
/// when the machine moves.
@main
struct Matd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "matd", abstract: "The node agent of MAT: IP mobility without tunnels.",
        discussion: "Runs in the foreground and logs to standard error. SIGHUP reads the configuration anew. See matd(8) and matd.yaml(5).",
        version: MATVersion.text)

    @Option(name: [.short, .long], help: "The configuration file.")
    var config = "/etc/matd/matd.yaml"

    @Flag(help: "Check the configuration and the files it names, say what is wrong, and exit.")
    var check = false

    @Flag(help: "Take away what a stopped agent has left in the kernel, and exit. Needs no configuration.")
    var remove = false

    @Option(help: "Log this and what is worse: trace, debug, info, notice, warning or error. Overrides the file.")
    var logLevel: LogLevelWord?

    func run() throws {
        SecretFile.makeAllPrivate()
        if remove {
            do throws(NodeServiceError) {
                try NodeService.remove()
            } catch {
                complain("\(error)")
                throw ExitCode(1)
            }
            return
        }
        let configuration: NodeConfiguration
        do throws(ConfigurationError) {
            configuration = try NodeConfiguration(path: config)
        } catch {
            complain("\(error)")
            throw ExitCode(78)  // EX_CONFIG of sysexits.h: systemd shows it by name
        }
        if check {
            let doubts: [String]
            do throws(NodeServiceError) {
                doubts = try NodeService.check(configuration)
            } catch {
                complain("\(error)")
                throw ExitCode(78)
            }
            // At boot a clock may not be set yet, and matd waits for that.
            for doubt in doubts { complain("\(doubt). No NTP client holds this clock: see that it is right first") }
            print(doubts.isEmpty ? "\(config) is fine." : "\(config) is fine, but for the times above.")
            return
        }
        var logger = Logger(label: "matd") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = .chosen(Logger.Level(logLevel), configured: configuration.logLevel)
        do {
            let loop = try EventLoop()
            // A client that hangs up on the control socket must not end the daemon.
            signal(SIGPIPE, SIG_IGN)
            let service = try NodeService(configuration: configuration, loop: loop, logger: logger)
            service.onStopped = { loop.stop() }
            try loop.onSignals([SIGTERM, SIGINT]) { _ in
                logger.notice("stopping")
                service.stop()
            }
            try loop.onSignals([SIGHUP]) { _ in service.reload(path: config, logLevel: Logger.Level(logLevel)) }
            try service.start()
            try loop.run()
        } catch {
            complain("\(error)")
            throw ExitCode(1)
        }
    }

    private func complain(_ text: String) { StandardError.write("matd: \(text)") }
}

extension LogLevelWord: ExpressibleByArgument {}

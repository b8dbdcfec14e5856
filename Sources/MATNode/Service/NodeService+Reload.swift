import Logging
import MATServer

// Reading the configuration anew while packets come and go.

extension NodeService {
    /// Takes from the file what can change while the agent runs, all of it or nothing; what can't is named in the log and to the service manager.
    /// What `matd --check` would refuse leaves everything as it was.
    ///
    /// - Parameter logLevel: what the command line wants instead of the file.
    public func reload(path: String, logLevel: Logger.Level? = nil) {
        serviceManager.reloading()
        var note: String?
        defer { serviceManager.ready(status: note.map { "\(statusLine); \($0)" } ?? statusLine) }
        let fresh: NodeConfiguration
        do {
            fresh = try NodeConfiguration(path: path)
            for doubt in try Self.check(fresh) { logger.warning("\(doubt)") }
            // The only step that needs something from outside, so it comes first: after it nothing can fail.
            metricsListener.take(try metricsListener.prepare(fresh.metricsAddress), logger)
        } catch {
            note = "the changed configuration is not taken"
            logger.error("the configuration is not reloaded, and the one before stays in force:\n\(error)")
            return
        }
        let restartKeys = configuration.restartKeys(against: fresh)
        let level = Logger.Level.chosen(logLevel, configured: fresh.logLevel)
        log(at: level)
        configuration = configuration.taking(fresh)
        let (reconfiguration, rules) = (configuration.reconfiguration, configuration.addressRules)
        shell.run { node, now in node.reconfigure(reconfiguration, rules, now: now) }
        if !restartKeys.isEmpty {
            let keys = restartKeys.joined(separator: ", ")
            note = "needs a restart: \(keys)"
            logger.warning("changed, but counting only after a restart: \(keys)")
        }
        logger.notice("the configuration is reloaded", metadata: ["level": "\(level)"])
    }
}

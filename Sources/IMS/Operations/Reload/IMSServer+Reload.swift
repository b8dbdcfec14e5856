import IMSCore
import Logging
import MATServer
import MATSignal

// Reading the configuration anew while datagrams come and go: no socket is closed, nothing waits.

extension IMSServer {
    /// Takes from the file what can change while the server runs, all of it or nothing; what can't is named in the log. A file with a
    /// mistake, or one that names a key or an address that can't be used, leaves everything as it was.
    ///
    /// - Parameter logLevel: what the command line wants instead of the file.
    /// - Returns: whether the file was taken.
    @discardableResult
    public func reload(path: String, logLevel: Logger.Level? = nil) -> Bool {
        serviceManager.reloading()
        defer { serviceManager.ready(status: statusLine) }
        let fresh: IMSConfiguration
        let key: SigningKey?
        do {
            fresh = try IMSConfiguration(path: path)
            key = try fresh.signingKey()
            // All that needs something from outside comes first: after it nothing can fail.
            let sockets = try Self.openReachabilitySockets(fresh)
            let metrics = try metricsListener.prepare(fresh.metricsAddress)
            let view = try viewListener.prepare(fresh.viewAddress)
            try changeRADIUS(to: fresh)
            metricsListener.take(metrics, logger)
            viewListener.take(view, logger)
            reachabilitySockets = sockets
        } catch {
            logger.error("the configuration is not reloaded, and the one before stays in force:\n\(error)")
            return false
        }
        let restartKeys = configuration.restartKeys(against: fresh)
        let keysBefore = core.publicKeys
        if !configuration.hasSameDNS(as: fresh) { changeResolver(to: fresh) }
        let level = Logger.Level.chosen(logLevel, configured: fresh.logLevel)
        logger = .daemon("imsd", fresh.logFormat, level)
        configuration = configuration.taking(fresh)
        core.reconfigure(configuration.coreConfiguration(signingKey: key))
        queryPath?.publish(core.queryRules)
        // Said only now, when it is in force, at the workers too: who reads it in the log and asks must get the new answers.
        if !restartKeys.isEmpty {
            logger.warning("changed, but counting only after a restart: \(restartKeys.joined(separator: ", "))")
        }
        tellKeys(before: keysBefore, after: core.publicKeys)
        logger.notice(
            "the configuration is reloaded",
            metadata: [
                "prefixes": "\(configuration.served.map(\.prefix.description).joined(separator: " "))",
                "keys": "\(core.publicKeys.map { Self.hex($0.id) }.joined(separator: " "))", "level": "\(level)",
            ])
        return true
    }

    private func tellKeys(before: [PublicKey], after: [PublicKey]) {
        for key in after where !before.contains(key) { logger.notice("certificates of the key \(Self.hex(key.id)) are accepted from now on") }
        for key in before where !after.contains(key) {
            let count = core.surveyed.certificatesByKey[key.id] ?? 0
            let rest = count == 0 ? "" : "; \(count) nodes had one when this was last counted, and must be enrolled anew"
            logger.notice("certificates of the key \(Self.hex(key.id)) are no longer accepted\(rest)")
        }
    }
}

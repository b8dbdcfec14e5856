import Dispatch
import IMSCore
import MATCore
import MATRuntime
import MATServer

// Bindings over a restart: written now and then by another thread, and at the end.

extension IMSServer {
    /// What was bound since the last writing is lost with the process, and bound anew.
    static let bindingsInterval: Duration = .seconds(60)
    private static let bindingsQueue = DispatchQueue(label: "bindings file")

    /// Before the first datagram.
    func restoreBindings() {
        guard let path = configuration.bindingsPath else { return }
        do throws(SystemError) {
            let saved = try BindingFile.read(path)
            core.restoreBindings(saved, now: SystemClock.now())
            hasSavedBindings = !saved.isEmpty
            if core.bindingsCount > 0 { logger.notice("bindings of the run before: \(core.bindingsCount)") }
        } catch {
            logger.warning("the bindings of the run before are lost, and nodes bind anew: \(error)")
        }
        saveBindingsLater()
    }

    private func saveBindingsLater() {
        loop.schedule(after: Self.bindingsInterval) { [weak self] in
            guard let self else { return }
            saveBindings()
            saveBindingsLater()
        }
    }

    private func saveBindings() {
        guard let path = configuration.bindingsPath, core.bindingsCount > 0 || hasSavedBindings else { return }
        hasSavedBindings = core.bindingsCount > 0
        // A copy that costs nothing until the core changes its own.
        let (bindings, now, logger) = (core.bindings, SystemClock.now(), self.logger)
        Self.bindingsQueue.async {
            do throws(SystemError) {
                try BindingFile.write(bindings.saved(now), to: path)
            } catch {
                logger.warning("bindings are not kept for the next run: \(error)")
            }
        }
    }

    /// Writes what is bound, and waits for it.
    func saveBindingsAtEnd() {
        saveBindings()
        Self.bindingsQueue.sync {}
    }
}

import KernelPrograms
import Logging
import MATCore
import MATRuntime
import MATSignal
import RelayCore

// Forwarding by the kernel, as the configuration wants it.

extension RelayService {
    /// What the kernel has forwarded since the state was written, while no relay was there to count it.
    static func leftCounts(_ configuration: RelayConfiguration) -> [(prefix: IPPrefix, octets: UInt64)] {
        guard configuration.forwarding != .agent,
            let directory = try? ForwardingProgram.directory(configuration.pinsPath, port: configuration.port)
        else { return [] }
        return ForwardingProgram.leftCounts(directory, slotsMax: configuration.core.limits.bindingsMax)
    }

    func startKernel() throws(RelayError) {
        let directory: ProgramDirectory?
        var reason = ""
        do throws(ProgramError) {
            directory = try ForwardingProgram.directory(configuration.pinsPath, port: configuration.port)
        } catch {
            directory = nil
            reason = "\(error)"
        }
        guard configuration.forwarding != .agent else {
            if let directory { ForwardingProgram.removeLeftovers(directory) }
            return
        }
        let kernel: ForwardingProgram
        do throws(RelayError) {
            kernel = try ForwardingProgram(
                port: configuration.port, slotsMax: configuration.core.limits.bindingsMax, limits: configuration.core.limits, directory: directory,
                logger)
            self.kernel = kernel
            run { core, now in core.kernelForwards(now: now) }
            do throws(SystemError) {
                try loop.watch(kernel.news) { [unowned self] in routesChanged() }
            } catch {
                throw RelayError("\(error)")
            }
        } catch {
            core.use { $0.kernelEnded() }
            self.kernel = nil
            if configuration.forwarding == .kernel { throw RelayError("forwarding: kernel: \(error)") }
            logger.notice("packets are forwarded by this process, not by the kernel: \(error)")
            return
        }
        kernel.attach()
        kernel.pin()
        if directory == nil { logger.notice("forwarding in the kernel ends with this process: \(reason)") }
        logger.notice("packets are forwarded by the kernel at \(kernel.linksCount) link\(kernel.linksCount == 1 ? "" : "s")")
    }

    /// Many changes come together; they are looked at once.
    private func routesChanged() {
        kernel?.clearNews()
        guard !isFollowing else { return }
        isFollowing = true
        loop.schedule(after: .milliseconds(200)) { [weak self] in
            self?.isFollowing = false
            self?.kernel?.follow()
        }
    }

    /// Once a second.
    func countKernel() {
        guard let kernel else { return }
        let counts = kernel.counts()
        if !counts.isEmpty { run { core, _ in core.forwardedByKernel(counts) } }
    }

    /// - Parameter forGood: whether no other run is to find it.
    func stopKernel(forGood: Bool) {
        guard let kernel else { return }
        loop.unwatch(kernel.news)
        if forGood { kernel.remove() }
        self.kernel = nil
    }

    /// Takes away what a run has left in the kernel: `mat-relay --remove`.
    public static func removeKernel(_ configuration: RelayConfiguration) throws(RelayError) {
        do throws(ProgramError) {
            ForwardingProgram.removeLeftovers(try ForwardingProgram.directory(configuration.pinsPath, port: configuration.port))
        } catch {
            throw RelayError("\(error)")
        }
    }
}

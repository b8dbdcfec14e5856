import MATRuntime
import MATSignal

/// Notices that somebody removed our tables: `nft flush ruleset`, as many a firewall script begins.
final class RulesetMonitor {
    /// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
    private static let group: UInt32 = 7

    private let socket: NetlinkSocket
    private let loop: EventLoop
    private let onRemoval: () -> Void
    private var announced = false

    init(loop: EventLoop, onRemoval: @escaping () -> Void) throws(KernelError) {
        self.loop = loop
        self.onRemoval = onRemoval
        socket = try NetlinkSocket(protocol: KernelValues.netlinkNetfilter, name: "nftables events", groups: [Self.group])
        do {
            try loop.watch(socket.descriptor) { [unowned self] in readable() }
        } catch {
            throw .system(error.operation, "nftables events", errno: error.errno)
        }
    }

    func stop() { loop.unwatch(socket.descriptor) }

    private func readable() {
        var concerns = false
        do {
            _ = try socket.drain(operation: "receive ruleset events") { incoming in
                guard incoming.type == KernelValues.subsystemTables | KernelValues.nftDeleteTable else { return }
                if incoming.attributes(after: 4).first(1)?.string == TranslationRuleset.tableName { concerns = true }
            }
        } catch {
            concerns = true
        }
        // Our own installation deletes a table too, to create it anew: whoever is told looks whether one is missing.
        guard concerns, !announced else { return }
        announced = true
        loop.schedule(after: .zero) { [weak self] in
            guard let self else { return }
            announced = false
            onRemoval()
        }
    }
}

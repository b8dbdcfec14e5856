import MATCore
import MATRuntime
import MATServer
import MATSignal
import RelayCore

/// What a relay tells Prometheus.
final class RelayMetrics {
    let registry: MetricsRegistry
    private let mirror: MetricsMirror

    init(_ registry: MetricsRegistry) {
        self.registry = registry
        mirror = MetricsMirror(registry)
        for (name, help) in Self.texts + MetricsMirror.processTexts { registry.describe(name, help) }
    }

    /// What of the core is told.
    struct CoreFigures: Sendable {
        var counters: RelayCounters
        var bindings: Int
        var visitors: Int
        var checksPending: Int

        init(_ core: RelayCore) {
            counters = core.counters
            bindings = core.bindingsCount
            visitors = core.visitorsCount
            checksPending = core.checksPendingCount
        }
    }

    /// Brings everything up to date.
    func collect(
        _ core: CoreFigures, _ limits: RelayLimits, isDraining: Bool, _ path: ForwardPath?, _ kernel: ForwardingProgram?, sendFailures: UInt64,
        uptimeSeconds: Int64
    ) {
        let counters = core.counters
        for (code, count) in counters.answered.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            mirror.set("mat_relay_answers_total", count, [("code", code.description)])
        }
        mirror.set("mat_relay_asks_total", counters.asks)
        mirror.set("mat_relay_binds_total", counters.binds)
        mirror.set("mat_relay_refreshes_total", counters.refreshes)
        mirror.set("mat_relay_moves_total", counters.moves)
        mirror.set("mat_relay_malformed_total", counters.malformed)
        mirror.set("mat_relay_dropped_total", counters.dropped)
        mirror.set("mat_relay_look_ups_total", counters.lookUps)
        mirror.set("mat_relay_signature_checks_total", counters.checks)
        mirror.set("mat_relay_log_lines_suppressed_total", counters.logLinesSuppressed)
        mirror.set("mat_relay_packets_forwarded_total", counters.packetsForwarded)
        mirror.set("mat_relay_octets_forwarded_total", counters.octetsForwarded)
        mirror.set("mat_relay_kernel_packets_forwarded_total", counters.kernelPackets)
        mirror.set("mat_relay_kernel_octets_forwarded_total", counters.kernelOctets)
        mirror.level("mat_relay_kernel_links", kernel?.linksCount ?? 0)
        mirror.set("mat_relay_kernel_failures_total", kernel?.failures ?? 0)
        mirror.set("mat_relay_packets_held_total", counters.packetsHeld)
        mirror.set("mat_relay_ends_total", counters.ends)
        // Reasons that did not occur yet are shown as well: a rate of what appears from nothing can't be taken.
        for reason in DropReason.allCases {
            let byKernel = reason == .sourceRate ? kernel?.droppedSourceRate ?? 0 : 0
            mirror.set("mat_relay_packets_dropped_total", counters[reason] &+ byKernel, [("reason", reason.description)])
        }
        if let path {
            mirror.set("mat_relay_datagrams_received_total", path.total(.datagrams))
            mirror.set("mat_relay_signalling_received_total", path.total(.signalling))
            mirror.set("mat_relay_signalling_lost_total", path.total(.overflowed))
            mirror.set("mat_relay_send_failures_total", path.total(.sendFailures) &+ sendFailures)
        }
        mirror.level("mat_relay_bindings", core.bindings)
        mirror.level("mat_relay_bindings_max", limits.bindingsMax)
        mirror.level("mat_relay_visitors", core.visitors)
        mirror.level("mat_relay_visitors_max", limits.visitorBindingsMax ?? limits.bindingsMax / 2)
        mirror.level("mat_relay_draining", isDraining ? 1 : 0)
        mirror.level("mat_relay_signature_checks_pending", core.checksPending)
        mirror.level("mat_relay_uptime_seconds", uptimeSeconds)
        mirror.level("mat_relay_build_info", 1, [("version", MATVersion.text)])
        mirror.process()
    }

    /// Of a gateway.
    func collect(_ counters: RelayCounters, _ path: GatewayPath) {
        mirror.set("mat_relay_gateway_packets_total", counters.packetsToPlain, [("to", "plain")])
        mirror.set("mat_relay_gateway_packets_total", counters.packetsFromPlain, [("to", "node")])
        mirror.set("mat_relay_gateway_octets_total", counters.octetsToPlain, [("to", "plain")])
        mirror.set("mat_relay_gateway_octets_total", counters.octetsFromPlain, [("to", "node")])
        mirror.set("mat_relay_gateway_unsent_total", path.failures.unsent)
        mirror.set("mat_relay_gateway_congested_total", path.failures.congested)
    }

    /// Names and meanings, as the manual lists them.
    private static let texts: [(String, String)] = [
        ("mat_relay_build_info", "Always 1; the version is in the label."),
        ("mat_relay_uptime_seconds", "Time since the start."),
        ("mat_relay_datagrams_received_total", "Datagrams received."),
        ("mat_relay_packets_forwarded_total", "Packets forwarded."),
        ("mat_relay_octets_forwarded_total", "Octets of forwarded packets."),
        ("mat_relay_packets_dropped_total", "Packets not forwarded, by reason."),
        ("mat_relay_kernel_packets_forwarded_total", "Packets forwarded by the kernel, which are among those above."),
        ("mat_relay_kernel_octets_forwarded_total", "Octets of them."),
        ("mat_relay_kernel_links", "Links at which the kernel forwards; 0 if it does not."),
        ("mat_relay_kernel_failures_total", "Bindings that the kernel had no memory for; their packets are forwarded by the process."),
        ("mat_relay_packets_held_total", "Packets that had to wait for a rate that many share."),
        ("mat_relay_gateway_packets_total", "Packets forwarded between nodes and plain hosts, by whom they went to."),
        ("mat_relay_gateway_octets_total", "Octets of those."),
        ("mat_relay_gateway_unsent_total", "Of those, what the kernel, or a socket, did not take."),
        ("mat_relay_gateway_congested_total", "Packets for plain hosts dropped for a mark of congestion that their sender can't know (RFC 6040)."),
        ("mat_relay_send_failures_total", "Datagrams that the kernel refused to send, or had no room for."),
        ("mat_relay_signalling_received_total", "Datagrams of signalling that a worker handed on."),
        ("mat_relay_signalling_lost_total", "Datagrams of signalling lost because too many were waiting."),
        ("mat_relay_bindings", "Nodes bound."),
        ("mat_relay_bindings_max", "As many may be, by the configuration."),
        ("mat_relay_visitors", "Those of them that are visitors."),
        ("mat_relay_visitors_max", "As many of those may be."),
        ("mat_relay_draining", "1 while nodes are told to go elsewhere, before the end; else 0."),
        ("mat_relay_asks_total", "Binds that only ask what they are seen as."),
        ("mat_relay_binds_total", "Bindings granted."),
        ("mat_relay_refreshes_total", "Bindings refreshed."),
        ("mat_relay_moves_total", "Bindings that moved to another endpoint."),
        ("mat_relay_ends_total", "Bindings ended by their nodes, or because their grants had run out."),
        ("mat_relay_answers_total", "Bind Acks sent, by code."),
        ("mat_relay_malformed_total", "Datagrams of signalling, or parts of them, that could not be read."),
        ("mat_relay_dropped_total", "Signalling that a relay has nothing to do with."),
        ("mat_relay_look_ups_total", "Look-ups of IMS keys."),
        ("mat_relay_signature_checks_total", "Signature checks."),
        ("mat_relay_signature_checks_pending", "Signature checks that wait or are being made."),
        ("mat_relay_log_lines_suppressed_total", "Log lines left out because there were too many."),
    ]
}

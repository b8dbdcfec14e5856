import IMTKernel
import IMTPlan
import MATControl
import MATRuntime
import MATServer
import MATSignal
import NodeCore

/// What a node agent tells Prometheus.
///
/// All of it is counted anyway, and only read when somebody asks: a node that nobody watches pays nothing.
final class NodeMetrics {
    let registry = MetricsRegistry()
    private let mirror: MetricsMirror
    /// What the kernel had counted of each peer when it was last asked. A peer that is forgotten takes its counters along, so what is told are
    /// sums of differences.
    private var counted: [HomePair: PeerCounters] = [:]
    private var total = PeerCounters()

    init() {
        mirror = MetricsMirror(registry)
        for (name, help) in Self.texts + MetricsMirror.processTexts { registry.describe(name, help) }
    }

    /// Everything, as of now.
    ///
    /// - Parameter counters: the kernel's, since each peer was entered.
    func families(_ report: NodeReport, _ status: NodeStatus, _ counters: [HomePair: PeerCounters]) -> [MetricFamily] {
        collect(report)
        // Of all peers, where a report leaves some out.
        for (standing, count) in [(PeerReport.Standing.oneSided, status.peersOneSided), (.unreachable, status.peersUnreachable)] {
            mirror.level("matd_peers_troubled", count, [("standing", standing.rawValue)])
        }
        collect(report.counters)
        add(counters)
        mirror.set("matd_peer_packets_total", total.packetsOut, [("direction", "out")])
        mirror.set("matd_peer_packets_total", total.packetsIn, [("direction", "in")])
        mirror.set("matd_peer_octets_total", total.octetsOut, [("direction", "out")])
        mirror.set("matd_peer_octets_total", total.octetsIn, [("direction", "in")])
        mirror.level("matd_build_info", 1, [("version", MATVersion.text)])
        mirror.process()
        return registry.families()
    }

    private func collect(_ report: NodeReport) {
        mirror.level("matd_uptime_seconds", report.uptimeMilliseconds / 1000)
        for home in report.homes {
            let label = [("home", home.prefix ?? home.address)]
            mirror.level("matd_home_registered", home.state == "registered" ? 1 : 0, label)
            mirror.level("matd_home_certificate_not_after_seconds", home.certificateNotAfterMilliseconds / 1000, label)
            mirror.level("matd_home_locators", home.locators.count, label)
        }
        // States that none is in are shown as well: a level that is not told any more would stay at its last.
        for state in Self.locatorStates { mirror.level("matd_locators", report.locators.count { $0.state == state }, [("state", state)]) }
        mirror.level("matd_locators_translated", report.locators.count { $0.translation != nil })
        for state in RelayReport.State.allCases {
            mirror.level("matd_relays", report.relays?.count { $0.state == state } ?? 0, [("state", state.rawValue)])
        }
        mirror.level("matd_peers", report.peersCount)
        for path in PeerReport.Path.allCases {
            mirror.level("matd_peers_shown", report.peers.count { $0.path == path }, [("path", path.rawValue)])
        }
        mirror.level("matd_peers_shown", report.peers.count { $0.path == nil }, [("path", "none")])
        mirror.level("matd_destinations_undecided", report.undecided.count)
        mirror.level("matd_dns_servers_failing", report.dns?.servers.count { $0.failingMilliseconds != nil } ?? 0)
        mirror.set("matd_repairs_total", report.repairs)
    }

    private func collect(_ counters: NodeCountersReport) {
        mirror.set("matd_handovers_total", counters.handovers)
        mirror.set("matd_uplink_failures_total", counters.uplinkFailures)
        mirror.set("matd_detours_total", counters.detours)
        mirror.set("matd_probes_sent_total", counters.probesSent)
        mirror.set("matd_registrations_total", counters.registrations)
        mirror.set("matd_records_lost_total", counters.recordsLost)
        mirror.set("matd_messages_sent_total", counters.messagesSent)
        mirror.set("matd_messages_received_total", counters.messagesReceived)
        mirror.set("matd_retransmissions_total", counters.retransmissions)
        mirror.set("matd_malformed_total", counters.malformedDropped)
        mirror.set("matd_unmatched_total", counters.unmatchedDropped)
        mirror.set("matd_records_refused_total", counters.recordsRefused)
        mirror.set("matd_unknown_sources_total", counters.unknownSourcesIdentified, [("result", "node")])
        mirror.set("matd_unknown_sources_total", counters.unknownSourcesPlain, [("result", "plain")])
        mirror.set("matd_destinations_total", counters.destinationsResolved, [("result", "node")])
        mirror.set("matd_destinations_total", counters.destinationsPlain, [("result", "plain")])
        mirror.set("matd_destinations_total", counters.destinationsUndecided, [("result", "undecided")])
    }

    /// A counter that went back is of a peer that was forgotten and entered anew. None at all are of no peers, or the kernel did not tell.
    private func add(_ counters: [HomePair: PeerCounters]) {
        guard !counters.isEmpty else { return }
        func grown(_ new: UInt64, _ old: UInt64?) -> UInt64 { old.map { new >= $0 ? new - $0 : new } ?? new }
        for (pair, new) in counters {
            let old = counted[pair]
            total.packetsOut &+= grown(new.packetsOut, old?.packetsOut)
            total.packetsIn &+= grown(new.packetsIn, old?.packetsIn)
            total.octetsOut &+= grown(new.octetsOut, old?.octetsOut)
            total.octetsIn &+= grown(new.octetsIn, old?.octetsIn)
        }
        counted = counters
    }

    private static let locatorStates = ["sound", "dead", "returning", "flapping", "refused"]

    /// Names and meanings, as the manual lists them.
    private static let texts: [(String, String)] = [
        ("matd_build_info", "Always 1; the version is in the label."),
        ("matd_uptime_seconds", "Time since the start."),
        ("matd_home_registered", "1 while the mapping server has what the node last told it, by home address; else 0."),
        ("matd_home_certificate_not_after_seconds", "When the certificate ends, as Unix time, by home address."),
        ("matd_home_locators", "Places in the record, by home address."),
        ("matd_locators", "Own mobile addresses, by state."),
        ("matd_locators_translated", "Those of them with a translator or firewall before them."),
        ("matd_relays", "Relays of the home addresses, by state."),
        ("matd_peers", "Peers."),
        ("matd_peers_shown", "Peers by path; of more than 1000, those in trouble and then those with the latest traffic."),
        ("matd_peers_troubled", "Of all peers, those whose conversations would not survive a move, by reason."),
        ("matd_peer_packets_total", "Packets to and from peers, by direction."),
        ("matd_peer_octets_total", "Octets of those."),
        ("matd_destinations_undecided", "Destinations of which the DNS does not say whether they are nodes."),
        ("matd_dns_servers_failing", "DNS servers whose last answer was none."),
        ("matd_repairs_total", "Repairs of the kernel's tables, which others had changed."),
        ("matd_handovers_total", "Handovers."),
        ("matd_uplink_failures_total", "Own addresses found dead while their link was up."),
        ("matd_detours_total", "Peers moved to another path because theirs was silent."),
        ("matd_probes_sent_total", "Questions whether a path answers."),
        ("matd_registrations_total", "IMS Updates acknowledged."),
        ("matd_records_lost_total", "Times that the mapping server had lost the record."),
        ("matd_messages_sent_total", "Messages sent, repetitions included."),
        ("matd_messages_received_total", "Messages received."),
        ("matd_retransmissions_total", "Messages sent again because no answer came."),
        ("matd_malformed_total", "Messages that could not be read."),
        ("matd_unmatched_total", "Answers that belong to no question."),
        ("matd_records_refused_total", "Records of peers that did not verify."),
        ("matd_unknown_sources_total", "Sources of packets that were looked up, by what they turned out to be."),
        ("matd_destinations_total", "Destinations that were looked up, by what they turned out to be."),
    ]
}

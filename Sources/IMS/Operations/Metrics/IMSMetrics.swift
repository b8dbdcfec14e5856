import Glibc
import IMSCore
import MATRuntime
import MATServer
import MATSignal
import Metrics

/// What an IMS tells Prometheus.
///
/// What the shell sees happen (times, batches) is recorded as it happens. What the core and others count anyway is only read when
/// somebody asks, so that counting costs the path of a message nothing more.
final class IMSMetrics {
    /// A number that someone else keeps: how it is called, and where to read it. Read in the loop's thread.
    struct Source {
        enum Kind { case counter, gauge }

        var name: String
        var help: String
        var kind: Kind
        var labels: [(String, String)] = []
        var read: () -> Double
    }

    let registry: MetricsRegistry
    private let updates: Timer
    private let commits: Timer
    private let batches: Recorder
    private let commitFailures: Counter
    private let commitsOutrun: Counter
    /// What the core and the workers count by themselves.
    private let mirror: MetricsMirror
    /// When the message came that led to each change that is being written, and when the store got it.
    private var writes: [StoreTicket: (received: MonotonicTime?, handed: MonotonicTime)] = [:]
    /// When the message came whose signature is being checked.
    private var checks: [VerificationTicket: MonotonicTime] = [:]
    private var sources: [Source] = []

    /// Writes and checks whose times are kept; those of more are not measured.
    private static let pendingMax = 65_536

    init(_ registry: MetricsRegistry) {
        self.registry = registry
        mirror = MetricsMirror(registry)
        for (name, help) in Self.texts + MetricsMirror.processTexts { registry.describe(name, help) }
        registry.describe(
            "imsd_update_duration_seconds", "From the reception of an IMS Update to its answer after it was durable.")
        registry.describe("imsd_store_commit_duration_seconds", "From handing a change to the store until it was durable.")
        registry.describe("imsd_store_batch_changes", "Changes made durable together.", bounds: HistogramSeries.countBounds)
        updates = Timer(label: "imsd_update_duration_seconds", dimensions: [], factory: registry)
        commits = Timer(label: "imsd_store_commit_duration_seconds", dimensions: [], factory: registry)
        batches = Recorder(label: "imsd_store_batch_changes", dimensions: [], aggregate: true, factory: registry)
        commitFailures = Counter(label: "imsd_store_commit_failures_total", dimensions: [], factory: registry)
        commitsOutrun = Counter(label: "imsd_store_commits_outrun_total", dimensions: [], factory: registry)
    }

    // MARK: As it happens

    func verifying(_ ticket: VerificationTicket, receivedAt received: MonotonicTime?) {
        if checks.count < Self.pendingMax { checks[ticket] = received }
    }

    /// - Returns: when the message came.
    func verified(_ ticket: VerificationTicket) -> MonotonicTime? { checks.removeValue(forKey: ticket) }

    /// - Parameter received: when the IMS Update came; `nil` for what people asked for.
    func handed(_ ticket: StoreTicket, receivedAt received: MonotonicTime?, _ now: MonotonicTime) {
        guard writes.count < Self.pendingMax else { return }
        writes[ticket] = (received, now)
    }

    /// After the answers have been sent.
    func committed(_ outcomes: [StoreOutcome], _ now: MonotonicTime) {
        batches.record(outcomes.count)
        for outcome in outcomes {
            let write = writes.removeValue(forKey: outcome.ticket)
            switch outcome.result {
            case .durable:
                guard let write else { break }
                commits.recordNanoseconds((now - write.handed).nanosecondsSaturated)
                if let received = write.received { updates.recordNanoseconds((now - received).nanosecondsSaturated) }
            case .failed: commitFailures.increment()
            case .outrun, .conflict: commitsOutrun.increment()
            }
        }
    }

    // MARK: When asked

    /// Something counted elsewhere, from now on.
    func add(_ source: Source) {
        registry.describe(source.name, source.help)
        sources.append(source)
    }

    /// Everything that is counted, as of now. In the loop's thread, where the numbers are.
    func families(of server: IMSServer, _ now: Now) -> [MetricFamily] {
        collect(server, now)
        return registry.families()
    }

    /// Brings everything up to date.
    private func collect(_ server: IMSServer, _ now: Now) {
        collect(server.core, server.totalCounters)
        mirror.set("imsd_send_failures_total", server.sendFailuresCount)
        if let path = server.queryPath {
            mirror.set("imsd_datagrams_received_total", path.total(.datagrams))
            mirror.set("imsd_datagrams_passed_total", path.total(.passedOn))
            mirror.set("imsd_datagrams_lost_total", path.total(.overflowed))
            mirror.set("imsd_datagrams_refused_total", path.refusedByKernel())
        }
        mirror.level("imsd_mapping_table_bytes", server.core.mappings.octetsCount)
        mirror.level("imsd_uptime_seconds", (now.monotonic - server.started).components.seconds)
        mirror.level("imsd_build_info", 1, [("version", MATVersion.text)])
        mirror.level("imsd_store_available", server.core.storeUnavailable == nil ? 1 : 0)
        mirror.level("imsd_store_loading", server.core.isLoading ? 1 : 0)
        for source in sources {
            switch source.kind {
            case .counter: mirror.set(source.name, UInt64(max(0, min(source.read(), 9e18))), source.labels)
            case .gauge: mirror.level(source.name, source.read(), source.labels)
            }
        }
        mirror.process()
    }

    private func collect(_ core: IMSCore, _ counters: IMSCounters) {
        for (type, count) in counters.received { mirror.set("imsd_messages_received_total", count, [("type", type.description)]) }
        for (type, count) in counters.sent { mirror.set("imsd_requests_sent_total", count, [("type", type.description)]) }
        for (answer, count) in counters.answered {
            mirror.set("imsd_answers_total", count, [("type", answer.type.description), ("code", answer.code.description)])
        }
        // Reasons that did not occur yet are shown as well: a rate of what appears from nothing can't be taken.
        for reason in BindingChange.Reason.allCases {
            mirror.set("imsd_binding_changes_total", counters.bindingChanges[reason] ?? 0, [("reason", reason.rawValue)])
        }
        mirror.set("imsd_malformed_total", counters.malformed)
        mirror.set("imsd_unknown_types_total", counters.unknownTypes)
        mirror.set("imsd_dropped_total", counters.dropped)
        mirror.set("imsd_signature_checks_total", counters.verifications)
        mirror.set("imsd_pushes_unanswered_total", counters.pushesUnanswered)
        mirror.set("imsd_log_lines_suppressed_total", counters.logLinesSuppressed)
        mirror.set("imsd_quota_refusals_total", counters.quotaRefusals)
        mirror.set("imsd_memory_refusals_total", counters.memoryRefusals)
        mirror.set("imsd_certificates_renewed_total", counters.certificatesRenewed)

        mirror.level("imsd_mappings", core.mappingsCount)
        for (served, count) in core.mappingsByPrefix { mirror.level("imsd_prefix_mappings", count, [("prefix", served.prefix.description)]) }
        mirror.level("imsd_mappings_unserved", core.unheldCount)
        mirror.level("imsd_remembered", core.rememberedCount)
        mirror.level("imsd_remembered_unconfirmed", core.rememberedUnconfirmedCount)
        mirror.level("imsd_subscriptions", core.subscriptionsCount)
        mirror.level("imsd_bindings", core.bindingsCount)
        mirror.level("imsd_pushes_pending", core.pushesPendingCount)
        mirror.level("imsd_notifies_pending", core.notifiesPendingCount)
        mirror.level("imsd_writes_pending", core.writesCount)
        mirror.level("imsd_signature_checks_pending", core.verificationsPendingCount)
        let survey = core.surveyed
        mirror.level("imsd_mappings_expired", survey.mappingsExpired)
        mirror.level("imsd_mappings_withdrawn", survey.mappingsWithdrawn)
        mirror.level("imsd_revoked", survey.revoked)
        mirror.level("imsd_certificates_ending", survey.certificatesEnding)
        mirror.level("imsd_certificates_ended", survey.certificatesEnded)
        for key in core.publicKeys {
            mirror.level("imsd_certificates", survey.certificatesByKey[key.id] ?? 0, [("key", IMSServer.hex(key.id))])
        }
    }

    /// Names and meanings, as the manual lists them.
    private static let texts: [(String, String)] = [
        ("imsd_build_info", "Always 1; the version is in the label."),
        ("imsd_uptime_seconds", "Time since the start."),
        ("imsd_messages_received_total", "Well-formed messages received, by type."),
        ("imsd_requests_sent_total", "Requests of this server's own, by type; repetitions included."),
        ("imsd_answers_total", "Answers sent, by type and code."),
        ("imsd_malformed_total", "Datagrams or parts of them that could not be read, but for those that the kernel did not bring."),
        ("imsd_unknown_types_total", "Messages of unknown types."),
        ("imsd_dropped_total", "Responses that nobody waited for, and draft messages from where none are allowed."),
        ("imsd_send_failures_total", "Datagrams that the kernel refused to send."),
        ("imsd_datagrams_received_total", "Datagrams received."),
        ("imsd_datagrams_passed_total", "Datagrams that a worker handed to the core: what is not a query answered from memory."),
        ("imsd_datagrams_lost_total", "Datagrams lost because the core had too many waiting."),
        (
            "imsd_datagrams_refused_total",
            "Datagrams that the kernel did not bring: no messages at all, what there was too much of, and what its queue had no room for."
        ),
        ("imsd_mapping_table_bytes", "Memory of the table of mappings."),
        ("imsd_signature_checks_total", "Signature checks."),
        ("imsd_signature_checks_pending", "Signature checks that wait or are being made."),
        ("imsd_pushes_pending", "MA Notifies that wait for their ack."),
        ("imsd_pushes_unanswered_total", "MA Notifies given up after all tries."),
        ("imsd_notifies_pending", "HA Notifies being worked on."),
        ("imsd_writes_pending", "Changes that the store has not answered for."),
        ("imsd_store_commit_failures_total", "Changes that the store did not take."),
        ("imsd_store_commits_outrun_total", "Changes that came after another server's newer one."),
        ("imsd_store_available", "1 if the store takes changes."),
        ("imsd_store_loading", "1 while the store is still being read."),
        ("imsd_mappings", "Mappings held, withdrawn and expired ones included."),
        ("imsd_prefix_mappings", "Mappings held of each served prefix."),
        ("imsd_mappings_unserved", "Stored mappings that are not served, because the system gave no memory for them."),
        ("imsd_mappings_expired", "Mappings that nobody renewed in time; counted once a minute."),
        ("imsd_mappings_withdrawn", "Mappings that their nodes withdrew; counted once a minute."),
        ("imsd_revoked", "Home addresses that are revoked; counted once a minute."),
        ("imsd_remembered", "Mappings of other servers' nodes that are remembered."),
        ("imsd_remembered_unconfirmed", "Those of them that their own server has not confirmed."),
        ("imsd_subscriptions", "Subscriptions."),
        ("imsd_bindings", "Home addresses that are bound to an endpoint here."),
        ("imsd_binding_changes_total", "Changes of mappings, by reason."),
        ("imsd_memory_refusals_total", "Updates refused, and stored mappings not served, because the system gave no memory."),
        ("imsd_quota_refusals_total", "Updates refused because the quota of their prefix was used up."),
        ("imsd_certificates", "Newest certificates of home addresses, by the id of the key that signed them; counted once a minute."),
        ("imsd_certificates_ending", "Certificates that end within 30 days and were not renewed; counted once a minute."),
        ("imsd_certificates_ended", "Certificates that have ended; counted once a minute."),
        ("imsd_certificates_renewed_total", "Certificates renewed."),
        ("imsd_log_lines_suppressed_total", "Log lines left out because there were too many."),
    ]
}

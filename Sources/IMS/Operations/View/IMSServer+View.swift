import IMSCore
import MATControl
import MATCore
import MATRuntime
import MATServer
import MATSignal
import MappingMemory

// What the page at `view: listen` shows of an IMS.

extension IMSServer {
    func viewReport(_ now: Now) -> ViewReport {
        var report = ViewReport(
            program: "imsd", version: MATVersion.text, title: configuration.served.map(\.prefix.description).joined(separator: ", "),
            nowMilliseconds: now.wallMilliseconds, uptimeMilliseconds: (now.monotonic - started).millisecondsSaturated)
        report.problems = problems()
        report.figures = figures()
        let page = core.mappingsPage(after: nil, count: ViewReport.nodesMax) { _ in true }
        report.nodes = page.map { ViewReport.Node($0, now) }
        report.nodesCount = core.mappingsCount
        report.changes = core.latestChanges.map(ViewReport.Change.init)
        report.conversations = conversations(page, now)
        return report
    }

    private func problems() -> [String] {
        var problems: [String] = []
        if core.isLoading { problems.append("the store is still being read; nodes that are not read yet are not found") }
        if let reason = core.storeUnavailable { problems.append("updates are refused: \(reason)") }
        if core.unheldCount > 0 { problems.append("the system gave no memory for \(core.unheldCount) mappings, which are not served") }
        if case .serving = drainState {} else { problems.append("the server is stopping") }
        let ending = core.surveyed.certificatesEnding
        if ending > 0 { problems.append("\(ending) certificates end soon, and nobody has renewed them (mat ims enrolled)") }
        if !SystemClock.isSynchronized { problems.append("the clock is kept right by nobody (NTP), and records and certificates are judged by it") }
        return problems
    }

    private func figures() -> [ViewReport.Figure] {
        let counters = totalCounters
        let answers = counters.answered.filter { $0.key.code != .ok }.reduce(0) { $0 &+ $1.value }
        return [
            .init("Nodes registered", UInt64(core.mappingsCount)), .init("Nodes bound here", UInt64(core.bindingsCount)),
            .init("Told of others' moves", UInt64(core.subscriptionsCount)),
            .init("Queries", (counters.received[.maQuery] ?? 0) &+ (counters.received[.haQuery] ?? 0), .count),
            .init("Updates", counters.received[.imsUpdate] ?? 0, .count), .init("Notifies", counters.received[.haNotify] ?? 0, .count),
            .init("Pushes", counters.sent[.maNotify] ?? 0, .count), .init("Answers that are not ok", answers, .count),
            .init("Pushes unanswered", counters.pushesUnanswered, .count),
            .init("Datagrams lost", queryPath?.total(.overflowed) ?? 0, .count),
            .init("Memory", UInt64(clamping: ProcessFigures.now().residentOctets), .level, .octets),
        ]
    }

    /// Whoever is told of a node's moves talks to it.
    private func conversations(_ page: [StoredMapping], _ now: Now) -> [ViewReport.Conversation] {
        var found: [ViewReport.Conversation] = []
        for mapping in page {
            for subscriber in core.subscribers(of: HomeAddress(mapping.record.prefix.address), now: now) {
                guard found.count < ViewReport.conversationsMax else { return found }
                let from = core.home(at: subscriber, now: now).map(\.shortText) ?? "\(subscriber)"
                found.append(ViewReport.Conversation(from: from, to: mapping.record.prefix.shortText))
            }
        }
        return found
    }
}

extension ViewReport.Node {
    fileprivate init(_ mapping: StoredMapping, _ now: Now) {
        let places = mapping.record.whereabouts
        let state: State =
            mapping.isRevocation ? .revoked : places.isEmpty ? .withdrawn : mapping.record.expires < now.wallMilliseconds ? .expired : .registered
        self.init(home: mapping.record.prefix.shortText, places: places.map(\.description), state: state, heardAtMilliseconds: mapping.provenAt)
    }
}

extension ViewReport.Change {
    fileprivate init(_ recent: RecentChange) {
        let change = recent.change
        self.init(
            atMilliseconds: recent.atMilliseconds, home: change.hoa.shortText, what: change.reason.rawValue,
            before: change.before.map(\.description), after: change.after.map(\.description))
    }
}

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
        let page = core.mappings.page(count: ViewReport.nodesMax)
        report.nodes = page.map { ViewReport.Node($0, now) }
        report.nodesCount = core.mappingsCount
        report.changes = core.latestChanges.map(ViewReport.Change.init)
        report.conversations = conversations(page, now)
        survey(now).write(into: &report)
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

// Many nodes together.
extension IMSServer {
    /// Among as many as the map is made of; a whole address among all.
    func viewNodes(_ text: String, _ now: Now) -> ViewReport.Found {
        let exact = HomeAddress(text).flatMap(core.mapping).map { ViewReport.Node($0, now) }
        var found = ViewReport.Found()
        _ = core.walkMappings(from: 0, atLeast: ViewReport.surveyedMax) { mapping in
            let node = ViewReport.Node(mapping, now)
            if node != exact { found.look(at: node, for: text) }
        }
        found.nodes.sort { $0.home < $1.home }
        // It may be beyond those that were looked at.
        if let exact { found.putFirst(exact) }
        found.isComplete = found.lookedAtCount >= core.mappingsCount
        return found
    }

    private func survey(_ now: Now) -> ViewNetworks {
        var networks = ViewNetworks()
        var places: [IPPrefix: String] = [:]
        _ = core.walkMappings(from: 0, atLeast: ViewReport.surveyedMax) { mapping in
            let network = mapping.record.whereabouts.first?.viewNetwork ?? ViewNetworks.nowhere
            places[mapping.record.prefix] = network
            networks.add(in: network, isAway: ViewReport.Node.State(mapping, now) != .registered)
        }
        for (prefix, network) in places {
            for subscriber in core.subscribers(of: HomeAddress(prefix.address), now: now) {
                let from = core.home(at: subscriber, now: now).flatMap { places[$0] } ?? ViewNetworks.name(of: subscriber.address)
                guard networks.addConversation(from, network) else { return networks }
            }
        }
        return networks
    }
}

extension Whereabouts {
    fileprivate var viewNetwork: String {
        switch self {
        case .network(let prefix): ViewNetworks.name(of: prefix.address)
        case .endpoint(let endpoint): ViewNetworks.name(of: endpoint.address)
        case .relay: description
        }
    }
}

extension ViewReport.Node.State {
    fileprivate init(_ mapping: StoredMapping, _ now: Now) {
        self =
            mapping.isRevocation
            ? .revoked
            : mapping.record.whereabouts.isEmpty ? .withdrawn : mapping.record.expires < now.wallMilliseconds ? .expired : .registered
    }
}

extension ViewReport.Node {
    fileprivate init(_ mapping: StoredMapping, _ now: Now) {
        self.init(
            home: mapping.record.prefix.shortText, places: mapping.record.whereabouts.prefix(ViewReport.placesMax).map(\.description),
            state: State(mapping, now), heardAtMilliseconds: mapping.provenAt)
    }
}

extension ViewReport.Change {
    fileprivate init(_ recent: RecentChange) {
        let change = recent.change
        self.init(
            atMilliseconds: recent.atMilliseconds, home: change.hoa.shortText, what: change.reason.rawValue,
            before: change.before.prefix(ViewReport.placesMax).map(\.description), after: change.after.prefix(ViewReport.placesMax).map(\.description)
        )
    }
}

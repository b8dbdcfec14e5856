import MATControl
import MATCore
import MATRuntime
import MATServer
import MATSignal
import RelayCore

// What the page at `view: listen` shows of a relay.

extension RelayService {
    /// Bindings that a search looks at in a turn of the loop, some milliseconds.
    private static let searchedAtOnce = 1000

    func viewReport(_ now: Now) -> ViewReport {
        countKernel()
        let residents = configuration.core.residents.map(\.prefix.description).joined(separator: ", ")
        var report = ViewReport(
            program: "mat-relay", version: MATVersion.text, title: residents, nowMilliseconds: now.wallMilliseconds,
            uptimeMilliseconds: (now.monotonic - started).millisecondsSaturated)
        let (bound, count, changes, figures) = core.use { core in
            (
                core.bound(count: ViewReport.surveyedMax, now: now), core.bindingsCount, core.latestChanges,
                Self.figures(core, configuration.core.limits)
            )
        }
        report.problems = problems(count)
        report.figures = figures + [.init("Memory", ProcessFigures.now().residentOctets, .level, .octets)]
        report.nodes = bound.prefix(ViewReport.nodesMax).map(ViewReport.Node.init).sorted { $0.home < $1.home }
        var networks = ViewNetworks()
        for binding in bound { networks.add(in: ViewNetworks.name(of: binding.endpoint.address), isAway: false) }
        networks.write(into: &report)
        report.nodesCount = count
        report.changes = changes.map(ViewReport.Change.init)
        return report
    }

    /// Among all, some in each of the loop's turns: whatever else there is to do waits for none of it.
    func findNodes(_ text: String, _ completion: @escaping (ViewReport.Found) -> Void) { findNodes(text, from: 0, .init(), completion) }

    private func findNodes(_ text: String, from slot: Int, _ earlier: ViewReport.Found, _ completion: @escaping (ViewReport.Found) -> Void) {
        let now = SystemClock.now()
        let (bound, next) = core.use { $0.bound(from: slot, slots: Self.searchedAtOnce, now: now) }
        var found = earlier
        for binding in bound { found.look(at: ViewReport.Node(binding), for: text) }
        guard let next else {
            found.nodes.sort { $0.home < $1.home }
            found.isComplete = true
            return completion(found)
        }
        loop.schedule(after: .zero) { [weak self] in
            guard let self else { return completion(found) }
            findNodes(text, from: next, found, completion)
        }
    }

    private func problems(_ count: Int) -> [String] {
        var problems: [String] = []
        if life != .serving { problems.append("the relay is stopping: nodes are told to go elsewhere") }
        let most = configuration.core.limits.bindingsMax
        if count >= most - most / 10 { problems.append("\(count) of \(most) bindings are taken (limits: bindings)") }
        if !SystemClock.isSynchronized { problems.append("the clock is kept right by nobody (NTP), and certificates are judged by it") }
        return problems
    }

    private static func figures(_ core: RelayCore, _ limits: RelayLimits) -> [ViewReport.Figure] {
        let counters = core.counters
        let dropped = DropReason.allCases.reduce(UInt64(0)) { $0 &+ counters[$1] }
        return [
            .init("Nodes bound", UInt64(core.bindingsCount)), .init("Visitors bound", UInt64(core.visitorsCount)),
            .init("Forwarded", counters.octetsForwarded, .count, .octets), .init("Packets forwarded", counters.packetsForwarded, .count),
            .init("Packets by the kernel", counters.kernelPackets, .count), .init("Packets dropped", dropped, .count),
            .init("Packets held for their rate", counters.packetsHeld, .count), .init("Refreshes", counters.refreshes, .count),
            .init("To plain hosts", counters.octetsToPlain, .count, .octets), .init("From plain hosts", counters.octetsFromPlain, .count, .octets),
        ]
    }
}

extension ViewReport.Node {
    fileprivate init(_ binding: Binding) {
        self.init(
            home: binding.prefix.shortText, places: ["\(binding.endpoint)"], state: binding.holder == .resident ? .bound : .visitor,
            heardAtMilliseconds: nil)
    }
}

extension ViewReport.Change {
    fileprivate init(_ change: RelayChange) {
        self.init(
            atMilliseconds: change.atMilliseconds, home: change.prefix.shortText,
            what: change.after == nil ? "ended" : change.before == nil ? "bound" : "moved", before: change.before.map { ["\($0)"] } ?? [],
            after: change.after.map { ["\($0)"] } ?? [])
    }
}

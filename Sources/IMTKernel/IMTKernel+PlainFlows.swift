import IMTPlan
import MATRuntime
import MATSignal

// Plain flows that are older than the mapping of their peer; when they are searched for is `PlainSearch`'s.
extension IMTKernel {
    /// Remembers the flows to MoAs that these changes make a peer's, before they do.
    func keepPlainFlows(_ changes: [IMTChange]) {
        keepPlainFlows(plainSearch.mappings(changes, before: tables.model, now: SystemClock.now().monotonic))
    }

    /// Likewise for all peers, after the tables were made anew.
    func keepPlainFlowsOfAll() { keepPlainFlows(plainSearch.tablesAnew(tables.model)) }

    private func keepPlainFlows(_ decision: PlainSearch.OnMappings) {
        switch decision {
        case .nothing: break
        case .search:
            wait(for: .plainSearch, until: nil)
            searchPlainFlows()
        case .wait(let time): wait(for: .plainSearch, until: time)
        }
    }

    func searchPlainFlows() {
        let start = SystemClock.now().monotonic
        let wanted = plainSearch.begin()
        // If sock_diag is missing or refused, such connections are lost when the peer speaks first: no reason not to map.
        do throws(KernelError) {
            let remotes = wanted.remotes
            let connections = try socketSearch?.connections(to: remotes) ?? []
            let flows = wanted.flows(
                noted: try tables.plainFlows(to: remotes), connections: connections, own: tables.model.own,
                moaOf: { [plan, model = tables.model] in plan.moa(of: $0, own: model.own) })
            try tables.remember(flows)
            rememberPlainFlows()
        } catch {
            failOnce(error, .socketSearch)
        }
        plainSearch.ended(from: start, to: SystemClock.now().monotonic)
    }

    /// Tells of a kind of failure the first time only: the next ones would say the same.
    func failOnce(_ error: KernelError, _ kind: RepeatedFailure) {
        if reportedFailures.insert(kind).inserted { onEvent(.failed(error)) }
    }
}

/// Failures of what is wanted but not vital.
enum RepeatedFailure: Hashable {
    case socketSearch
    /// Without ctnetlink such a flow waits until connection tracking forgets it by itself.
    case tracking
}

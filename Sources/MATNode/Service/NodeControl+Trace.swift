import IMTKernel
import IMTPlan
import MATControl
import MATRuntime
import MATSignal
import NodeCore

// What `mat trace` asks: how far a packet gets on this host.

extension NodeService {
    func trace(_ request: TraceRequest, _ now: Now) throws(ControlError) -> NodeTraceReport {
        guard let remote = IPAddress(request.peer) else { throw ControlError("\(request.peer) is no address") }
        let kernel = environment.kernel
        let explanation = shell.node.cores.explainTraffic(from: nil, to: remote, kernel.configuration, now: now)
        let traffic = TrafficReport(explanation, peer: explanation.peer.map { peer($0, environment.counters()) })
        do throws(KernelError) {
            let captured = NodeTraceReport.Route(
                try kernel.traceRoute(to: remote, from: nil, isOwn: false), to: remote, from: nil, kernel)
            guard let peer = explanation.peer else {
                return NodeTraceReport(traffic: traffic, entries: [], captured: captured, leaving: nil, why: nil)
            }
            let pair = HomePair(own: peer.ownHoA, peer: peer.hoa)
            let locators = peer.locators.compactMap { IPAddress($0).map { MobileAddress($0) } }
            let entries = try kernel.traceEntries(of: pair, locators: locators).map {
                NodeTraceReport.Entry(purpose: $0.purpose, place: $0.place, isThere: $0.isThere)
            }
            var leaving: NodeTraceReport.Route?
            if let way = kernel.carriage(of: pair)?.way {
                let route = try kernel.traceRoute(to: way.destination, from: way.own.address, isOwn: true)
                leaving = NodeTraceReport.Route(route, to: way.destination, from: way.own.address, kernel)
            }
            let why = shell.node.cores.explain(peer.hoa, from: peer.ownHoA, now: now).map { WhyReport($0) }
            return NodeTraceReport(traffic: traffic, entries: entries, captured: captured, leaving: leaving, why: why)
        } catch {
            throw ControlError("the kernel does not say: \(error)")
        }
    }
}

extension NodeTraceReport.Route {
    fileprivate init(_ route: TracedRoute, to: IPAddress, from: IPAddress?, _ kernel: IMTKernel) {
        self.init(
            to: "\(to)", from: from.map { "\($0)" }, interface: route.interface, gateway: route.gateway.map { "\($0)" }, table: route.table,
            isOwn: kernel.isOwn(table: route.table), failure: route.failure)
    }
}

import FoundationEssentials
import Glibc
import Namespaces

/// The gateways of networks that have one: built when somebody first needs them, so that a lab which needs none stands as fast as ever.
struct Gateways {
    private let lab: Lab
    private var topology: Topology { lab.topology }

    init(lab: Lab) { self.lab = lab }

    /// Builds what a network needs that is not there yet: its gateway, and that which this one is behind. What stands half when something
    /// fails is taken down again.
    func build(_ network: Topology.Network) throws {
        guard let gateway = network.gateway, !Namespace.exists(lab.namespace(network.name)) else { return }
        guard lab.stands else { throw LabError("no lab \"\(lab.name)\" stands") }
        guard Lab.installed("nft") != nil else { throw LabError("nft is missing; deploy/install-packages installs what the lab needs") }
        let upstream = try self.upstream(gateway)
        do {
            try make(network, gateway, upstream)
        } catch {
            remove(network, upstream.host)
            throw LabError("\(error)\nlab: the network \(network.name) was taken down again")
        }
    }

    /// The host that a gateway's link leads to, which stands then, and its addresses there.
    private func upstream(_ gateway: Gateway) throws -> (host: String, addresses: [String]) {
        switch gateway.upstream {
        case .router(let addresses): return (topology.router, addresses)
        case .network(let name):
            let outer = try topology.access(name).network
            try build(outer)
            return (topology.router(of: outer), outer.router)
        }
    }

    private func make(_ network: Topology.Network, _ gateway: Gateway, _ upstream: (host: String, addresses: [String])) throws {
        let (own, other) = (lab.namespace(network.name), lab.namespace(upstream.host))
        let plan = GatewayPlan(network, gateway)
        try Namespace.make([own])
        try lab.settle(network.name, plan.settings)
        try Namespace.ipBatch(plan.inside, in: own)
        // Before anything can pass.
        try load(plan.rules, in: own)
        try Namespace.ipBatch([plan.link(own: own, upstream: other)])
        try Namespace.ipBatch(plan.outwards(upstream.addresses), in: own)
        try Namespace.ipBatch(plan.atUpstream, in: other)
        try AccessNetworks(lab: lab).serve([network], at: network.name)
    }

    private func load(_ rules: String, in namespace: String) throws {
        let result = try runCommand(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input: rules)
        guard result.status == 0 else { throw LabError("nft: \(result.output)") }
    }

    private func remove(_ network: Topology.Network, _ upstream: String) {
        // With a namespace its links go later; the name must be free at once.
        _ = try? runCommand(["ip", "-n", lab.namespace(upstream), "link", "delete", "dev", network.name])
        RecordedProcess.end(lab.processes(network.name).map(\.process))
        lab.remove(network.name)
    }
}

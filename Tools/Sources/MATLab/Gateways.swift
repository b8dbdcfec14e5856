import FoundationEssentials
import Glibc
import Namespaces

/// The gateways of networks that have one: built when somebody first needs them, so that a lab which needs none stands as fast as ever.
public struct Gateways {
    private let lab: Lab
    private var topology: Topology { lab.topology }

    public init(lab: Lab) { self.lab = lab }

    /// Builds what a network needs that is not there yet: its gateway, and that which this one is behind. What stands half when something
    /// fails is taken down again.
    package func build(_ network: Topology.Network) throws {
        guard let gateway = network.gateway, !Namespace.exists(lab.namespace(network.name)) else { return }
        guard lab.stands else { throw LabError("no lab \"\(lab.name)\" stands") }
        for program in ["nft", "conntrack"] where Lab.installed(program) == nil {
            throw LabError("\(program) is missing; deploy/install-packages installs what the lab needs")
        }
        let upstream = try self.upstream(gateway)
        try Interruption.check()
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
        try Namespace.set(plan.linkSettings, in: own)
        try Namespace.ipBatch(plan.outwards(upstream.addresses), in: own)
        try Namespace.ipBatch(plan.atUpstream, in: other)
        try startTranslator(network, plan, plan.publicAddresses.first ?? "")
        try startResolver(network, gateway)
        try AccessNetworks(lab: lab).serve([network], at: network.name)
    }

    /// Notes the public address, and starts the program that translates, if there is one.
    private func startTranslator(_ network: Topology.Network, _ plan: GatewayPlan, _ address: String) throws {
        try "\(address)\n".write(toFile: record(network), atomically: false, encoding: .utf8)
        guard let arguments = plan.program(address) else { return }
        try lab.start(network.name, Self.translator, [try lab.tool("mat-lab")] + arguments)
        // Until then the kernel would drop.
        try lab.wait("the NAT of \(network.name) runs", seconds: 5) {
            guard lab.process(network.name, Self.translator).pid != nil else { throw LabError("the NAT of \(network.name) ended: \(log(network))") }
            return try Interface.named(GatewayPlan.tunnel, in: lab.namespace(network.name)).flags.contains("LOWER_UP")
        }
    }

    private func startResolver(_ network: Topology.Network, _ gateway: Gateway) throws {
        guard let address = network.access?.resolver, case .translatedFromIPv6 = gateway.ipv4 else { return }
        let directory = lab.directory(network.name)
        let text = NameServers(lab: lab).dns64(at: address, directory: directory)
        try text.write(toFile: "\(directory)/unbound.conf", atomically: false, encoding: .utf8)
        try lab.start(network.name, "unbound", ["unbound", "-d", "-c", "\(directory)/unbound.conf"])
    }

    private static let translator = "nat"
    private func record(_ network: Topology.Network) -> String { "\(lab.directory(network.name))/address" }
    private func log(_ network: Topology.Network) -> String {
        (try? String(contentsOfFile: "\(lab.directory(network.name))/\(Self.translator).log", encoding: .utf8)) ?? ""
    }

    /// A gateway forgets all flows, as when it has no power for a moment.
    ///
    /// - Parameter newAddress: it has another public IPv4 address then.
    public func reboot(_ name: String, newAddress: Bool) throws {
        guard let (network, gateway) = topology.gateways.first(where: { $0.network.name == name }) else {
            throw LabError("no gateway \"\(name)\"; there are: \(topology.gateways.map(\.network.name).joined(separator: " "))")
        }
        let own = lab.namespace(name)
        guard Namespace.exists(own) else { throw LabError("the gateway \(name) is not built; `lab attach` builds it") }
        let plan = GatewayPlan(network, gateway)
        let recorded = try String(contentsOfFile: record(network), encoding: .utf8)
        var address = String(recorded.prefix { $0 != "\n" })
        let next = plan.publicAddresses.first { $0 != address }
        if newAddress, next == nil { throw LabError("\(name) has no other public address") }
        RecordedProcess.end([lab.process(name, Self.translator)])
        if newAddress, let next {
            try Namespace.ipBatch(plan.exchange(address, for: next, try upstream(gateway).addresses), in: own)
            address = next
        }
        let result = try runCommand(["ip", "netns", "exec", own, "conntrack", "-F"], within: 10)
        guard result.status == 0 else { throw LabError("conntrack -F: \(result.output)") }
        try startTranslator(network, plan, address)
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

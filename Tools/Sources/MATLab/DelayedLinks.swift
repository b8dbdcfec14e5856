import Glibc
import Namespaces

/// Links that are longer than they are.
///
/// The router's end of a link goes to a namespace of its own, "line", where mat-probe joins it to a new link to the router that has the
/// old one's name, address and place. So nobody sees a difference but in time; netem is not in every kernel.
///
/// ```
///   host --- [port]                      router       as built
///   host --- [port] line [port.r] --- [port] router   delayed; in "line" mat-probe passes frames on, each after a time
/// ```
public struct DelayedLinks {
    private let lab: Lab
    private var line: String { lab.namespace(Lab.line) }

    public init(lab: Lab) { self.lab = lab }

    /// - Parameter milliseconds: that all which a host sends and gets is under way for longer, each way.
    public func delay(_ host: String, milliseconds: Int) throws {
        let ports = try places(host)
        guard !ports.isEmpty else { throw LabError("\(host) has no link of its own to the router") }
        guard lab.programs != nil else { throw LabError("no built mat-probe; run `deploy/build mat-probe` first, or give --bin DIR") }
        try undelay(host)
        if !Namespace.exists(line) {
            try Namespace.make([line])
            try Namespace.set(["net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"], in: line)
        }
        for (port, network, router) in ports {
            let end = try Interface.named(port, in: router)
            try Namespace.ipBatch(["link set dev \(port) netns \(line)"], in: router)
            try Namespace.ipBatch(["link add \(port) address \(end.address ?? "") netns \(router) type veth peer name \(port).r netns \(line)"])
            try Namespace.ipBatch(["link set dev \(port) up", "link set dev \(port).r up"], in: line)
            try settle(port, as: end, in: router, network)
            try lab.start(Lab.line, "delay-\(port)", [try lab.program("mat-probe"), "delay", port, "\(port).r", "\(milliseconds)ms"])
        }
    }

    public func undelay(_ host: String) throws {
        for (port, network, router) in try places(host) {
            let process = lab.process(Lab.line, "delay-\(port)")
            guard access(process.file, F_OK) == 0 else { continue }
            RecordedProcess.end([process])
            let end = try Interface.named(port, in: router)
            try Namespace.ipBatch(["link delete \(port)"], in: router)
            try Namespace.ipBatch(["link set dev \(port) netns \(router)"], in: line)
            try settle(port, as: end, in: router, network)
        }
    }

    /// The router's ends of a host's links: for a mobile host's, where they are plugged in.
    private func places(_ host: String) throws -> [(port: String, network: Topology.Network?, router: String)] {
        let topology = lab.topology
        guard topology.mobile.contains(where: { $0.name == host }) else {
            return try topology.ports(host).map { ($0, nil, lab.namespace(topology.router)) }
        }
        return try topology.devices.map { device, _ in
            let network = try AccessNetworks(lab: lab).network(host, device)
            return (topology.port(host, device: device), network, lab.namespace(topology.router(of: network)))
        }
    }

    /// Gives a port what another had: its place in a network, whether it is up, and its addresses.
    private func settle(_ port: String, as end: Interface, in router: String, _ network: Topology.Network?) throws {
        var lines = network?.join(port) ?? end.master.map { ["link set dev \(port) master \($0)"] } ?? []
        lines.append("link set dev \(port) \(end.isUp ? "up" : "down")")
        lines += end.globalAddresses.map { Namespace.addressLine($0, dev: port) }
        try Namespace.ipBatch(lines, in: router)
    }
}

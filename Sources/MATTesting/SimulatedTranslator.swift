import MATSignal
import NodeCore

/// A translator (NAT) or stateful firewall between some addresses and the network, as RFC 4787 classifies them. It knows UDP only: signalling
/// and encapsulated packets. What else comes is lost, as a flow's middle is in a real one; unless it is a firewall that takes a flow up which goes on
/// from inside (`takesUpFlows`), as Linux does.
///
/// ```
///   inside ──► mapping: (inside endpoint) or (inside endpoint, destination) ──► own address, a port of its own ──► network
///   inside ◄── filter: anybody, addresses sent to, or endpoints sent to    ◄── that port
/// ```
public final class SimulatedTranslator: SimulatedHost {
    /// By what a new port is chosen.
    public enum Mapping: Sendable { case endpointIndependent, endpointDependent }
    /// Who may answer.
    public enum Filtering: Sendable { case endpointIndependent, addressDependent, addressAndPortDependent }

    private struct Key: Hashable {
        let inside: Endpoint
        /// `nil`: one mapping for all destinations.
        let destination: Endpoint?
    }

    private struct Flow: Hashable {
        let inside: IPAddress
        let outside: IPAddress
        /// Of several between them.
        let number: Int
    }

    private struct Entry {
        let inside: Endpoint
        var sentTo: [Endpoint: MonotonicTime]
        var usedAt: MonotonicTime
    }

    public let network: SimulatedNetwork
    /// `nil`: a firewall, which translates nothing.
    public private(set) var address: IPAddress?
    public let mapping: Mapping
    public let filtering: Filtering
    /// How long an unused mapping lives.
    public var lifetime: Duration
    /// Packets from inside to the own address go back inside.
    public var hasHairpin = false
    /// Of a firewall: packets of a flow that it has not seen beginning pass from inside, and answers to them.
    public var takesUpFlows = false
    /// Likewise: which flow a packet is of, where these addresses have several.
    public var flow: (UserPacket) -> Int = { _ in 0 }
    /// It is a NAT64: inside there is IPv6 only, IPv4 stands in this prefix, and all other packets pass.
    package var nat64: NAT64Prefix?

    private var ports: [Key: UInt16] = [:]
    private var entries: [UInt16: Entry] = [:]
    private var openings: [Endpoint: Entry] = [:]
    private var flows: Set<Flow> = []
    private var nextPort: UInt16 = 40_000
    private var inside: [IPAddress: any SimulatedHost] = [:]

    public init(
        _ network: SimulatedNetwork, at address: IPAddress?, _ mapping: Mapping = .endpointIndependent,
        _ filtering: Filtering = .addressAndPortDependent, lifetime: Duration = .seconds(120)
    ) {
        self.network = network
        self.address = address
        self.mapping = mapping
        self.filtering = filtering
        self.lifetime = lifetime
        if let address { network.attach(self, at: address) }
    }

    /// It starts anew: all mappings are lost, and perhaps it has another address.
    public func reboot(at other: IPAddress? = nil) {
        (ports, entries, openings, flows) = ([:], [:], [:], [])
        guard let other, let address else { return }
        network.detach(address)
        self.address = other
        network.attach(self, at: other)
    }

    /// A packet leaves from inside.
    ///
    /// - Returns: as others see it; `nil`: it is lost.
    func translate(_ packet: SimulatedPacket, now: MonotonicTime) -> SimulatedPacket? {
        var packet = packet
        if let nat64 {
            guard let ipv4 = nat64.extract(packet.destination) else { return packet }
            packet.destination = ipv4
        }
        if address == nil, takesUpFlows, case .user(let user) = packet.content {
            flows.insert(Flow(inside: packet.source, outside: packet.destination, number: flow(user)))
            return packet
        }
        guard let (sourcePort, destinationPort) = packet.ports else { return nil }
        let source = Endpoint(packet.source, port: sourcePort)
        let destination = Endpoint(packet.destination, port: destinationPort)
        guard let address else {
            openings[source, default: Entry(inside: source, sentTo: [:], usedAt: now)].sentTo[destination] = now
            openings[source]?.usedAt = now
            return packet
        }
        guard hasHairpin || packet.destination != address else { return nil }
        let port = port(for: Key(inside: source, destination: mapping == .endpointDependent ? destination : nil), source, now)
        entries[port]?.sentTo[destination] = now
        entries[port]?.usedAt = now
        return packet.leaving(from: Endpoint(address, port: port))
    }

    private func port(for key: Key, _ inside: Endpoint, _ now: MonotonicTime) -> UInt16 {
        if let port = ports[key], let entry = entries[port], now - entry.usedAt < lifetime { return port }
        nextPort = nextPort == .max ? 1024 : nextPort + 1
        ports[key] = nextPort
        entries[nextPort] = Entry(inside: inside, sentTo: [:], usedAt: now)
        return nextPort
    }

    private func admits(_ entry: Entry, from source: Endpoint, _ now: MonotonicTime) -> Bool {
        guard now - entry.usedAt < lifetime else { return false }
        switch filtering {
        case .endpointIndependent: return true
        case .addressDependent: return entry.sentTo.contains { $0.key.address == source.address && now - $0.value < lifetime }
        case .addressAndPortDependent: return entry.sentTo[source].map { now - $0 < lifetime } ?? false
        }
    }

    /// A packet comes from the network to the own address.
    public func receive(_ packet: SimulatedPacket) {
        guard let (sourcePort, destinationPort) = packet.ports, let entry = entries[destinationPort],
            admits(entry, from: Endpoint(packet.source, port: sourcePort), network.time)
        else { return }
        entries[destinationPort]?.usedAt = network.time
        var packet = packet
        if let nat64 {
            guard let source = nat64.synthesise(packet.source) else { return }
            packet.source = source
        }
        inside[entry.inside.address]?.receive(packet.arriving(at: entry.inside))
    }

    /// A packet comes from the network to an address inside.
    func admits(_ packet: SimulatedPacket) -> Bool {
        // An address that is translated is nowhere for others.
        if address != nil { return nat64 != nil }
        if case .user(let user) = packet.content {
            return flows.contains(Flow(inside: packet.destination, outside: packet.source, number: flow(user)))
        }
        guard let (sourcePort, destinationPort) = packet.ports, let entry = openings[Endpoint(packet.destination, port: destinationPort)] else {
            return false
        }
        return admits(entry, from: Endpoint(packet.source, port: sourcePort), network.time)
    }

    func enter(_ host: any SimulatedHost, at address: IPAddress) { inside[address] = host }

    func leave(_ address: IPAddress) { inside[address] = nil }
}

extension SimulatedPacket {
    var ports: (source: UInt16, destination: UInt16)? {
        switch content {
        case .signal(_, let source, let destination), .encapsulated(_, let source, let destination): (source, destination)
        case .user: nil
        }
    }

    fileprivate func leaving(from endpoint: Endpoint) -> SimulatedPacket {
        var packet = self
        packet.source = endpoint.address
        switch content {
        case .signal(let octets, _, let port): packet.content = .signal(octets, sourcePort: endpoint.port, destinationPort: port)
        case .encapsulated(let inner, _, let port): packet.content = .encapsulated(inner, sourcePort: endpoint.port, destinationPort: port)
        case .user: break
        }
        return packet
    }

    fileprivate func arriving(at endpoint: Endpoint) -> SimulatedPacket {
        var packet = self
        packet.destination = endpoint.address
        switch content {
        case .signal(let octets, let port, _): packet.content = .signal(octets, sourcePort: port, destinationPort: endpoint.port)
        case .encapsulated(let inner, let port, _): packet.content = .encapsulated(inner, sourcePort: port, destinationPort: endpoint.port)
        case .user: break
        }
        return packet
    }
}

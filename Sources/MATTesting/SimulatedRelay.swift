import IMTPlan
import MATCore
import MATSignal
import RelayCore

/// A relay: the real core, which decides of each packet by its header alone.
///
/// ```
///   Bind ──► RelayCore ──► checks, which take their time; keys, from the DNS
///   a packet in a datagram ──► RelayCore ──► to the endpoint that its receiver is bound at, or nowhere
/// ```
public final class SimulatedRelay: SimulatedHost {
    public let network: SimulatedNetwork
    public let dns: SimulatedDNS
    public let address: IPAddress
    /// With that, perhaps one of the other family.
    private let addresses: [IPAddress]
    public private(set) var core: RelayCore
    public private(set) var logs: [String] = []
    /// How long a signature takes to check.
    public var checkTime: Duration = .milliseconds(1)

    private let configuration: RelayCoreConfiguration
    private var secret: [UInt8]
    private var isUp = true
    /// Which start of the process this is.
    private var run = 0

    public init(
        _ network: SimulatedNetwork, _ dns: SimulatedDNS, at address: IPAddress, and other: IPAddress? = nil, residents: [IPPrefix],
        takesVisitors: Bool = true
    ) {
        self.network = network
        self.dns = dns
        self.address = address
        addresses = [address] + (other.map { [$0] } ?? [])
        configuration = RelayCoreConfiguration(residents: residents.map { ResidentPrefix($0) }, takesVisitors: takesVisitors)
        secret = network.random.octets(16)
        core = Self.makeCore(configuration, secret)
        for address in addresses { network.attach(self, at: address) }
    }

    private static func makeCore(_ configuration: RelayCoreConfiguration, _ secret: [UInt8]) -> RelayCore {
        guard let core = RelayCore(configuration, cookieSecret: secret) else { preconditionFailure("secrets have 16 octets") }
        return core
    }

    /// As DNS names it.
    public var host: RelayHost { RelayHost(addresses.map { Endpoint($0, port: SignalPort.relay) }) }

    // MARK: What happens to it

    /// The process dies.
    public func crash() {
        isUp = false
        run += 1
        for address in addresses { network.detach(address) }
    }

    /// It comes back.
    ///
    /// - Parameter hasState: with its bindings and the secret of its cookies, as its state file keeps them; else as if it had never been.
    public func restart(hasState: Bool) {
        let saved = core.saved(now: network.now)
        if !hasState { secret = network.random.octets(16) }
        core = Self.makeCore(configuration, secret)
        if hasState { _ = core.restore(saved, now: network.now) }
        isUp = true
        for address in addresses { network.attach(self, at: address) }
    }

    public func receive(_ packet: SimulatedPacket) {
        guard isUp else { return }
        switch packet.content {
        case .signal(let octets, let sourcePort, let destinationPort):
            let (source, local) = (Endpoint(packet.source, port: sourcePort), Endpoint(packet.destination, port: destinationPort))
            perform(core.received(octets, from: source, to: local, now: network.now))
        case .encapsulated(let inner, let sourcePort, let destinationPort):
            guard destinationPort == SignalPort.relay else { return }
            forward(inner, from: Endpoint(packet.source, port: sourcePort))
        case .user: break
        }
    }

    private func forward(_ inner: SimulatedPacket.InnerPacket, from source: Endpoint) {
        let pair = HomePair(own: HomeAddress(inner.source), peer: HomeAddress(inner.destination))
        // Any packet between these addresses has the same fate.
        guard let octets = InPathMessage([], between: pair, from: source, to: source).packet else { return }
        let now = network.time
        let forwarding = octets.withUnsafeBytes { core.forward($0, from: source, now: now) }
        guard case .forward(let way) = forwarding else { return }
        let content = SimulatedPacket.Content.encapsulated(inner, sourcePort: way.from.port, destinationPort: way.to.port)
        network.send(SimulatedPacket(from: way.from.address, to: way.to.address, content), by: self)
    }

    private func perform(_ actions: [RelayAction]) {
        let run = run
        for action in actions {
            switch action {
            case .send(let octets, let local, let target):
                network.send(
                    SimulatedPacket(from: local.address, to: target.address, .signal(octets, sourcePort: local.port, destinationPort: target.port)),
                    by: self)
            case .lookUp(let name):
                dns.lookUp(name) { [weak self] result in
                    guard let self, self.run == run else { return }
                    perform(core.resolved(name, result, now: network.now))
                }
            case .check(let ticket, let check):
                let failure = check.run()
                network.after(checkTime) { [weak self] in
                    guard let self, self.run == run else { return }
                    perform(core.checked(ticket, failure, now: network.now))
                }
            // There is no kernel that forwards.
            case .kernel: break
            case .log(let level, let text): logs.append("\(network.clock) \(level): \(text)")
            }
        }
    }
}

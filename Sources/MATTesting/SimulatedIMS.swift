import IMSCore
import MATSignal
import MappingMemory

/// A mapping server: the real core, and a store that takes its time. With several addresses it stands for a cluster whose
/// instances share everything, one of which can be taken down.
public final class SimulatedIMS: SimulatedHost {
    public let network: SimulatedNetwork
    public let dns: SimulatedDNS
    public let addresses: [IPAddress]
    public private(set) var core: IMSCore
    public private(set) var logs: [String] = []
    public private(set) var bindingChanges: [BindingChange] = []
    /// How long a write takes to become durable.
    public var commitTime: ClosedRange<Duration> = .milliseconds(1) ... .milliseconds(8)
    /// How long a signature check takes, on a thread of its own; zero: at once.
    public var verificationTime: Duration = .microseconds(100)
    /// Where the reachability test is sent from.
    static let checkPort: UInt16 = 40_000
    /// What a restart finds.
    public private(set) var durable: [IPPrefix: StoredMapping] = [:]
    private var issued: [Certificate] = []
    private var configuration: IMSCoreConfiguration
    private let prefix: IPPrefix
    private var cookieSecret: [UInt8]
    private let clientSecret: [UInt8]
    private var wakeAt: MonotonicTime?
    private var run = 0
    private var isUp = true

    public init(_ network: SimulatedNetwork, _ dns: SimulatedDNS, addresses: [IPAddress], serving prefix: IPPrefix, authority: TestAuthority) {
        self.network = network
        self.dns = dns
        self.addresses = addresses
        self.prefix = prefix
        configuration = IMSCoreConfiguration(served: [ServedPrefix(prefix: prefix)], signingKey: authority.key)
        configuration.testsReachability = true
        cookieSecret = network.random.octets(16)
        clientSecret = network.random.octets(16)
        core = Self.makeCore(configuration, cookieSecret, clientSecret, network)
        for address in addresses { network.attach(self, at: address) }
        dns.zones[prefix] = SimulatedDNS.Zone(servers: addresses, keys: [authority.key.publicKey])
    }

    private static func makeCore(_ configuration: IMSCoreConfiguration, _ cookieSecret: [UInt8], _ clientSecret: [UInt8], _ network: SimulatedNetwork)
        -> IMSCore
    {
        guard
            let core = IMSCore(
                configuration, cookieSecrets: [cookieSecret], clientSecret: clientSecret, random: SeededGenerator(seed: network.random.next()))
        else { preconditionFailure("secrets have 16 octets") }
        return core
    }

    // MARK: What happens to it

    /// One instance of the cluster stops answering.
    public func takeDown(_ address: IPAddress) { network.detach(address) }

    public func bringUp(_ address: IPAddress) { network.attach(self, at: address) }

    /// The process dies: what was not durable is gone.
    public func crash() {
        isUp = false
        run += 1
        wakeAt = nil
        for address in addresses { network.detach(address) }
    }

    public func restart() {
        core = Self.makeCore(configuration, cookieSecret, clientSecret, network)
        do throws(MemoryRefusal) {
            try core.load(mappings: durable.sorted { $0.key < $1.key }.map(\.value), issued: issued)
        } catch {
            preconditionFailure("no memory for a simulation: \(error)")
        }
        isUp = true
        for address in addresses { network.attach(self, at: address) }
        sleep()
    }

    /// It dies, and comes back with an empty store: no mapping, no certificate, and another secret for cookies.
    public func loseStore() {
        crash()
        durable = [:]
        issued = []
        cookieSecret = network.random.octets(16)
        restart()
    }

    // MARK: What its operator does

    /// - Returns: whether there was something to revoke.
    public func revoke(_ hoa: HomeAddress) -> Bool {
        var isBegun = false
        decide { core, now in
            guard let step = try? core.revoke(IPPrefix(hoa.address), now: now) else { return [] }
            isBegun = true
            return step.actions
        }
        return isBegun
    }

    /// Other keys, from now on and after a restart.
    public func sign(with key: SigningKey?, accepting publicKeys: [PublicKey] = [], previous: [PublicKey] = []) {
        configuration = IMSCoreConfiguration(
            served: [ServedPrefix(prefix: prefix)], publicKeys: publicKeys, previousKeys: previous, signingKey: key)
        configuration.testsReachability = true
        core.reconfigure(configuration)
    }

    /// Has the DNS list the keys that certificates may be signed with.
    public func publishKeys() { dns.zones[prefix]?.keys = core.publicKeys }

    public func receive(_ packet: SimulatedPacket) {
        guard isUp, case .signal(let octets, let sourcePort, let destinationPort) = packet.content, destinationPort == SignalPort.ims else { return }
        decide { core, now in core.received(octets, from: Endpoint(packet.source, port: sourcePort), to: packet.destination, now: now) }
    }

    // MARK: The shell

    private func decide(_ event: (inout IMSCore, Now) -> [IMSAction]) {
        let actions = event(&core, network.now)
        for action in actions { perform(action) }
        sleep()
    }

    private func sleep() {
        guard let next = core.nextDeadline, next != wakeAt else { return }
        wakeAt = next
        let run = run
        network.at(next) { [weak self] in
            guard let self, self.run == run, wakeAt == next else { return }
            wakeAt = nil
            decide { core, now in core.timerFired(now: now) }
        }
    }

    private func perform(_ action: IMSAction) {
        let run = run
        network.onAction?("\(network.time.nanoseconds) \(addresses[0]) \(action)")
        switch action {
        case .send(let octets, let own, let target):
            // "Any address": the first that works, as the kernel's choice would be.
            guard let source = own ?? addresses.first(where: { network.host(at: $0) === self && $0.family == target.family }) else { return }
            network.send(
                SimulatedPacket(from: source, to: target.address, .signal(octets, sourcePort: SignalPort.ims, destinationPort: target.port)), by: self
            )
        case .check(let octets, let target, let avoided):
            guard
                let source = addresses.first(where: { $0 != avoided && network.host(at: $0) === self && $0.family == target.family })
                    ?? addresses.first(where: { network.host(at: $0) === self && $0.family == target.family })
            else { return }
            network.send(
                SimulatedPacket(from: source, to: target.address, .signal(octets, sourcePort: Self.checkPort, destinationPort: target.port)), by: self
            )
        case .lookUp(let name):
            dns.lookUp(name) { [weak self] result in
                guard let self, self.run == run else { return }
                decide { core, now in core.resolved(name, result, now: now) }
            }
        case .commit(let ticket, let change):
            let low = commitTime.lowerBound.nanosecondsSaturated
            let high = commitTime.upperBound.nanosecondsSaturated
            network.after(.nanoseconds(Int64.random(in: low...high, using: &network.random))) { [weak self] in
                guard let self, self.run == run else { return }
                if let mapping = change.mapping { durable[mapping.record.prefix] = mapping }
                if let certificate = change.issued { issued.append(certificate) }
                decide { core, now in core.stored(ticket, now: now) }
            }
        case .verify(let ticket, let job):
            let result = VerificationResult(ticket, failure: job.run())
            guard verificationTime > .zero else { return decide { core, now in core.verified([result], now: now) } }
            network.after(verificationTime) { [weak self] in
                guard let self, self.run == run else { return }
                decide { core, now in core.verified([result], now: now) }
            }
        case .log(let level, let text): logs.append("\(network.clock) \(level): \(text)")
        case .bindingChanged(let change): bindingChanges.append(change)
        // No simulated server has authorities.
        case .authorise, .account: break
        }
    }
}

/// A host that knows nothing of MAT.
public final class SimulatedPlainHost: SimulatedHost {
    public let network: SimulatedNetwork
    public let address: IPAddress
    public private(set) var received: [(packet: UserPacket, from: IPAddress)] = []

    public init(_ network: SimulatedNetwork, at address: IPAddress) {
        self.network = network
        self.address = address
        network.attach(self, at: address)
    }

    public func receive(_ packet: SimulatedPacket) {
        if case .user(let user) = packet.content { received.append((user, packet.source)) }
    }

    public func send(_ packet: UserPacket, to destination: IPAddress) {
        network.send(SimulatedPacket(from: address, to: destination, .user(packet)), by: self)
    }
}

import IMTPlan
import MATSignal

/// IPv4 through the NAT64s of networks that have IPv6 only: as 464XLAT does for a whole host (RFC 6877), but for this node's datagrams alone.
///
/// ```
///   cores:    an own MoA 192.0.0.1, before which a translator stands  ◄──►  198.51.100.7:6288
///                       │  ▲                                                      │  ▲
///                       ▼  │                                                      ▼  │
///   network:  the link's first IPv6 address                           ◄──►  [64:ff9b::c633:6407]:6288
/// ```
/// So everything that a core does with a translated address it does here: it asks where it is seen, binds, lists what the NAT64 shows of it
/// (protocol.md section 11: "through a NAT64 the IPv4 address counts"), probes IPv4 endpoints, and has packets travel encapsulated.
/// The addresses are those that RFC 7335 gives to such ends; each stands for one link, and exists only there.
struct StandIns: Sendable {
    private struct StandIn: Hashable, Sendable {
        let address: IPAddress
        /// What it stands for.
        let own: IPAddress
        let interface: String
    }

    /// 192.0.0.1 to 192.0.0.6.
    static let countMax = 6
    static func isStandIn(_ address: IPAddress) -> Bool { address.ipv4.map { $0 >> 3 == 0xC000_0000 >> 3 } ?? false }

    private(set) var prefix: NAT64Prefix?
    /// The prefix that the kernel's endpoints are of.
    private var meant: NAT64Prefix?
    private var standIns: [StandIn] = []
    /// IPv4 endpoints that encapsulated packets of a peer are taken from. What this means to the kernel changes with the network.
    private var accepted: [HomePair: [Endpoint]] = [:]

    // MARK: Events

    /// The network's NAT64 is reached by another prefix than before.
    ///
    /// - Returns: whether it is another.
    mutating func found(_ prefix: NAT64Prefix?) -> Bool {
        guard self.prefix != prefix else { return false }
        self.prefix = prefix
        return true
    }

    /// Links that have IPv6 addresses and none of IPv4.
    static func links(_ locators: [OwnLocator]) -> [String] {
        var links: [String] = []
        for locator in locators where locator.moa.family == .ipv6 && !links.contains(locator.interface) {
            if !locators.contains(where: { $0.interface == locator.interface && $0.moa.family == .ipv4 }) { links.append(locator.interface) }
        }
        return links
    }

    /// Takes over the usable addresses.
    ///
    /// - Returns: these, and a stand-in after those of each link that has IPv6 only, as far as a NAT64 is known; and whether endpoints of IPv4 mean
    ///   something else to the kernel than before.
    mutating func add(to locators: [OwnLocator]) -> (locators: [OwnLocator], hasOthers: Bool) {
        let before = standIns
        let (locators, news) = standing(locators, before)
        defer { meant = prefix }
        standIns = news
        return (locators, news != before || !news.isEmpty && meant != prefix)
    }

    private func standing(_ locators: [OwnLocator], _ before: [StandIn]) -> (locators: [OwnLocator], standIns: [StandIn]) {
        var standIns: [StandIn] = []
        guard prefix != nil else { return (locators, []) }
        var result = locators
        for link in Self.links(locators) {
            guard let first = locators.first(where: { $0.interface == link }), let last = result.lastIndex(where: { $0.interface == link }) else {
                continue
            }
            // Whoever has one keeps it: to the core it would be another address.
            let known = before.first { $0.interface == link && $0.own == first.moa.address }?.address
            let taken = Set((standIns + before).map(\.address))
            let free = (1...UInt32(Self.countMax)).map { IPAddress(ipv4: 0xC000_0000 + $0) }.first { !taken.contains($0) }
            guard let address = known ?? free else { continue }
            standIns.append(StandIn(address: address, own: first.moa.address, interface: link))
            result.insert(OwnLocator(MobileAddress(address), interface: link, isDeprecated: first.isDeprecated), at: last + 1)
        }
        return (result, standIns)
    }

    // MARK: Datagrams

    private func synthesised(_ endpoint: Endpoint) -> Endpoint? {
        prefix?.synthesise(endpoint.address).map { Endpoint($0, port: endpoint.port) }
    }

    /// Where a datagram really leaves, and where it goes.
    func leaving(from own: IPAddress, to target: Endpoint) -> (own: IPAddress, target: Endpoint) {
        guard let standIn = standIns.first(where: { $0.address == own }), let target = synthesised(target) else { return (own, target) }
        return (standIn.own, target)
    }

    /// As whom a core knows who sent a datagram, and whom it was sent to.
    func arriving(from source: Endpoint, to local: IPAddress) -> (source: Endpoint, local: IPAddress) {
        guard let prefix, let standIn = standIns.first(where: { $0.own == local }), let ipv4 = prefix.extract(source.address) else {
            return (source, local)
        }
        return (Endpoint(ipv4, port: source.port), standIn.address)
    }

    /// The same of a message inside an encapsulated packet.
    func leaving(_ message: InPathMessage) -> InPathMessage {
        var message = message
        let (own, far) = leaving(from: message.own.address, to: message.far)
        (message.own, message.far) = (Endpoint(own, port: message.own.port), far)
        return message
    }

    func arriving(_ message: InPathMessage) -> InPathMessage {
        var message = message
        let (far, local) = arriving(from: message.far, to: message.own.address)
        (message.own, message.far) = (Endpoint(local, port: message.own.port), far)
        return message
    }

    /// The same of what the network said of a datagram: to a core the header that it travels in is that of IPv4.
    func arriving(_ error: DatagramError) -> DatagramError {
        guard !standIns.isEmpty, let ipv4 = prefix?.extract(error.far.address) else { return error }
        var error = error
        error.far = Endpoint(ipv4, port: error.far.port)
        error.largest -= min(error.largest, 20)
        return error
    }

    /// The same of what the kernel counted.
    func seen(_ use: PathUse) -> PathUse {
        guard !standIns.isEmpty, let ipv4 = prefix?.extract(use.far.address) else { return use }
        var use = use
        use.far = Endpoint(ipv4, port: use.far.port)
        return use
    }

    // MARK: The kernel

    /// What the kernel is to have, which knows no stand-ins.
    mutating func real(_ changes: [IMTChange]) -> [IMTChange] {
        changes.map { change in
            switch change {
            case .setOutbound(let pair, let carriage):
                return .setOutbound(pair, real(carriage))
            case .accept(let pair, let endpoints):
                accepted[pair] = endpoints.contains { $0.family == .ipv4 } ? endpoints : nil
                return .accept(pair, from: real(endpoints))
            default:
                return change
            }
        }
    }

    private func real(_ carriage: Carriage) -> Carriage {
        var result = carriage
        switch carriage.way {
        case .rewritten: break
        case .encapsulated(let own, let peer):
            let (address, peer) = leaving(from: own.address, to: peer)
            result.way = .encapsulated(own: Endpoint(address, port: own.port), peer: peer)
        case .relayed(let own, let relay):
            let (address, relay) = leaving(from: own.address, to: relay)
            result.way = .relayed(own: Endpoint(address, port: own.port), relay: relay)
        }
        return result
    }

    /// Endpoints of IPv4, and what they are behind a NAT64, as many as the kernel takes.
    private func real(_ endpoints: [Endpoint]) -> [Endpoint] {
        guard !standIns.isEmpty else { return endpoints }
        return Array((endpoints + endpoints.compactMap(synthesised)).prefix(EncapsulationTable.endpointsMax))
    }

    /// After `add`, if that changed what an endpoint of IPv4 means.
    func acceptAnew() -> [IMTChange] {
        accepted.sorted { $0.key < $1.key }.map { .accept($0.key, from: real($0.value)) }
    }

    /// For people: what an own address of a core's is.
    func named(_ address: IPAddress) -> String? {
        guard let standIn = standIns.first(where: { $0.address == address }), let prefix else { return nil }
        return "\(standIn.own) through NAT64 \(prefix)"
    }
}

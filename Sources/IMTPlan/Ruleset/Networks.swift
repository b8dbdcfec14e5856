import MATSignal

// Mobile networks: a home prefix whose hosts this router translates for, each by the bits of its address. Rules name home prefix and
// MoPre, whose leading bits the kernel exchanges as constants; no map has an entry for a host.
extension TranslationRuleset {
    /// The MoPres in use, each with the base address of its home prefix.
    var networks: [MobileAddress: HomeAddress] {
        homeNetworks.isEmpty ? [:] : own.filter { $0.key.family == family && configuration.network(of: $0.value) != nil }
    }

    /// MoPres that went away. They are this router's for good, whoever has an address on their link, so nothing more is asked.
    var retiredNetworks: [MobileAddress: HomeAddress] {
        homeNetworks.isEmpty ? [:] : retired.filter { $0.key.family == family && own[$0.key] == nil && configuration.network(of: $0.value) != nil }
    }

    func moPres(of home: HomeAddress) -> [IPPrefix] { moPres(of: home, among: networks) }

    func moPres(of home: HomeAddress, among networks: [MobileAddress: HomeAddress]) -> [IPPrefix] {
        guard let prefix = configuration.network(of: home) else { return [] }
        return networks.filter { $0.value == home }.keys.sorted().map { IPPrefix(covering: $0.address, length: prefix.length) }
    }

    var retiredMoPres: [Entrance] {
        homeAddresses.flatMap { home -> [Entrance] in
            guard let prefix = configuration.network(of: home) else { return [] }
            return moPres(of: home, among: retiredNetworks).map { Entrance(home: home, network: ($0, prefix)) }
        }
    }

    func isAtHome(_ network: IPPrefix) -> Bool { moPres(of: HomeAddress(network.address)).contains(network) }
    var homeNetworks: [IPPrefix] { homeAddresses.compactMap { configuration.network(of: $0) } }

    // MARK: Chains

    /// After any firewall's own rules: what they refuse is not held. A copy is held rather than the packet, so that connection tracking never
    /// confirms it; it would be known there without the NAT that the released packet may get.
    var holdForwarded: ChainDefinition {
        let toDevice = isInterface(.outputName, configuration.deviceName)
        return ChainDefinition(
            name: "hold_forwarded", hook: .init(type: "filter", number: KernelValues.hookForward, priority: 300),
            rules: homeNetworks.map { toDevice + isEncapsulated(from: $0) + [.verdict(.accept)] } + [
                toDevice + copied(as: .forwarded),
                toDevice + [.verdict(.drop)],
            ]
                // Addresses of a MoPre exist on the wire only. Without this, what nobody takes would go round between the routers.
                + homeAddresses.flatMap { moPres(of: $0) + moPres(of: $0, among: retiredNetworks) }.filter { !homeNetworks.contains($0) }
                .map { isWithin($0, destination, in: r0) + [.verdict(.drop)] })
    }

    /// A packet from a mobile network that is not at home, which neither translation nor source NAT has taken: there is none (`traffic:
    /// nothing`), or connection tracking can make nothing of the packet, or has noted its flow before. Between the router's own links, whose
    /// addresses may be of the home prefix, it is on its way.
    var unhomedNetwork: ChainDefinition {
        let multicast: [UInt8] = family == .ipv4 ? [0xE0] : [0xFF]
        let isMulticast: [Expression] = [
            .load(HeaderField(base: .network, offset: destination.offset, length: 1), into: r0), .mask(r0, multicast),
            .compare(r0, .equal, multicast),
        ]
        return ChainDefinition(
            name: "unhomed_network", hook: nil,
            rules: homeNetworks.map { isWithin($0, destination, in: r0) + [.verdict(.accept)] } + [
                // IPv4's broadcast to 255.255.255.255 as well.
                isMulticast + [.verdict(.accept)], isLinkLocal(destination) + [.verdict(.accept)],
                isReleased + [.verdict(.drop)], copied(as: .leaving), [.verdict(.drop)],
            ])
    }
}

import MATSignal

/// What a NAT makes of each packet: one within IPv4, or between IPv6 inside and IPv4 outside (NAT64, RFC 6146).
///
/// ```
///   inner host   inner -> remote          out            outer:port -> remote
///   inner host   inner <- remote          in             outer:port <- remote
///   inner host   inner -> outer:port2     in of out      outer:port -> inner2:port2      where hairpins are wanted
/// ```
struct PacketTranslator: ~Copyable {
    enum Inside: Sendable {
        case ipv4(IPPrefix)
        /// IPv6 hosts, for whom IPv4 addresses lie in this prefix of 96 bits.
        case ipv6(IPPrefix)
    }

    private let outer: IPAddress
    private let inside: Inside
    private let hairpins: Bool
    private var mappings: PortMappings

    init(outer: IPAddress, inside: Inside, _ rules: Translation, ports: @escaping @Sendable (IPAddress) -> ClosedRange<UInt16>) {
        self.outer = outer
        self.inside = inside
        hairpins = rules.hairpins
        mappings = PortMappings(rules, ports: ports)
    }

    /// - Returns: what goes on; `nil` if nothing does.
    mutating func translate(
        _ octets: [UInt8], now: PortMappings.Milliseconds, using random: inout some RandomNumberGenerator
    ) -> [UInt8]? {
        guard let packet = IPPacket(octets) else { return nil }
        guard isFromInside(packet) else { return packet.destination == outer ? comeIn(packet, now)?.octets : nil }
        guard let out = goOut(packet, now, using: &random) else { return nil }
        guard out.destination == outer else { return out.octets }
        return hairpins ? comeIn(out, now)?.octets : nil
    }

    private func isFromInside(_ packet: IPPacket) -> Bool {
        switch inside {
        case .ipv4(let prefix): packet.family == .ipv4 && prefix.contains(packet.source)
        case .ipv6(let prefix): packet.family == .ipv6 && prefix.contains(packet.destination)
        }
    }

    // MARK: Out

    private mutating func goOut(_ packet: IPPacket, _ now: PortMappings.Milliseconds, using random: inout some RandomNumberGenerator) -> IPPacket? {
        switch packet.content {
        case .flow(let transport):
            guard !packet.isEchoReply else { return nil }
            let remote = outside(packet.destinationEndpoint)
            guard let port = mappings.out(transport, from: packet.sourceEndpoint, to: remote, now: now, using: &random) else { return nil }
            return replaceSource(of: packet, Endpoint(outer, port: port), remote, identification: UInt16.random(in: 0...0xFFFF, using: &random))
        case .error:
            guard let quoted = packet.quoted, case .flow(let transport) = quoted.content else { return nil }
            let remote = outside(quoted.sourceEndpoint)
            guard let port = mappings.port(transport, of: quoted.destinationEndpoint, to: remote) else { return nil }
            let destination = Endpoint(outer, port: port)
            guard case .ipv6 = inside else {
                var (packet, quoted) = (packet, quoted)
                quoted.setDestination(destination)
                packet.setQuote(quoted)
                packet.setSource(Endpoint(outer, port: 0))
                return packet
            }
            guard let quote = quoted.translated(source: remote, destination: destination) else { return nil }
            return packet.translated(source: outer, destination: outside(packet.destinationEndpoint).address, quote: quote)
        }
    }

    private func replaceSource(of packet: IPPacket, _ source: Endpoint, _ destination: Endpoint, identification: UInt16) -> IPPacket? {
        guard case .ipv6 = inside else {
            var packet = packet
            packet.setSource(source)
            return packet
        }
        return packet.translated(source: source, destination: destination, identification: identification)
    }

    // MARK: In

    private mutating func comeIn(_ packet: IPPacket, _ now: PortMappings.Milliseconds) -> IPPacket? {
        switch packet.content {
        case .flow(let transport):
            let (remote, port) = (packet.sourceEndpoint, packet.destinationEndpoint.port)
            guard let inner = mappings.come(transport, to: port, from: remote, now: now) else { return nil }
            guard case .ipv6 = inside else {
                var packet = packet
                packet.setDestination(inner)
                return packet
            }
            return packet.translated(source: within(remote), destination: inner)
        case .error:
            guard let quoted = packet.quoted, case .flow(let transport) = quoted.content, quoted.source == outer,
                let inner = mappings.inner(transport, at: quoted.sourceEndpoint.port)
            else { return nil }
            guard case .ipv6 = inside else {
                var (packet, quoted) = (packet, quoted)
                quoted.setSource(inner)
                packet.setQuote(quoted)
                packet.setDestination(Endpoint(inner.address, port: 0))
                return packet
            }
            guard let quote = quoted.translated(source: inner, destination: within(quoted.destinationEndpoint)) else { return nil }
            return packet.translated(source: within(packet.sourceEndpoint).address, destination: inner.address, quote: quote)
        }
    }

    // MARK: IPv4 addresses in IPv6

    private func outside(_ endpoint: Endpoint) -> Endpoint {
        guard case .ipv6 = inside else { return endpoint }
        return Endpoint(IPAddress(ipv4: UInt32(truncatingIfNeeded: endpoint.address.low)), port: endpoint.port)
    }

    private func within(_ endpoint: Endpoint) -> Endpoint {
        guard case .ipv6(let prefix) = inside else { return endpoint }
        return Endpoint(IPAddress(high: prefix.address.high, low: prefix.address.low | endpoint.address.low & 0xFFFF_FFFF), port: endpoint.port)
    }
}

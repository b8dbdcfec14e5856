import MATCore
import MATSignal

// Packets between residents and plain hosts (protocol.md section 11.5, "Gateway").
//
//   node ══ datagram ══► forward ── nobody bound has the destination ──► leave ──► the kernel forwards it, with the HoA as source
//   node ◄══ datagram ══ arrive ◄── the kernel routes the HoA into the gateway's device ◄── plain host
//
// What source translation there is, the kernel does between its device and the network. Rates and turns are those of packets between nodes.

extension RelayCore {
    /// What a node may expect of this relay.
    func role(of prefix: IPPrefix) -> ServerRole {
        guard configuration.resident(prefix) != nil, let service = configuration.gateway?.service(of: prefix) else { return .relay }
        return [.relay, service.role]
    }

    /// A bound node's packet for somebody who is not bound.
    ///
    /// - Parameters:
    ///   - sender: the slot of the node's binding, which covers the packet's source.
    ///   - trafficClass: of the datagram that it came in.
    mutating func leave(_ payload: UnsafeRawBufferPointer, from sender: Int, trafficClass: Int32, now: MonotonicTime) -> Forwarding {
        guard let gateway = configuration.gateway, let prefix = bindings.binding(in: sender, now)?.prefix, gateway.service(of: prefix) != nil else {
            return drop(.unknownDestination)
        }
        guard let packet = unsafe PlainPacket(payload) else { return drop(.malformed) }
        if let reason = gateway.refusal(of: packet, own: ownAddresses) { return drop(reason) }
        if let reason = traffic.admitOut(payload.count, from: sender, at: now) { return drop(reason) }
        if let rate = shortage(payload.count, from: .relay, false, now) {
            guard unsafe queues.hold(payload, from: sender, to: packet.destination, trafficClass, .toPlain, for: rate, now) else {
                return drop(rate.dropReason)
            }
            counters.packetsHeld &+= 1
            return .held
        }
        left(payload.count, from: sender)
        return .leave
    }

    mutating func left(_ octets: Int, from sender: Int) {
        traffic.count(UInt64(octets), in: sender)
        counters.packetsToPlain &+= 1
        counters.octetsToPlain &+= UInt64(octets)
    }

    /// What the kernel has routed into the gateway's device: from a plain host, or an error of a router, for a HoA.
    ///
    /// - Parameter trafficClass: that its datagram is to have.
    public mutating func arrive(_ octets: UnsafeRawBufferPointer, trafficClass: Int32 = 0, now: MonotonicTime) -> Forwarding {
        guard let gateway = configuration.gateway, let packet = unsafe PlainPacket(octets), packet.source.isUsableUnicast else {
            return drop(.malformed)
        }
        guard let receiver = bindings.slot(covering: packet.destination, now), let prefix = bindings.binding(in: receiver, now)?.prefix,
            gateway.service(of: prefix) != nil
        else { return drop(.unknownDestination) }
        // Residents come in datagrams only.
        guard configuration.resident(IPPrefix(packet.source)) == nil, bindings.slot(covering: packet.source, now) == nil else {
            return drop(.servedSource)
        }
        guard !packet.isOfPaths else { return drop(.nestedPath) }
        if let reason = traffic.admitIn(to: receiver) { return drop(reason) }
        if let rate = shortage(octets.count, from: .destination(UInt32(truncatingIfNeeded: receiver)), false, now) {
            guard unsafe queues.hold(octets, from: receiver, to: packet.destination, trafficClass, .fromPlain, for: rate, now) else {
                return drop(rate.dropReason)
            }
            counters.packetsHeld &+= 1
            return .held
        }
        return .forward(arrived(octets.count, to: receiver))
    }

    mutating func arrived(_ octets: Int, to receiver: Int) -> ForwardWay {
        traffic.count(UInt64(octets), in: receiver)
        counters.packetsFromPlain &+= 1
        counters.octetsFromPlain &+= UInt64(octets)
        let way = bindings.way(in: receiver)
        return ForwardWay(from: way.local, to: way.endpoint)
    }
}

extension GatewayConfiguration {
    /// Why a node's packet may not leave for its destination.
    ///
    /// - Parameter own: the gateway's addresses.
    func refusal(of packet: PlainPacket, own: Set<IPAddress>) -> DropReason? {
        if packet.isOfPaths { return .nestedPath }
        let destination = packet.destination
        guard destination.isUsableUnicast, !destination.isReserved else { return .forbiddenDestination }
        // It would come back at once: its node is not bound.
        if serves(destination) { return .unknownDestination }
        if allowed.contains(where: { $0.contains(destination) }) { return nil }
        let isOwn = own.contains(destination) || destination.embeddedIPv4.map(own.contains) ?? false
        return isOwn || destination.scope != .global ? .forbiddenDestination : nil
    }
}

extension PlainPacket {
    /// Signalling, or a path's datagram: paths do not nest.
    fileprivate var isOfPaths: Bool {
        guard let ports else { return false }
        let paths = SignalPort.ims...SignalPort.relay
        return paths.contains(ports.source) || paths.contains(ports.destination)
    }
}

extension IPAddress {
    /// Of no network at all, as far as addresses are given out today: IPv4's "this network" and class E, IPv6 outside of 2000::/3 but for
    /// what is private to a site or translated.
    fileprivate var isReserved: Bool {
        if let ipv4 { return ipv4 >> 24 == 0 || ipv4 >> 28 == 0xF }
        return high >> 61 != 1 && high >> 57 != 0x7E && high >> 32 != 0x0064_FF9B
    }
}

import MATCore
import MATSignal

// Packets between nodes that are bound (protocol.md section 11.5).

extension RelayCore {
    /// Decides about one encapsulated packet and counts it.
    ///
    /// - Parameters:
    ///   - payload: of the datagram; it does not begin like signalling.
    ///   - source: the datagram's.
    public mutating func forward(_ payload: UnsafeRawBufferPointer, from source: Endpoint, now: MonotonicTime) -> Forwarding {
        guard let packet = unsafe InnerPacket(payload) else { return drop(.malformed) }
        guard let sender = bindings.slot(covering: packet.source, acceptedFrom: source, now) else {
            return drop(bindings.isBound(source, now) ? .foreignSource : .unboundSource)
        }
        guard let receiver = bindings.slot(covering: packet.destination, now) else { return drop(.unknownDestination) }
        guard receiver != sender else { return drop(.ownDestination) }
        if let reason = traffic.pass(payload.count, from: sender, to: receiver, at: now) { return drop(reason) }
        counters.packetsForwarded &+= 1
        counters.octetsForwarded &+= UInt64(payload.count)
        let way = bindings.way(in: receiver)
        return .forward(from: way.local, to: way.endpoint)
    }

    private mutating func drop(_ reason: DropReason) -> Forwarding {
        counters.packetsDropped[reason.rawValue] &+= 1
        return .drop(reason)
    }
}

import MATCore
import MATSignal

// Packets between nodes that are bound (protocol.md section 11.5).

extension RelayCore {
    /// Decides about one encapsulated packet and counts it.
    ///
    /// - Parameters:
    ///   - payload: of the datagram; it does not begin like signalling. Copied if the packet has to wait.
    ///   - source: the datagram's.
    ///   - trafficClass: the DSCP and ECN that the datagram came with.
    public mutating func forward(
        _ payload: UnsafeRawBufferPointer, from source: Endpoint, trafficClass: Int32 = 0, now: MonotonicTime
    ) -> Forwarding {
        guard let packet = unsafe InnerPacket(payload) else { return drop(.malformed) }
        guard let sender = bindings.slot(covering: packet.source, acceptedFrom: source, now) else {
            return drop(bindings.isBound(source, now) ? .foreignSource : .unboundSource)
        }
        guard let receiver = bindings.slot(covering: packet.destination, now) else {
            return unsafe leave(payload, from: sender, trafficClass: trafficClass, now: now)
        }
        guard receiver != sender else { return drop(.ownDestination) }
        let hasVisitor: Bool
        switch traffic.admit(payload.count, from: sender, to: receiver, at: now) {
        case .drop(let reason): return drop(reason)
        case .admit(let has): hasVisitor = has
        }
        if let rate = shortage(payload.count, from: .destination(UInt32(truncatingIfNeeded: receiver)), hasVisitor, now) {
            guard unsafe queues.hold(payload, from: sender, to: packet.destination, trafficClass, for: rate, now) else {
                return drop(rate.dropReason)
            }
            counters.packetsHeld &+= 1
            return .held
        }
        return .forward(forwarded(payload.count, from: sender, to: receiver))
    }

    /// Takes what the packet needs of the shared rates, one after the other.
    ///
    /// - Parameter first: the one to begin with.
    /// - Returns: the one for which it has to wait; `nil` if it may go.
    mutating func shortage(_ octets: Int, from first: SharedRate, _ hasVisitor: Bool, _ now: MonotonicTime) -> SharedRate? {
        var rate = first
        while true {
            if queues.isWaiting(for: rate) || !traffic.take(octets, of: rate, at: now) { return rate }
            guard let following = Self.following(rate, hasVisitor) else { return nil }
            rate = following
        }
    }

    private static func following(_ rate: SharedRate, _ hasVisitor: Bool) -> SharedRate? {
        switch rate {
        case .destination: hasVisitor ? .visitors : .relay
        case .visitors: .relay
        case .relay: nil
        }
    }

    private mutating func forwarded(_ octets: Int, from sender: Int, to receiver: Int) -> ForwardWay {
        traffic.count(octets, from: sender, to: receiver)
        counters.packetsForwarded &+= 1
        counters.octetsForwarded &+= UInt64(octets)
        let way = bindings.way(in: receiver)
        return ForwardWay(from: way.local, to: way.endpoint)
    }

    mutating func drop(_ reason: DropReason) -> Forwarding {
        counters.packetsDropped[reason.rawValue] &+= 1
        return .drop(reason)
    }

    // MARK: Packets that wait

    /// Whether `release` has to be called, every millisecond.
    public var isHolding: Bool { !queues.isEmpty }

    /// What may go of the packets that waited, each HoA's in turn.
    ///
    /// - Parameter max: how many; if there are as many, more may be there.
    public mutating func release(max: Int, now: MonotonicTime) -> [ReleasedPacket] {
        var released: [ReleasedPacket] = []
        var rounds = 0
        while released.count < max, let (rate, next) = queues.next(now, rounds: &rounds, take: { traffic.take($1, of: $0, at: now) }) {
            switch next {
            case .none: break
            case .tooOld: counters.packetsDropped[rate.dropReason.rawValue] &+= 1
            case .send(let packet): if let way = goOn(packet, after: rate, now) { released.append(way) }
            }
        }
        return released
    }

    /// - Returns: `nil` if it waits for another rate now, or is dropped.
    private mutating func goOn(_ packet: FairQueue.Packet, after rate: SharedRate, _ now: MonotonicTime) -> ReleasedPacket? {
        // Looked up again: its node may have moved or left meanwhile.
        let receiver = packet.direction == .toPlain ? nil : bindings.slot(covering: packet.destination, now)
        guard receiver != nil || packet.direction == .toPlain && configuration.gateway != nil else {
            _ = drop(.unknownDestination)
            return nil
        }
        let sender = Int(packet.source)
        // A gateway is for residents only.
        let hasVisitor = packet.direction == .betweenNodes && receiver.map { traffic.hasVisitor(sender, $0) } ?? false
        let count = packet.octets.count
        if let following = Self.following(rate, hasVisitor), let short = shortage(count, from: following, hasVisitor, now) {
            if !queues.hold(packet, for: short, now) { _ = drop(short.dropReason) }
            return nil
        }
        var way: ForwardWay?
        if let receiver {
            way = packet.direction == .fromPlain ? arrived(count, to: receiver) : forwarded(count, from: sender, to: receiver)
        } else {
            left(count, from: sender)
        }
        return ReleasedPacket(octets: packet.octets, trafficClass: packet.trafficClass, way: way)
    }

    /// The link, or the socket before it, took no more. For a moment packets wait here, where the order among HoAs is fair, instead of being lost there.
    public mutating func stalled(now: MonotonicTime) { traffic.stall(until: now + Self.stallTime) }

    private static let stallTime = Duration.milliseconds(1)
}

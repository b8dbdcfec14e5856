import IMTPlan
import MATSignal

/// What the kernel side tells the agent, always in the event loop's thread.
public enum KernelEvent {
    /// Addresses, links or default routes changed; the whole picture, not the difference.
    case links(LinkSnapshot)
    /// A local packet found no IMT entry. To be released, or dropped by forgetting it.
    case heldOutbound(HeldPacket)
    /// Packets arrived from unknown sources, in this order, and no connected socket claims them. Likewise.
    case heldInbound([HeldPacket])
    /// A segment from an unknown source found no connection, and the reset that answers it was not sent. Whose the source is, is to be
    /// found out; there is nothing to release, as the segment will be repeated.
    case resetHeld(from: IPAddress, to: IPAddress)
    /// A packet for an own HoA came in a datagram from an endpoint that its sender is not known at, or from somebody who is not known at all, to
    /// this own endpoint. To be released as `heldInbound`, or dropped by forgetting it.
    case heldEncapsulated(HeldPacket, from: Endpoint, to: Endpoint)
    /// A packet came from an own gateway, of a source that has no entry. If there is one when this returns, it is delivered, else dropped.
    case gatewayArrival(HomePair, from: Endpoint)
    /// A packet has left for a peer, after `awaitUse`.
    case used
    /// A message for the agent came inside a packet that was taken from a datagram. It is a sign from the peer over this path, and no proof.
    case inPath(InPathMessage)
    /// The network said something of a datagram that was sent, whatever it carried.
    case datagramError(DatagramError)
    /// A router of this link advertised by which prefix its NAT64 is reached.
    case translator(AdvertisedTranslator, interfaceIndex: UInt32)
    /// Programs start from these homes now, as they were told to; whoever started from others has ended.
    case programs(Set<HomeAddress>)
    /// Someone else removed something of ours, and it is there again.
    case repaired(String)
    /// What a person should look at, though the agent goes on.
    case warning(String)
    case failed(KernelError)
}

/// What was translated for one peer since the entry was first made, in IP octets (headers included).
public struct PeerCounters: Hashable, Sendable {
    public var packetsOut: UInt64
    public var packetsIn: UInt64
    public var octetsOut: UInt64
    public var octetsIn: UInt64

    public init(packetsOut: UInt64 = 0, packetsIn: UInt64 = 0, octetsOut: UInt64 = 0, octetsIn: UInt64 = 0) {
        self.packetsOut = packetsOut
        self.packetsIn = packetsIn
        self.octetsOut = octetsOut
        self.octetsIn = octetsIn
    }
}

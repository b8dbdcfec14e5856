import MATCore
import MATSignal

/// What `RelayCore` wants done. The shell does it, in order, and decides nothing itself.
public enum RelayAction: Hashable, Sendable {
    /// One datagram, from this address and port of the relay.
    case send([UInt8], from: Endpoint, to: Endpoint)
    /// Find the IMS keys at a name of the reverse zone: a host prefix means that HoA's. `RelayCore.resolved` takes the result.
    case lookUp(IPPrefix)
    /// Check signatures, in any thread. `RelayCore.checked` is told the outcome.
    case check(BindTicket, BindCheck)
    /// What the kernel has to know, where it forwards by itself; only after `RelayCore.kernelForwards`.
    case kernel(KernelChange)
    case log(RelayLogLevel, String)
}

/// How much a log line matters, in swift-log's words; the core does not depend on a logging library.
public enum RelayLogLevel: String, Sendable, Hashable, CaseIterable {
    case debug, info, notice, warning
}

/// A change in what the kernel knows of the bindings.
public enum KernelChange: Hashable, Sendable {
    /// A binding stands in this slot from now on, or another one.
    case enter(KernelBinding)
    /// Another end of the grant.
    case extend(slot: Int, until: MonotonicTime)
    case leave(slot: Int, IPPrefix)
    /// Whether its packets come to the agent, since it has used its month.
    case bar(slot: Int, Bool)
}

/// A binding, as far as the kernel has to know it.
public struct KernelBinding: Hashable, Sendable {
    public var slot: Int
    public var prefix: IPPrefix
    public var endpoint: Endpoint
    /// The relay's own address and port that the node bound to.
    public var local: Endpoint
    /// Where it was before, if packets are still taken from there.
    public var previous: Endpoint?
    public var previousUntil: MonotonicTime
    public var until: MonotonicTime
    public var isResident: Bool
    public var refusesVisitors: Bool
    /// Both directions together.
    public var octetsOfMonth: UInt64
}

/// What the kernel forwarded since it was asked last, of and to the binding in a slot.
public struct KernelCount: Hashable, Sendable {
    public var slot: Int
    public var packetsSent: UInt64
    public var octetsSent: UInt64
    public var octetsReceived: UInt64

    public init(slot: Int, packetsSent: UInt64, octetsSent: UInt64, octetsReceived: UInt64) {
        self.slot = slot
        self.packetsSent = packetsSent
        self.octetsSent = octetsSent
        self.octetsReceived = octetsReceived
    }
}

/// What happens to an encapsulated packet.
public enum Forwarding: Hashable, Sendable {
    /// Its payload goes unchanged.
    case forward(ForwardWay)
    /// It waits for its turn; `RelayCore.release` gives it back.
    case held
    /// Its payload goes to a plain host: the kernel forwards it.
    case leave
    case drop(DropReason)

    public static func forward(from: Endpoint, to: Endpoint) -> Self { .forward(ForwardWay(from: from, to: to)) }
}

/// From which of the relay's addresses a datagram goes where.
public struct ForwardWay: Hashable, Sendable {
    public var from: Endpoint
    public var to: Endpoint

    public init(from: Endpoint, to: Endpoint) {
        self.from = from
        self.to = to
    }
}

/// A packet that waited and may go.
public struct ReleasedPacket: Hashable, Sendable {
    public var octets: [UInt8]
    /// The DSCP and ECN of the datagram that it came in, or is to go in.
    public var trafficClass: Int32
    /// `nil`: it goes to a plain host, and the kernel forwards it.
    public var way: ForwardWay?
}

/// Why a packet is not forwarded. The raw values are places in the counters.
public enum DropReason: Int, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    /// Not one whole IP packet, or a source that can't be answered.
    case malformed
    /// Nobody is bound at the outer source.
    case unboundSource
    /// Who is bound there is not the inner source.
    case foreignSource
    case unknownDestination
    /// It would go back to where it came from.
    case ownDestination
    /// Neither end is a resident, or the resident does not want visitors.
    case noResident
    case visitorRefused
    case sourceRate
    case destinationRate
    case visitorsRate
    case relayRate
    case quota
    /// Of a gateway: signalling, or a path inside a path.
    case nestedPath
    /// Of a gateway: its own address, or one that is not global, and not allowed.
    case forbiddenDestination
    /// Of a gateway: a plain packet in the name of a node that it serves.
    case servedSource

    public var description: String {
        switch self {
        case .malformed: "malformed"
        case .unboundSource: "unbound source"
        case .foreignSource: "foreign source"
        case .unknownDestination: "unknown destination"
        case .ownDestination: "own destination"
        case .noResident: "no resident"
        case .visitorRefused: "visitor refused"
        case .sourceRate: "rate of the source"
        case .destinationRate: "rate of the destination"
        case .visitorsRate: "rate of visitors"
        case .relayRate: "rate of the relay"
        case .quota: "monthly quota"
        case .nestedPath: "nested path"
        case .forbiddenDestination: "forbidden destination"
        case .servedSource: "plain packet of a served node"
        }
    }
}

public struct RelayCounters: Hashable, Sendable {
    /// Bind Acks by code.
    public var answered: [ResponseCode: UInt64] = [:]
    public var asks: UInt64 = 0
    public var binds: UInt64 = 0
    public var refreshes: UInt64 = 0
    public var moves: UInt64 = 0
    /// Bindings that were ended, by their nodes or because their grants had run out.
    public var ends: UInt64 = 0
    /// Datagrams of signalling, or parts of them, that could not be read.
    public var malformed: UInt64 = 0
    /// Signalling that a relay has nothing to do with.
    public var dropped: UInt64 = 0
    public var lookUps: UInt64 = 0
    public var checks: UInt64 = 0
    public var logLinesSuppressed: UInt64 = 0
    public var packetsForwarded: UInt64 = 0
    public var octetsForwarded: UInt64 = 0
    /// Of both, what the kernel did by itself.
    public var kernelPackets: UInt64 = 0
    public var kernelOctets: UInt64 = 0
    /// Packets that had to wait for a rate that many share.
    public var packetsHeld: UInt64 = 0
    /// Of a gateway: forwarded for nodes to plain hosts, and back.
    public var packetsToPlain: UInt64 = 0
    public var octetsToPlain: UInt64 = 0
    public var packetsFromPlain: UInt64 = 0
    public var octetsFromPlain: UInt64 = 0
    /// By `DropReason.rawValue`.
    public var packetsDropped = ContiguousArray<UInt64>(repeating: 0, count: DropReason.allCases.count)

    public init() {}

    public subscript(reason: DropReason) -> UInt64 { packetsDropped[reason.rawValue] }
}

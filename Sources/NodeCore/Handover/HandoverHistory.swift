import MATSignal

/// The latest moves of this node's home addresses, with what became of each: `mat history` shows them.
///
/// ```
///               no usable address              an address
///   (none) ───────────────────────► stranded ──────────────► moved ──┬── the own IMS acks ────────────► registered
///      │                                                       ▲     └── each peer, or its IMS, acks ─► all told
///      └───────────────────────────────────────────────────────┘
///                        another address is the first
/// ```
/// The next move of the same home address ends what is written of the one before.
public struct HandoverHistory: Sendable {
    /// A day's drive through many networks; older ones go.
    public static let countMax = 256

    /// Why the traffic left the address that it had.
    public enum Cause: String, Hashable, Sendable {
        /// The network took the address away, or the link went.
        case addressGone
        /// Nothing answered over it.
        case pathDead
        /// A person asked for it.
        case chosen
        /// An address came that comes before it in the order of preference.
        case preferred
    }

    public struct Place: Hashable, Sendable {
        public let moa: MobileAddress
        public let interface: String?
    }

    public struct Handover: Hashable, Sendable {
        public let hoa: HomeAddress
        public let began: Now
        public let cause: Cause
        /// `nil` if there was none.
        public let from: Place?
        /// `nil` as long as there is none.
        public fileprivate(set) var to: Place?
        public fileprivate(set) var hasOverlap = false
        /// From losing the last address to having one; `nil` where there was one all the time.
        public fileprivate(set) var withoutAddress: Duration?
        /// From the new address to the IMS's ack; `nil` as long as it is awaited.
        public fileprivate(set) var registeredAfter: Duration?
        /// Who was to be told, and who has acked: the peer itself or its IMS for it.
        public fileprivate(set) var peers = 0
        public fileprivate(set) var peersTold = 0
        /// From the new address to the latest ack.
        public fileprivate(set) var toldAfter: Duration?
        /// Packets to peers that waited in the agent, and those that waited too long.
        public fileprivate(set) var packetsHeld: UInt64 = 0
        public fileprivate(set) var packetsLost: UInt64 = 0

        fileprivate var moved: MonotonicTime { began.monotonic + (withoutAddress ?? .zero) }
    }

    /// In order of time.
    public private(set) var handovers: [Handover] = []

    public init() {}

    /// What has waited since counts as the newest one's for so long.
    private static let aftermath: Duration = .seconds(10)

    private func newest(of hoa: HomeAddress) -> Int? { handovers.lastIndex { $0.hoa == hoa } }

    /// The last usable address is gone.
    mutating func stranded(_ hoa: HomeAddress, from: Place?, _ cause: Cause, _ now: Now) {
        if let index = newest(of: hoa), handovers[index].to == nil { return }
        add(Handover(hoa: hoa, began: now, cause: cause, from: from))
    }

    /// Another address is the first.
    ///
    /// - Parameter peers: who is to be told.
    mutating func moved(_ hoa: HomeAddress, from: Place?, to: Place, _ cause: Cause, hasOverlap: Bool, peers: Int, _ now: Now) {
        if let index = newest(of: hoa), handovers[index].to == nil {
            handovers[index].withoutAddress = now.monotonic - handovers[index].began.monotonic
        } else {
            add(Handover(hoa: hoa, began: now, cause: cause, from: from))
        }
        guard let index = newest(of: hoa) else { return }
        handovers[index].to = to
        handovers[index].hasOverlap = hasOverlap
        handovers[index].peers = peers
    }

    mutating func registered(_ hoa: HomeAddress, _ now: Now) {
        guard let index = newest(of: hoa), handovers[index].to != nil, handovers[index].registeredAfter == nil else { return }
        handovers[index].registeredAfter = now.monotonic - handovers[index].moved
    }

    /// A peer has acked that had not.
    mutating func told(_ hoa: HomeAddress, _ now: Now) {
        // A new peer is told as well, and is not one of those that were there.
        guard let index = newest(of: hoa), handovers[index].to != nil, handovers[index].peersTold < handovers[index].peers else { return }
        handovers[index].peersTold += 1
        handovers[index].toldAfter = now.monotonic - handovers[index].moved
    }

    /// A packet to a peer waits in the agent.
    mutating func held(_ hoa: HomeAddress, _ now: MonotonicTime) {
        guard let index = newest(of: hoa), handovers[index].to == nil || now - handovers[index].moved <= Self.aftermath else { return }
        handovers[index].packetsHeld &+= 1
    }

    /// Held packets had waited for too long, or were too many.
    mutating func lost(_ count: Int, of hoa: HomeAddress) {
        guard let index = newest(of: hoa) else { return }
        // Of what is lost now, only what had waited for this is its own.
        let own = min(handovers[index].packetsHeld &- handovers[index].packetsLost, UInt64(clamping: count))
        handovers[index].packetsLost &+= own
    }

    private mutating func add(_ handover: Handover) {
        if handovers.count >= Self.countMax { handovers.removeFirst() }
        handovers.append(handover)
    }
}

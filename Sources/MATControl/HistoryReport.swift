/// What `mat history` asks: the latest handovers, in order of time.
public struct HistoryReport: Codable, Hashable, Sendable {
    /// The address is gone, its path was dead, a person chose another, or one came that is preferred.
    public enum Reason: String, Codable, Hashable, Sendable {
        case addressGone = "address gone"
        case pathDead = "path dead"
        case chosen
        case preferred
    }

    public struct Place: Codable, Hashable, Sendable {
        public var address: String
        @OrNull public var interface: String?

        public init(address: String, interface: String?) {
            self.address = address
            self.interface = interface
        }
    }

    /// Times are counted from the moment when the new address was there, unless their names say otherwise.
    public struct Handover: Codable, Hashable, Sendable {
        public var home: String
        /// When the old address was left, Unix time.
        public var atMilliseconds: UInt64
        public var reason: Reason
        /// `nil` if there was none.
        @OrNull public var from: Place?
        /// `nil` as long as there is none.
        @OrNull public var to: Place?
        /// Whether the old address went on working until peers knew the new one.
        public var overlap: Bool
        /// `nil` if there was an address all the time.
        @OrNull public var withoutAddressMilliseconds: Int64?
        /// Until the own mapping server acked; `nil` as long as it has not.
        @OrNull public var registeredAfterMilliseconds: Int64?
        /// How many there were, how many (or their servers for them) have acked, and when the latest of these did.
        public var peers: Int
        public var peersTold: Int
        @OrNull public var toldAfterMilliseconds: Int64?
        /// Packets to peers that waited in the agent, and of these those that waited for too long.
        public var packetsHeld: UInt64
        public var packetsLost: UInt64

        public init(
            home: String, atMilliseconds: UInt64, reason: Reason, from: Place?, to: Place?, overlap: Bool, withoutAddressMilliseconds: Int64?,
            registeredAfterMilliseconds: Int64?, peers: Int, peersTold: Int, toldAfterMilliseconds: Int64?, packetsHeld: UInt64, packetsLost: UInt64
        ) {
            self.home = home
            self.atMilliseconds = atMilliseconds
            self.reason = reason
            self.from = from
            self.to = to
            self.overlap = overlap
            self.withoutAddressMilliseconds = withoutAddressMilliseconds
            self.registeredAfterMilliseconds = registeredAfterMilliseconds
            self.peers = peers
            self.peersTold = peersTold
            self.toldAfterMilliseconds = toldAfterMilliseconds
            self.packetsHeld = packetsHeld
            self.packetsLost = packetsLost
        }
    }

    public var handovers: [Handover]

    public init(handovers: [Handover]) { self.handovers = handovers }
}

/// What matd and its kernel do with packets to an address, looked up now: a part of `mat trace`.
public struct NodeTraceReport: Codable, Hashable, Sendable {
    /// An element that translation needs.
    public struct Entry: Codable, Hashable, Sendable {
        /// What it does, in words.
        public var purpose: String
        /// Where in the kernel.
        public var place: String
        public var isThere: Bool

        public init(purpose: String, place: String, isThere: Bool) {
            self.purpose = purpose
            self.place = place
            self.isThere = isThere
        }
    }

    /// What the kernel says that it would do with a packet.
    public struct Route: Codable, Hashable, Sendable {
        public var to: String
        /// The packet's source, if it has one before.
        @OrNull public var from: String?
        @OrNull public var interface: String?
        @OrNull public var gateway: String?
        /// The routing table that says so.
        public var table: UInt32
        /// Whether that table is matd's.
        public var isOwn: Bool
        /// Why there is no route.
        @OrNull public var failure: String?

        public init(to: String, from: String?, interface: String?, gateway: String?, table: UInt32, isOwn: Bool, failure: String?) {
            self.to = to
            self.from = from
            self.interface = interface
            self.gateway = gateway
            self.table = table
            self.isOwn = isOwn
            self.failure = failure
        }
    }

    public var traffic: TrafficReport
    /// What the kernel should have for it, and whether it does.
    public var entries: [Entry]
    /// Of a program's packet to it.
    @OrNull public var captured: Route?
    /// Of what leaves this host for it, if packets have a way.
    @OrNull public var leaving: Route?
    /// How its packets go, and could: as `mat why`.
    @OrNull public var why: WhyReport?

    public init(traffic: TrafficReport, entries: [Entry], captured: Route?, leaving: Route?, why: WhyReport?) {
        self.traffic = traffic
        self.entries = entries
        self.captured = captured
        self.leaving = leaving
        self.why = why
    }
}

import MATControl

/// What `mat trace` prints: how far a packet to a home address gets, step by step.
struct TraceReport: Codable, Hashable, Sendable {
    enum Stage: String, Codable, Hashable, Sendable, CaseIterable {
        /// matd, and the networks that this host is in.
        case node
        /// Which servers know where the address is.
        case dns
        /// Where they say that it is, and whether that is to be believed.
        case ims
        /// What matd knows of it.
        case cache
        /// The entries in the kernel that rewrite its packets or put them into datagrams.
        case imt
        /// Where the kernel sends them.
        case routes
        /// Whether an answer comes back.
        case path
    }

    enum Outcome: String, Codable, Hashable, Sendable {
        case ok
        /// It works now, and a person should look.
        case doubt
        /// Packets get no further than here.
        case stops
        /// Not looked at, since there is nothing to look at.
        case skipped
    }

    struct Step: Codable, Hashable, Sendable {
        var stage: Stage
        var outcome: Outcome
        /// What is so.
        var text: String
        /// More of it, a line each.
        var details: [String]
        @OrNull var remedy: String?

        init(_ stage: Stage, _ outcome: Outcome, _ text: String, details: [String] = [], remedy: String? = nil) {
            self.stage = stage
            self.outcome = outcome
            self.text = text
            self.details = details
            self.remedy = remedy
        }
    }

    /// A router on the way to where packets are sent, as it answers to one that may go no further.
    struct Hop: Codable, Hashable, Sendable {
        /// How many routers it is away.
        var number: Int
        /// `nil`: nothing answered.
        @OrNull var address: String?
        @OrNull var tookMilliseconds: Double?
    }

    var hoa: String
    /// One of each stage, in their order.
    var steps: [Step]
    /// The first that packets do not pass: what comes behind follows from it.
    @OrNull var stopsAt: Stage?
    /// Looked for if nothing came back.
    var hops: [Hop]

    var stop: Step? { steps.first { $0.outcome == .stops } }
}

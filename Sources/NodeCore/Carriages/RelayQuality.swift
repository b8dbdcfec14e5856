import MATSignal

/// How good the way to a peer by one relay is, by the last probes that went over it there and back: of several relays by which the peer answers, a
/// clearly better one is used in place of the first (protocol.md section 11.4 has their order).
///
/// ```
///   probe ──► answered: its round trip ──┐
///         └─► not answered: lost ────────┴──► of the last 8: cost = mean round trip + 1 s × the part that was lost, of which one may be chance
/// ```
/// A lost packet costs a connection about a second, or half of what it carries; a millisecond more is a millisecond. Both ends measure the same loop,
/// so they come to the same choice; where they do not, each direction has its own relay, which works as well.
struct RelayQuality: Hashable, Sendable {
    static let probesMax = 8
    /// Fewer say nothing yet.
    static let probesMin = 4
    private static let lossCost: Duration = .seconds(1)
    /// How much less another one has to cost at the least, so that noise moves nothing.
    private static let gainMin: Duration = .milliseconds(20)

    /// Of the last probes, the latest last; `nil`: no answer came.
    private var roundTrips: [Duration?] = []

    var count: Int { roundTrips.count }
    var lost: Int { roundTrips.count { $0 == nil } }
    /// The mean of those that were answered.
    var roundTrip: Duration? {
        let answered = roundTrips.compactMap { $0 }
        return answered.isEmpty ? nil : answered.reduce(.zero, +) / answered.count
    }

    /// As people read it.
    var text: String? {
        roundTrip.map { "\(Int(($0 / .milliseconds(1)).rounded())) ms there and back, \(lost) of \(count) probes lost" }
    }

    /// `nil`: not known yet.
    private var cost: Duration? {
        guard count >= Self.probesMin else { return nil }
        let loss = Self.lossCost * max(0, lost - 1) / count
        return (roundTrip ?? .zero) + loss
    }

    /// A probe has come to its end.
    mutating func probed(_ roundTrip: Duration?) {
        roundTrips.append(roundTrip)
        if roundTrips.count > Self.probesMax { roundTrips.removeFirst() }
    }

    /// By a quarter, and by more than noise.
    func isClearlyBetter(than other: RelayQuality) -> Bool {
        guard let cost, let otherCost = other.cost else { return false }
        return otherCost - cost > max(Self.gainMin, otherCost / 4)
    }

    /// The one that costs less; what is not known yet costs most.
    static func isLess(_ a: RelayQuality, _ b: RelayQuality) -> Bool { (a.cost ?? .seconds(1000)) < (b.cost ?? .seconds(1000)) }
}

import MATCore
import MATSignal

/// HoAs that are named as the source of something that came in a datagram, a packet or a Path Probe under our cookie, and are no peers (protocol.md
/// sections 11.2 and 11.4).
///
/// ```
///   (nothing) ──── 20/s in all ────► asked: the DNS, then its IMS ──── its record ────► a peer, whose endpoint is probed
///       ▲                              │
///       └──── none, or after 10 s ◄────┘
/// ```
/// Anybody can name anybody: so nothing is kept of one but the endpoint that it came from, and a bound is put to what is asked.
struct Callers: Sendable {
    /// Where something of a caller came from, and to.
    struct Place: Hashable, Sendable {
        let endpoint: Endpoint
        let own: IPAddress
        /// It has our cookie for there, or has sent as much as it would be sent.
        var hasShown = true
    }

    private struct Call: Sendable {
        let place: Place
        let until: MonotonicTime
    }

    static let perSecond = 20
    /// At a time, of the whole node.
    static let askedMax = 256
    static let timeMax: Duration = .seconds(10)

    private let askedMax: Int
    private var rate: RateLimit
    private var calls: [HomeAddress: Call] = [:]

    init(perSecond: Int, askedMax: Int) {
        rate = RateLimit(perSecond: perSecond)
        self.askedMax = askedMax
    }

    func contains(_ hoa: HomeAddress) -> Bool { calls[hoa] != nil }
    var count: Int { calls.count }

    /// Something came that names this HoA.
    ///
    /// - Returns: whether it is to be asked about now.
    mutating func called(_ hoa: HomeAddress, from place: Place, _ now: MonotonicTime) -> Bool {
        if let call = calls[hoa], call.until > now { return false }
        guard rate.take(at: now) else { return false }
        if calls.count >= askedMax { calls = calls.filter { $0.value.until > now } }
        guard calls.count < askedMax || calls[hoa] != nil else { return false }
        calls[hoa] = Call(place: place, until: now + Self.timeMax)
        return true
    }

    /// It is known now, or will not be.
    ///
    /// - Returns: where it called from.
    @discardableResult
    mutating func end(_ hoa: HomeAddress) -> Place? { calls.removeValue(forKey: hoa)?.place }
}

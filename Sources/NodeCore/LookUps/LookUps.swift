import MATSignal

/// Who waits for the DNS to say what serves an HoA. One question is asked however many wait for its answer.
struct LookUps: Sendable {
    enum Purpose: Hashable, Sendable {
        case home
        case destination
        case record(PendingRecord)
        case peer
        /// It has sent us something, and is not known.
        case caller
        /// Nobody waits: what is known has expired, and is used until there is something newer.
        case refresh
    }

    /// Questions at a time, of the whole node.
    static let askedMax = 4096
    /// Waiters per HoA; more are dropped, and their senders retransmit.
    private static let waitersMax = 16

    private let askedMax: Int
    private var waiting: [HomeAddress: [Purpose]] = [:]

    /// - Parameter askedMax: of this core.
    init(askedMax: Int) { self.askedMax = askedMax }

    /// - Returns: whether the DNS is to be asked now.
    mutating func ask(_ hoa: HomeAddress, for purpose: Purpose) -> Bool {
        if let waiters = waiting[hoa] {
            if waiters.count < Self.waitersMax, !waiters.contains(purpose) { waiting[hoa]?.append(purpose) }
            return false
        }
        guard waiting.count < askedMax else { return false }
        waiting[hoa] = [purpose]
        return true
    }

    /// The DNS has answered.
    ///
    /// - Returns: who waits for it.
    mutating func end(_ hoa: HomeAddress) -> [Purpose] { waiting.removeValue(forKey: hoa) ?? [] }
}

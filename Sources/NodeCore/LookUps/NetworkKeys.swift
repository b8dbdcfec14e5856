import MATCore
import MATSignal

/// The keys that a network's certificate is believed under: those that the DNS gives at the name of its prefix (sections 5 and 8). For one HoA
/// that is the name at which its IMSs were found; a prefix is asked for apart, since whoever holds the reverse name of one address in it says
/// nothing about the rest.
///
/// ```
///   unknown ── somebody waits ──► asked ── found ──► known, for as long as the DNS says ──► unknown
///                                   └── not found: those who wait are told
/// ```
struct NetworkKeys: Sendable {
    /// What waits for the keys at a prefix's name.
    enum Waiter: Hashable, Sendable {
        /// The answer of an HoA's IMS to our query.
        case answer(HomeAddress, MAAnswer)
        case record(PendingRecord)
    }

    /// Prefixes whose keys are remembered, and those asked for at a time, of the whole node.
    static let knownMax = 1024
    static let askedMax = 256
    /// What waits for each; more is dropped, and its sender repeats it.
    private static let waitersMax = 16

    private struct Known: Sendable {
        let keys: [PublicKey]
        let expires: MonotonicTime
    }

    private let knownMax: Int
    private let askedMax: Int
    private var known: [IPPrefix: Known] = [:]
    private var asked: [IPPrefix: [Waiter]] = [:]

    /// - Parameters: the bounds of this core.
    init(knownMax: Int, askedMax: Int) {
        self.knownMax = knownMax
        self.askedMax = askedMax
    }

    /// The keys at a prefix's own name, if they are known.
    func keys(of prefix: IPPrefix, _ now: MonotonicTime) -> [PublicKey]? { known[prefix].flatMap { $0.expires > now ? $0.keys : nil } }

    /// Somebody needs them.
    ///
    /// - Parameter waiter: who is told; `nil` if they are to be there the next time.
    /// - Returns: whether the DNS is to be asked now.
    mutating func ask(_ prefix: IPPrefix, for waiter: Waiter?) -> Bool {
        if let waiting = asked[prefix] {
            if let waiter, waiting.count < Self.waitersMax, !waiting.contains(waiter) { asked[prefix]?.append(waiter) }
            return false
        }
        guard asked.count < askedMax else { return false }
        asked[prefix] = waiter.map { [$0] } ?? []
        return true
    }

    /// The DNS has answered.
    ///
    /// - Returns: who waits for it.
    mutating func lookedUp(_ prefix: IPPrefix, _ result: ServerLookup, _ now: MonotonicTime) -> [Waiter] {
        if case .found(let set) = result {
            // Those that expire first go first.
            known.makeRoom(for: prefix, max: knownMax) { $1.expires }
            // Good for what waits now, whatever the zone says.
            known[prefix] = Known(keys: set.keys, expires: max(set.expires, now + .seconds(1)))
        }
        return asked.removeValue(forKey: prefix) ?? []
    }
}

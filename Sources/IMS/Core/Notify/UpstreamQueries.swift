import MATCore
import MATDNS
import MATSignal

/// A HA Notify that is not answered yet.
struct PendingNotify: Sendable {
    var request: Request
    var notify: HANotify
    /// The enclosed record with its certificate; `nil` if there was none or a newer one is known.
    var enclosed: CertifiedMapping?
    /// Whether the signature of `enclosed` is being checked.
    var isVerifying = false
}

/// What makes a repeated HA Notify the same.
struct NotifyKey: Hashable, Sendable {
    var source: Endpoint
    var sequence: UInt32
    var hoa: HomeAddress
    var peerHoA: HomeAddress
}

/// Finding out from IMS_MN what is true about one HoA, for all who wait for it.
///
/// ```
///   HA Notify / MA Notify
///          │
///     look up HoA ── absent, failed ──► code 8
///          │
///   keys known: enclosed records verified ──► remembered, code 0, MA Notify to the CN
///          │
///     MA Query to IMS_MN ─── no answer ───► code 8 for who still waits; what is held stays a hint
///          │
///       MA Answer ── older than what is held ──► asked again for 3 s: its update may be on the way
///          │
///     remembered as confirmed, CNs told if it differs
/// ```
struct Confirmation: Sendable {
    let hoa: HomeAddress
    let started: MonotonicTime
    /// Served by this IMS itself: there is nothing to ask, only a registration to wait for.
    var isOwn: Bool
    var waiting: [NotifyKey] = []
    /// Records from MA Notify that wait for keys.
    var offered: [(request: Request, certified: CertifiedMapping)] = []
    /// The correspondents whose nodes were told a record that IMS_MN has not confirmed.
    var told: Set<HomeAddress> = []
    var query: UpstreamQuery?
    /// IMS_MN's answer, while the keys for its certificate are looked up and its signature is checked.
    var answered: CertifiedMapping?

    /// The source that is charged for it: the first that announced the HoA.
    var inquirer: IPPrefix?

    /// More wait for nothing: they retransmit.
    static let offeredMax = 4
    /// More are not corrected if the record turns out wrong; their nodes find out by themselves.
    static let toldMax = 256

    mutating func noteTold(_ peerHoA: HomeAddress) {
        if told.count < Self.toldMax { told.insert(peerHoA) }
    }

    init(hoa: HomeAddress, isOwn: Bool, now: MonotonicTime) {
        self.hoa = hoa
        self.isOwn = isOwn
        started = now
    }
}

/// An MA Query to the servers of an IMS set.
struct UpstreamQuery: Sendable {
    var sequence: UInt32
    /// In the order to try them.
    var servers: [Endpoint]
    var retransmission: Retransmission
    var tries: [Endpoint: Int] = [:]
    var cookiesFollowed = 0

    /// Tries to a server that has never answered (section 7).
    static let triesToStrangerMax = 2

    /// Whom to ask in the try that begins: one server at first, from the third try on the next one too.
    func targets(hasAnswered: (IPAddress) -> Bool) -> [Endpoint] {
        let isAskable: (Endpoint) -> Bool = { hasAnswered($0.address) || (tries[$0] ?? 0) < Self.triesToStrangerMax }
        let askable = servers.filter(isAskable)
        let isLate = retransmission.tries + 1 >= Retransmission.failoverTry
        return Array(askable.prefix(isLate ? 2 : 1))
    }
}

/// A look-up and what came of it, kept as long as DNS allows.
enum LookUp: Sendable {
    case inProgress(waiting: Set<HomeAddress>)
    case ended(IMSLookupResult, until: MonotonicTime)

    /// Failures are remembered briefly, so that a flood of notifies doesn't become one of questions.
    static let failureAge: Duration = .seconds(2)
    /// Section 8: what DNS says is believed for at most an hour.
    static let ageMax: Duration = .seconds(3600)
    /// Entries looked at to find one that can go.
    static let stepsToRoomMax = 4

    var isInProgress: Bool {
        if case .inProgress = self { return true }
        return false
    }

    func isOver(_ now: MonotonicTime) -> Bool {
        if case .ended(_, let until) = self { return until <= now }
        return false
    }
}

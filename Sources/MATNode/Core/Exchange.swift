import MATCore
import MATSignal

/// A request under way: what it is for, whom it asks, and when it is tried again.
struct Exchange: Sendable {
    enum Purpose: Hashable, Sendable {
        /// IMS Update of the own HoA.
        case register(HomeAddress)
        /// MA Query for the own HoA, sent from one MoA to get a cookie as proof of that location.
        case prove(HomeAddress, MobileAddress)
        /// MA Query for the own HoA, for the time that the own IMS's cookie carries.
        case readClock(HomeAddress)
        /// MA Query for the own HoA: whether the own IMS still has our record.
        case checkSelf(HomeAddress)
        /// MA Query to a peer's IMS: start of communication, poll, and confirmation alike.
        case queryPeer(HomeAddress)
        /// HA Notify to the peer's IMS.
        case notifyServer(HomeAddress)
        /// MA Notify to the peer itself.
        case notifyPeer(HomeAddress)
        /// MA Notify to a new peer, for its cookie; see `introduce`.
        case introduce(HomeAddress)
        /// HA Query to the own IMS.
        case identify(MobileAddress)
        /// MA Query to a peer's locator.
        case checkLocator(HomeAddress, MobileAddress)
        /// IMS Update of the record that is registered, from an own address that was refused: does the IMS see that address now?
        case tryUplink(HomeAddress, MobileAddress)
    }

    let sequence: UInt32
    /// When the first try was sent; after a move the first of those from there.
    var began: MonotonicTime
    let purpose: Purpose
    let type: MessageType
    /// In order of try.
    var targets: [Endpoint]
    var target = 0
    /// The own address to send from; `nil`: the preferred one of the target's family at each try.
    var source: IPAddress?
    var retransmission: Retransmission
    /// Codes 9 followed; at most two an exchange (section 2).
    var cookiesFollowed = 0
    /// The endpoints asked so far: only they may answer.
    var asked: [Endpoint] = []
    /// Whether anything arrived from the server, which tells a silent server from a slow one.
    var isAnswered = false
    /// Whether the last message carried a server cookie: without one the receiver does only what costs it nothing.
    var hadCookie = false
    /// Fewer tries than usual, for requests that only improve matters.
    var triesMax = Retransmission.triesMax

    /// It was given its turn to be sent; see `Pace`.
    var hasTurn = false

    static let cookiesFollowedMax = 2

    /// It goes where a record says that its node is, which anybody can write.
    var isToUnproven: Bool {
        switch purpose {
        case .checkLocator, .notifyPeer, .introduce: true
        case .register, .prove, .queryPeer, .notifyServer, .identify, .tryUplink, .readClock, .checkSelf: false
        }
    }

    /// Whether the rest of the peers' requests must leave room for it. Our own registration and what people wait for go at once.
    var isPaced: Bool {
        switch purpose {
        case .queryPeer, .notifyServer, .notifyPeer, .introduce, .checkLocator: true
        case .register, .prove, .identify, .tryUplink, .readClock, .checkSelf: false
        }
    }
}

import MATSignal

/// How far an address is believed to be a peer's locator (protocol.md section 6, "Locator check, proof to the CN"). This is the whole
/// machine: what is told here in both directions is what the kernel gets, and nothing else decides it.
///
/// ```
///                a record lists it,
///                an own address exists                  code 0, or MA Notify from there
///   unchecked ─────────────────────► checking ──────────under our own fresh cookie ────────► proven ◄─┐
///       ▲                             │    │                        ▲  ▲                      │   │   │ the same again,
///       │           MA Notify of this │    │ 3 s, code 4            │  │                      │   └───┘ at each poll
///       │           HoA from there,   ▼    │                        │  │                      │
///       │           nobody else   noticed ─┼────────────────────────┘  │ asked again          │ code 4; another HoA's newer
///       │           is there          │    │                           │ after 1, 2, 4, 8,    │ proof; nothing for as long
///       │                    3 s,     ▼    ▼                           │ 16, 30, 30 ... s     │ as a proof lasts
///       └──── 300 s ──────── code 4  refused ──────────────────────────┘                      │
///                                      ▲──────────────────────────────────────────────────────┘
/// ```
///
///                                 packets to it    packets from it
///     unchecked, checking, refused   held          an unknown source's
///     noticed                        held          the peer's
///     proven                         go            the peer's
///
/// A locator that is `refused` comes back by a check alone, or by MA Notify under our own cookie; no notice counts there.
enum LocatorState: Hashable, Sendable {
    case unchecked
    case checking(until: MonotonicTime)
    case noticed(until: MonotonicTime)
    /// - Parameter unanswered: checks in a row that had no answer while others answered us.
    case proven(at: MonotonicTime, unanswered: Int)
    /// - Parameter checks: those made since, without an answer of code 0.
    case refused(until: MonotonicTime, checks: Int)

    enum Event: Hashable, Sendable {
        /// A record in force lists it, and there is an own address to ask from.
        case listed
        /// There is no own address any more that anybody could be asked from.
        case stranded
        /// A valid MA Notify of this HoA came from it, and nobody else is known to be there.
        case noticed
        /// Code 0, or MA Notify from it under our own cookie.
        case proved
        /// Code 4.
        case denied
        /// Another HoA has proved since that it is there.
        case lost
        /// A check had no answer, though others answer us.
        case unanswered
        /// `due` has come.
        case timeUp
    }

    /// How long it may take to prove itself.
    static let checkMax: Duration = .seconds(3)
    /// How long it isn't used again unchecked.
    static let refusedTime: Duration = .seconds(300)
    static let recheckMax: Duration = .seconds(30)
    /// A proof lasts for so many checks without an answer: 120 s at the usual interval of polls (section 11.4). A peer's agent may be
    /// restarted meanwhile, or a path fail and come back, without holding up what the kernels translate.
    static let unansweredMax = 4

    var acceptsPackets: Bool {
        switch self {
        case .noticed, .proven: true
        case .unchecked, .checking, .refused: false
        }
    }

    var isRefused: Bool { if case .refused = self { true } else { false } }

    var isProven: Bool { if case .proven = self { true } else { false } }

    /// It is being asked for the first time since it was listed, or since it was refused long ago.
    var isOpen: Bool {
        switch self {
        case .checking, .noticed: true
        case .unchecked, .proven, .refused: false
        }
    }

    /// When `timeUp` is to be told.
    var due: MonotonicTime? {
        switch self {
        case .unchecked, .proven: nil
        case .checking(let until), .noticed(let until): until
        case .refused(let until, let checks): min(until, until + Self.pauses(checks) + (.zero - Self.refusedTime))
        }
    }

    /// From the refusal to the check of this number: 1, 3, 7, 15, 31, 61 s ...
    private static func pauses(_ checks: Int) -> Duration {
        let doubled = min(checks, 4)
        return .seconds((Int64(2) << Int64(doubled)) - 1) + recheckMax * (min(checks, 16) - doubled)
    }

    mutating func take(_ event: Event, _ now: MonotonicTime) {
        switch (event, self) {
        case (.listed, .unchecked):
            self = .checking(until: now + Self.checkMax)
        case (.stranded, .checking), (.stranded, .noticed):
            self = .unchecked
        case (.noticed, .checking(let until)):
            self = .noticed(until: until)
        case (.proved, _):
            self = .proven(at: now, unanswered: 0)
        case (.denied, .refused), (.lost, .refused):
            break
        case (.denied, _), (.lost, .proven), (.lost, .noticed), (.timeUp, .checking), (.timeUp, .noticed):
            self = .refused(until: now + Self.refusedTime, checks: 0)
        case (.unanswered, .proven(let at, let unanswered)):
            self =
                unanswered + 1 < Self.unansweredMax ? .proven(at: at, unanswered: unanswered + 1) : .refused(until: now + Self.refusedTime, checks: 0)
        case (.timeUp, .refused(let until, let checks)):
            self = until <= now ? .unchecked : .refused(until: until, checks: checks + 1)
        case (.listed, _), (.stranded, _), (.noticed, _), (.lost, _), (.unanswered, _), (.timeUp, _):
            break
        }
    }
}

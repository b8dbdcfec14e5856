import MATSignal

/// What makes a repeated HA Notify the same.
struct NotifyKey: Hashable, Sendable {
    var source: Endpoint
    var sequence: UInt32
    var hoa: HomeAddress
    var peerHoA: HomeAddress
}

/// A HA Notify that is not answered yet.
struct PendingNotify: Sendable {
    /// The record that came with it, with its certificate.
    enum Enclosed: Sendable {
        /// There was none, or a newer one is known.
        case none
        case unchecked(CertifiedMapping)
        /// Its signature is being checked.
        case checking(CertifiedMapping)
    }

    /// What speaks for its source, beside the record that lists it.
    enum Source: Sendable {
        case unproven
        /// A PATH-SIGNATURE that was not checked yet.
        case claimed(PathClaim)
        case checking(PathClaim)
        /// Bound here for this HoA, or signed.
        case proven
    }

    var key: NotifyKey
    var request: Request
    var enclosed = Enclosed.none
    var source = Source.unproven

    var record: CertifiedMapping? {
        switch enclosed {
        case .none: nil
        case .unchecked(let certified), .checking(let certified): certified
        }
    }

    var isBeingChecked: Bool {
        if case .checking = enclosed { return true }
        return false
    }

    var isSourceProven: Bool {
        if case .proven = source { return true }
        return false
    }

    /// A signature of the way that is still to be checked.
    var claim: PathClaim? {
        if case .claimed(let claim) = source { return claim }
        return nil
    }

    var isSourceBeingChecked: Bool {
        if case .checking = source { return true }
        return false
    }

    /// Its record goes to the check of its signature, and that of its way with it.
    mutating func checkBegins() {
        if case .unchecked(let certified) = enclosed { enclosed = .checking(certified) }
        sourceCheckBegins()
    }

    /// Both were found good.
    mutating func checkEnds() {
        if case .checking(let certified) = enclosed { enclosed = .unchecked(certified) }
        sourceCheckEnds()
    }

    mutating func sourceCheckBegins() {
        if case .claimed(let claim) = source { source = .checking(claim) }
    }

    mutating func sourceCheckEnds() {
        if case .checking = source { source = .proven }
    }

    var accepted: Reply { Reply(.haNotifyAck(HANotifyAck(code: .ok, cookie: request.cookie, hoa: key.hoa)), to: request) }

    func refused(_ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil) -> Reply {
        Reply(
            .haNotifyAck(HANotifyAck(code: code, cookie: request.cookie, hoa: key.hoa, lifetime: lifetime, text: reason)),
            to: request,
            refusal: Refusal(subject: .haNotify(key.hoa, about: key.peerHoA), source: request.source, code: code, reason: reason))
    }
}

/// What notifies lead to.
enum NotifyAction: Sendable {
    case reply(Reply)
    /// The node of this correspondent is told, if it is registered here.
    case tell(HomeAddress, CertifiedMapping)
    /// DNS is asked.
    case lookUp(IPPrefix)
    /// A signature is to be checked; `source` pays for it.
    case verify(VerificationJob, VerificationUse, source: IPAddress?)
    /// An MA Query about the HoA goes to these.
    case ask(HomeAddress, [Endpoint], sequence: UInt32)
    /// A server has answered a query.
    case heard(Endpoint, ServerCookie?)
    /// Remembered from now on. `from`: where its node has shown to receive; `by`: who brought it, for the log.
    case remember(CertifiedMapping, isConfirmed: Bool, from: IPAddress?, by: Endpoint?)
    case forget(IPPrefix)
    case log(String)
    /// Unless there are too many such lines.
    case logRefusal(String)
}

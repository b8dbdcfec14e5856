import MATCore
import MATSignal

extension MappingRecord.Place {
    /// As people know it.
    var named: String {
        switch self {
        case .moa(let locator): "\(locator.moa)"
        case .endpoint(let endpoint, _): "\(endpoint)"
        case .relay(let relay, _): "relay \(relay)"
        case .unknown(let place): "a place of kind \(place.kind)"
        }
    }
}

/// What lies before the own MoAs, and whom to ask about it (protocol.md section 11.3, "Ask").
///
/// ```
///   a MoA becomes ours ──► asked about at the own servers ──► each answer ──► its `Translation`
///                                     ▲                          │
///                                     └──── every 5 minutes ◄────┘
///   a record that lists it is accepted ──► the IMS's locator check, or its absence, twice ──► likewise
/// ```
struct OwnEndpoints: Sendable {
    /// How a record lists an own MoA.
    enum Listing: Hashable, Sendable {
        /// As it is: kind 0.
        case moa
        /// Others see it there, or it receives only what answers: kind 1.
        case endpoint(Endpoint)
        /// It is not global while the servers are, and none of them has said yet where it sees it.
        case awaited
        /// Not at all: it is not global, of another family than the HoA, and no server says where it sees it; or nobody is to know of it.
        case never
    }

    struct Question: Hashable, Sendable {
        let moa: MobileAddress
        let server: Endpoint
    }

    /// Own MoAs that are asked about; others are taken for what their scope says.
    static let addressesMax = 32
    /// IMSs asked for each: one address of each target and family, at most so many (section 11.3); and as many relays.
    static let serversMax = 4
    /// How long an answer holds where no binding keeps it fresh.
    static let answerLifetime: Duration = .seconds(300)

    private let inbound: InboundSetting
    /// No record lists any of them.
    let areHidden: Bool
    /// The own addresses are other HoAs': no record of this one's lists them as they are.
    private let isShared: Bool
    private var translations: [MobileAddress: Translation] = [:]
    /// Those that were left.
    private var filtered = FilteredNetworks()
    private var askedAt: [Question: MonotonicTime] = [:]
    /// No server has answered about them, as those of an earlier version don't.
    private var unanswered: Set<MobileAddress> = []

    init(_ inbound: InboundSetting = .auto, areHidden: Bool = false, isShared: Bool = false) {
        (self.inbound, self.areHidden, self.isShared) = (inbound, areHidden, isShared)
    }

    // MARK: Questions

    subscript(moa: MobileAddress) -> Translation { translations[moa] ?? Translation(moa, inbound) }

    /// Whether packets from anywhere arrive there, so that rewriting works.
    func isOpen(_ moa: MobileAddress) -> Bool { verdictIsKnown(moa) ? self[moa].isOpen : true }

    private func verdictIsKnown(_ moa: MobileAddress) -> Bool { self[moa].verdict != .unknown }

    /// - Parameters:
    ///   - family: of the HoA. A MoA of the other one is an endpoint, whatever stands before it.
    ///   - servers: those of the HoA.
    ///   - isShared: others than this HoA have the address, too, as a mobile network has its router's.
    func listing(of moa: MobileAddress, for family: AddressFamily, servers: [Endpoint], isShared: Bool = false) -> Listing {
        guard !areHidden else { return .never }
        let translation = self[moa]
        if let endpoint = translation.endpoint { return .endpoint(endpoint) }
        let isKnown = translation.verdict != .unknown || unanswered.contains(moa)
        // What stands for an address behind a NAT64 is nobody else's way to us.
        if StandIns.isStandIn(moa.address) { return isKnown ? .never : .awaited }
        guard moa.family == family else {
            if moa.address.scope == .global { return .endpoint(translation.local) }
            return isKnown ? .never : .awaited
        }
        if isShared || self.isShared { return isKnown ? .endpoint(translation.local) : .awaited }
        guard !isKnown, moa.address.scope != .global else { return .moa }
        return servers.contains { $0.address.scope == .global } ? .awaited : .moa
    }

    /// Whether a PATH-SIGNATURE for us may say that its datagram goes there.
    func isOwn(_ endpoint: Endpoint) -> Bool {
        translations.values.contains { $0.isOwn(endpoint) }
            || endpoint.port == SignalPort.node && translations[MobileAddress(endpoint.address)] != nil
    }

    // MARK: Events

    /// These are our MoAs now.
    mutating func keep(_ moas: [MobileAddress], _ now: MonotonicTime) {
        let kept = Set(moas.prefix(Self.addressesMax))
        for (moa, translation) in translations where !kept.contains(moa) {
            if let isFiltered = translation.wasFoundFiltered { filtered.learn(moa, isFiltered: isFiltered, now) }
        }
        translations = translations.filter { kept.contains($0.key) }
        for moa in kept where translations[moa] == nil {
            translations[moa] = Translation(moa, inbound, isKnownFiltered: filtered.contains(moa, now))
        }
        askedAt = askedAt.filter { kept.contains($0.key.moa) }
        unanswered.formIntersection(kept)
    }

    /// What is to be asked now, of these servers and relays.
    mutating func ask(_ moas: [MobileAddress], servers: [Endpoint], relays: [Endpoint] = [], _ now: MonotonicTime) -> [Question] {
        var questions: [Question] = []
        for moa in moas where translations[moa] != nil {
            let asked = [servers, relays].flatMap { $0.filter { $0.family == moa.family }.prefix(Self.serversMax) }
            for server in asked {
                let question = Question(moa: moa, server: server)
                if let asked = askedAt[question], now - asked < Self.answerLifetime { continue }
                askedAt[question] = now
                questions.append(question)
            }
        }
        return questions
    }

    /// A question stayed unanswered: it may be asked again.
    ///
    /// - Returns: whether the MoA is taken for what it is now.
    mutating func silent(_ question: Question) -> Bool {
        askedAt[question] = nil
        guard self[question.moa].verdict == .unknown, !askedAt.keys.contains(where: { $0.moa == question.moa }) else { return false }
        return unanswered.insert(question.moa).inserted
    }

    /// - Parameter isRelay: the server is no IMS.
    /// - Returns: whether others reach the MoA in another way than was thought: what a record lists, and how packets go, is to be looked at again.
    mutating func observed(_ moa: MobileAddress, at seen: Endpoint, by server: Endpoint, isRelay: Bool = false) -> Bool {
        guard var translation = translations[moa] else { return false }
        let (endpoint, wasOpen) = (translation.endpoint, translation.isOpen)
        _ = translation.observed(seen, by: server, isRelay: isRelay)
        translations[moa] = translation
        return translation.endpoint != endpoint || translation.isOpen != wasOpen
    }

    // MARK: The IMS's check

    /// When `checksDue` wants to be told.
    var due: MonotonicTime? { translations.values.reduce(nil) { $0.earlier($1.due) } }

    func check(of moa: MobileAddress) -> Translation.Check { translations[moa]?.check ?? .none }
    func isCheckAwaited(at moa: MobileAddress) -> Bool { translations[moa]?.isCheckAwaited ?? false }

    /// The IMS accepted a record that lists it as it is.
    mutating func awaitCheck(of moa: MobileAddress, _ now: MonotonicTime) { translations[moa]?.awaitCheck(now) }

    /// What comes unasked arrives there.
    ///
    /// - Returns: as `observed`.
    mutating func checked(_ moa: MobileAddress) -> Bool { translations[moa]?.checked() ?? false }

    /// - Returns: what follows for which MoAs, in order.
    mutating func checksDue(_ now: MonotonicTime) -> [(moa: MobileAddress, what: Translation.OnMissing)] {
        translations.keys.sorted().map { ($0, translations[$0]?.timeUp(now) ?? .nothing) }
    }
}

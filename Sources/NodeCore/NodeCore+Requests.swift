import MATCore
import MATSignal

// Requests of others: the locator check, and MA Notify from peers and IMSs.

/// A record that is believed only after the DNS has given its keys.
struct PendingRecord: Hashable, Sendable {
    let record: OfferedRecord
    /// Whom it is wanted for: its HoA or, of a network's record, one address behind it.
    let hoa: HomeAddress
    /// The stranger for whom our IMS named it; it is entered only after its own IMS confirmed it.
    let stranger: MobileAddress?
    let ack: PendingAck?
}

/// Where the answer to a MA Notify goes when the record has been checked.
struct PendingAck: Hashable, Sendable {
    let sequence: UInt32
    let clientCookie: UInt64
    let source: Endpoint
    let local: IPAddress
    /// Whether the sender has shown, by our own valid cookie, that it is at its source address.
    let hasCookie: Bool
    /// That cookie is recent enough to show that it is there now.
    let provesPlace: Bool
    /// Of the request: without a cookie the answer must not be longer (section 6).
    let octetsCount: Int
    /// One of several HoAs that one MA Notify concerns answers for all.
    var isSilent = false
    /// The record's signature was good for another HoA that it concerns.
    var isVerified = false
}

extension NodeCore {
    static let sourceChecksMax = 4096

    mutating func answer(_ message: SignalMessage, _ octetsCount: Int, from source: Endpoint, to local: IPAddress, _ now: Now) {
        counters.messagesReceived += 1
        switch message.body {
        case .maQuery(let query):
            answerLocatorCheck(query, message.sequence, from: source, to: local, now)
        case .maNotify(let notify):
            let hasCookie = cookieAuthority.isValid(notify.cookie, from: source, now: now)
            let provesPlace = hasCookie && cookieAuthority.isValid(notify.cookie, from: source, now: now, ageMax: CookieAuthority.proofAgeMax)
            let ack = PendingAck(
                sequence: message.sequence, clientCookie: notify.cookie.client, source: source, local: local, hasCookie: hasCookie, provesPlace: provesPlace,
                octetsCount: octetsCount)
            take(notify, ack, now)
        default:
            // Requests for servers; a node has no answer.
            counters.unmatchedDropped += 1
        }
    }

    /// Code 0 if the HoA is ours and the query came to a locator of our current record, else 4. The answer has the query's
    /// size, so it needs no cookie.
    private mutating func answerLocatorCheck(_ query: MAQuery, _ sequence: UInt32, from source: Endpoint, to local: IPAddress, _ now: Now) {
        let isMine = homes.values.first { $0.prefix.contains(query.hoa.address) }.map { home in
            desiredLocators(of: home.hoa).contains(MobileAddress(local)) || home.mapping?.record.lists(MobileAddress(local)) ?? false
        } ?? false
        let answer = MAAnswer(code: isMine ? .ok : .notAuthoritative, cookie: Cookie(client: query.cookie.client), hoa: query.hoa)
        reply(SignalMessage(sequence: sequence, .maAnswer(answer)), from: local, to: source, now)
    }

    private mutating func reply(_ message: SignalMessage, from local: IPAddress, to source: Endpoint, _ now: Now) {
        let isStranger = isStranger(source.address)
        if isStranger, addresses.isNeighbour(source.address), !linkAnswers.take(at: now.monotonic) {
            counters.answersWithheld += 1
            return
        }
        counters.messagesSent += 1
        post(message.octets, from: local, to: source, needsRoom: isStranger)
    }

    /// Nobody has ever shown that he is at this address.
    func isStranger(_ address: IPAddress) -> Bool { !servers.hasAnswered(address) && peers.holder(of: MobileAddress(address)) == nil }

    mutating func refuse(_ rejection: SignalDatagram.Rejection, from source: Endpoint, to local: IPAddress, _ now: Now) {
        counters.malformedDropped += 1
        guard let code = rejection.answerCode, let type = rejection.type, let cookie = rejection.cookie, refusals.take(at: now.monotonic) else { return }
        // 20 octets: no request with a cookie is shorter.
        reply(SignalMessage.refusal(of: type, sequence: rejection.sequence, code: code, cookie: Cookie(client: cookie.client)), from: local, to: source, now)
    }

    // MARK: MA Notify

    /// A network's record concerns everyone behind it whom we talk to. Each of them was found by a DNS name of its own, so each is
    /// looked at for itself.
    private mutating func take(_ notify: MANotify, _ ack: PendingAck, _ now: Now) {
        let record = notify.record.mapping.record
        guard record.isNetwork else {
            take(notify, for: record.hoa, ack, now)
            return
        }
        let known = Set(peers.slots.compactMap { peers[$0]?.hoa }).union(destinations.all).filter { record.prefix.contains($0.address) }
        var ack = ack
        for hoa in known.isEmpty ? [record.hoa] : known.sorted() {
            take(notify, for: hoa, ack, now)
            ack.isSilent = true
            ack.isVerified = ack.isVerified || peers[hoa]?.mapping == notify.record.mapping
        }
    }

    private mutating func take(_ notify: MANotify, for hoa: HomeAddress, _ ack: PendingAck, _ now: Now) {
        let named = notify.record.mapping.record.hoa
        let (source, hasCookie) = (ack.source, ack.hasCookie)
        let isFromOwnServer = source.port == SignalPort.ims && homes.values.contains { $0.servers?.endpoints.contains(source) ?? false }
        guard !homes.values.contains(where: { $0.prefix.contains(hoa.address) }), home(for: hoa) != nil, peers[hoa] != nil || destinations.contains(hoa) || isFromOwnServer else {
            if ack.provesPlace, ack.source.port == SignalPort.node { earlyNotices.enter(notify.record.mapping, from: ack.source, now: now.monotonic) }
            // Section 7: neither in the IMT nor being resolved.
            acknowledge(ack, .notFound, named, text: "not a peer of this node", now)
            return
        }
        let record: OfferedRecord
        switch notify.record.certificate {
        case .whole(let whole):
            record = OfferedRecord(notify.record.mapping, under: whole)
        case .id(let id):
            guard let known = peers[hoa], known.record.key.id == id else {
                acknowledge(ack, .authenticationFailed, named, text: "unknown CERT-ID", now)
                return
            }
            record = OfferedRecord(notify.record.mapping, underKnownOf: known)
        }
        // In the order of section 2: times, sequence, and the signature last.
        do throws(VerificationFailure) {
            try record.checkTimesAndNames(asked: hoa, now: now)
        } catch {
            refuseRecord(record, ack, error, now)
            return
        }
        let current = peers[hoa]
        if let current {
            if current.holds(record) {
                // The IMS's own copy confirms a provisional record (section 7).
                if hasCookie, comesFromServer(of: hoa, source) { adopt(record, for: hoa, isConfirmed: true, now) }
                hear(of: hoa, ack, now)
                acknowledge(ack, .ok, named, now)
                return
            }
            if !(record.version > current.version) {
                acknowledge(ack, .stale, named, current: current.mapping, now)
                return
            }
        }
        // Signatures last, and within a budget: for one without cookie a small common one, with cookie one a source.
        guard ack.isVerified || mayCheck(source, hasCookie, isOfInterest: peers[hoa] != nil || isFromOwnServer, now) else {
            acknowledge(ack, hasCookie ? .tryLater : .cookieRequired, named, now)
            return
        }
        if let current, record.isUnderKnown(of: current) {
            takeVerified(record, for: hoa, ack, keys: nil, now)
        } else if let set = serverSet(of: hoa), set.expires > now.monotonic, let keys = keys(for: record, of: hoa, now) {
            takeVerified(record, for: hoa, ack, keys: keys, now)
        } else if hasCookie, let set = serverSet(of: hoa), set.expires > now.monotonic {
            lookUpKeys(of: record.prefix, for: .record(PendingRecord(record: record, hoa: hoa, stranger: nil, ack: ack)), now)
        } else if hasCookie {
            lookUp(hoa, for: .record(PendingRecord(record: record, hoa: hoa, stranger: nil, ack: ack)), now)
        } else {
            // A look-up for someone who has not shown that he is where he says is more than section 6 allows.
            acknowledge(ack, .cookieRequired, named, now)
        }
    }

    /// - Parameter isOfInterest: the HoA is in the IMT or the record comes from our own IMS; only then a check without cookie is allowed.
    private mutating func mayCheck(_ source: Endpoint, _ hasCookie: Bool, isOfInterest: Bool, _ now: Now) -> Bool {
        guard hasCookie else { return isOfInterest && uncookiedChecks.take(at: now.monotonic) }
        let group = source.address.isIPv4 ? source.address : source.address.masked(to: 64)
        if sourceChecks.count >= share(of: Self.sourceChecksMax), sourceChecks[group] == nil {
            sourceChecks = sourceChecks.filter { !$0.value.isIdle(at: now.monotonic) }
            if sourceChecks.count >= share(of: Self.sourceChecksMax) { return false }
        }
        var limit = sourceChecks[group] ?? RateLimit(perSecond: configuration.checksPerSecondPerSource)
        defer { sourceChecks[group] = limit }
        return limit.take(at: now.monotonic)
    }

    /// - Parameter keys: `nil` if the certificate is believed already.
    private mutating func takeVerified(_ record: OfferedRecord, for hoa: HomeAddress, _ ack: PendingAck?, keys: [PublicKey]?, _ now: Now) {
        do throws(VerificationFailure) {
            if let keys {
                try record.verify(asked: hoa, keys: keys, now: now)
            } else if ack?.isVerified != true {
                try record.verifySignature()
            }
        } catch {
            refuseRecord(record, ack, error, now)
            return
        }
        let hasCookie = ack?.hasCookie ?? false
        let isNew = peers[hoa] == nil
        let isConfirmed = hasCookie && (ack.map { comesFromServer(of: hoa, $0.source) } ?? false)
        adopt(record, for: hoa, isConfirmed: isConfirmed, now)
        if let ack {
            hear(of: hoa, ack, now)
            acknowledge(ack, .ok, record.hoa, now)
        }
        // The peer's IMS is the truth, and we want its pushes (paper (7)).
        if !isConfirmed || isNew, !isUnderWay(.queryPeer(hoa)) { query(hoa, now) }
        if destinations.contains(hoa) { destinationAnswered(hoa, now) }
        releaseKnownStrangers(of: hoa, now)
    }

    private mutating func refuseRecord(_ record: OfferedRecord, _ ack: PendingAck?, _ error: VerificationFailure, _ now: Now) {
        counters.recordsRefused += 1
        let level: NodeLogLevel = recordReports.take(at: now.monotonic) ? .warning : .debug
        log(level, "a record of \(record.hoa)\(ack.map { " from \($0.source)" } ?? "") is refused: \(error)")
        if let ack { acknowledge(ack, .authenticationFailed, record.hoa, text: error.reason, now) }
    }

    /// The DNS answered about a record that waited for it.
    mutating func recordLookedUp(_ pending: PendingRecord, _ result: ServerLookup, _ now: Now) {
        let record = pending.record
        guard case .found(let set) = result else {
            let level: NodeLogLevel = recordReports.take(at: now.monotonic) ? .info : .debug
            log(level, "a record of \(record.hoa) can't be checked: the DNS gives no IMS for it")
            if let ack = pending.ack { acknowledge(ack, .authenticationFailed, record.hoa, text: "no key in the DNS", now) }
            return
        }
        guard pending.stranger != nil else {
            if let keys = keys(for: record, of: pending.hoa, now) {
                takeVerified(record, for: pending.hoa, pending.ack, keys: keys, now)
            } else {
                lookUpKeys(of: record.prefix, for: .record(pending), now)
            }
            return
        }
        // For a stranger: what our IMS remembers is a hint; only the HoA's own IMS's answer is entered.
        releaseKnownStrangers(of: pending.hoa, now)
        if !isUnderWay(.queryPeer(pending.hoa)) { start(.queryPeer(pending.hoa), .maQuery, to: set.endpoints, now) }
    }

    /// The DNS answered about the keys of a network's certificate; `nil` if it gave none.
    mutating func recordKeysLookedUp(_ pending: PendingRecord, _ keys: [PublicKey]?, _ now: Now) {
        if let keys {
            takeVerified(pending.record, for: pending.hoa, pending.ack, keys: keys, now)
        } else {
            refuseRecord(pending.record, pending.ack, VerificationFailure("the DNS gives no keys at the name of the certificate's prefix \(pending.record.prefix)"), now)
        }
    }

    /// Whether the source is an IMS of the HoA.
    private func comesFromServer(of hoa: HomeAddress, _ source: Endpoint) -> Bool {
        serverSet(of: hoa)?.endpoints.contains(source) ?? false
    }

    /// Section 6: a valid MA Notify that carries our own cookie proves the locator that it came from; one without lets packets from there
    /// in while it is checked.
    private mutating func hear(of hoa: HomeAddress, _ ack: PendingAck, _ now: Now) {
        guard ack.source.port == SignalPort.node, let peer = peers[hoa] else { return }
        if ack.provesPlace { prove(peer, at: ack.source, now) } else { notice(hoa, from: ack.source, now) }
    }

    /// The peer's node has shown that it is there.
    private mutating func prove(_ peer: Peer, at source: Endpoint, _ now: Now) {
        for locator in peer.locators.listed where peer.signallingAddress(of: locator.moa) == source.address { prove(locator.moa, of: peer.hoa, now) }
    }

    /// A record has come into force: its own node may have shown it already.
    mutating func hearEarly(of hoa: HomeAddress, _ now: Now) {
        guard !earlyNotices.isEmpty, let peer = peers[hoa] else { return }
        for source in earlyNotices.sources(of: peer.mapping, now: now.monotonic) { prove(peer, at: source, now) }
    }

    private mutating func acknowledge(
        _ ack: PendingAck, _ code: ResponseCode, _ hoa: HomeAddress, current: SignedMapping? = nil, text: String? = nil, _ now: Now
    ) {
        guard !ack.isSilent else { return }
        let cookie = Cookie(client: ack.clientCookie, server: cookieAuthority.make(for: ack.source, clientCookie: ack.clientCookie, now: now))
        var body = MANotifyAck(code: code, cookie: cookie, hoa: code == .cookieRequired ? nil : hoa, current: current, text: text)
        var message = SignalMessage(sequence: ack.sequence, .maNotifyAck(body))
        if !ack.hasCookie, message.octets.count > ack.octetsCount {
            // What explains goes first; then the sender is asked to show where it is.
            body.text = nil
            message = SignalMessage(sequence: ack.sequence, .maNotifyAck(body))
            if message.octets.count > ack.octetsCount {
                message = SignalMessage(sequence: ack.sequence, .maNotifyAck(MANotifyAck(code: .cookieRequired, cookie: cookie, hoa: nil)))
            }
        }
        reply(message, from: ack.local, to: ack.source, now)
    }
}

import MATSignal

// Requests of others: `Requests` judges them; here is what it is told for that, and what follows.

extension NodeCore {
    mutating func answer(_ message: SignalMessage, _ octetsCount: Int, from source: Endpoint, to local: IPAddress, _ now: Now) {
        counters.messagesReceived += 1
        // Who is hidden is heard of by servers that it has asked: no answer tells anybody else which HoA is at an address.
        guard !isHidden || servers.hasAnswered(source.address) else {
            counters.unmatchedDropped += 1
            return
        }
        switch message.body {
        case .maQuery(let query):
            let isHere = isHere(query.hoa, at: MobileAddress(local))
            reply(Requests.locatorAnswer(query, message.sequence, isHere: isHere), from: local, to: source, now)
            if isHere { locatorCheckCame(of: query.hoa, from: source, to: local, now) }
        case .maNotify(let notify):
            notified(notify, requests.sender(of: notify, message.sequence, octetsCount, from: source, to: local, now), now)
        case .pathProbe(let probe):
            probed(probe, message.sequence, octetsCount, from: source, to: local, now)
        default:
            // Requests for servers; a node has no answer.
            counters.unmatchedDropped += 1
        }
    }

    mutating func refuse(_ rejection: SignalDatagram.Rejection, from source: Endpoint, to local: IPAddress, _ now: Now) {
        counters.malformedDropped += 1
        if let refusal = requests.refusal(of: rejection, now.monotonic) { reply(refusal, from: local, to: source, now) }
    }

    /// Whether an own HoA can be reached at this address, by its current record.
    private func isHere(_ hoa: HomeAddress, at moa: MobileAddress) -> Bool {
        home(speakingFor: hoa).map { home in
            desiredLocators(of: home.hoa).contains(moa) || home.mapping?.record.lists(moa) ?? false
        } ?? false
    }

    mutating func reply(_ message: SignalMessage, from local: IPAddress, to source: Endpoint, _ now: Now) {
        let isStranger = isStranger(source.address)
        if isStranger, addresses.isNeighbour(source.address), !requests.answersOnLink(now.monotonic) {
            counters.answersWithheld += 1
            return
        }
        counters.messagesSent += 1
        post(message.octets, from: local, to: source, needsRoom: isStranger)
    }

    private mutating func acknowledge(
        _ ack: PendingAck, _ code: ResponseCode, _ hoa: HomeAddress, current: SignedMapping? = nil, text: String? = nil, _ now: Now
    ) {
        if let answer = requests.acknowledgement(ack, code, hoa, current: current, text: text, now) {
            reply(answer, from: ack.local, to: ack.source, now)
        }
    }

    /// Nobody has ever shown that he is at this address.
    func isStranger(_ address: IPAddress) -> Bool { !servers.hasAnswered(address) && peers.holder(of: MobileAddress(address)) == nil }

    // MARK: MA Notify

    /// A network's record concerns everyone behind it whom we talk to. Each of them was found by a DNS name of its own, so each is
    /// looked at for itself.
    private mutating func notified(_ notify: MANotify, _ ack: PendingAck, _ now: Now) {
        let record = notify.record.mapping.record
        guard record.isNetwork else { return notified(notify, of: record.hoa, ack, now) }
        let known = Set(peers.slots.compactMap { peers[$0]?.hoa }).union(destinations.all).filter { record.prefix.contains($0.address) }
        var ack = ack
        for hoa in known.isEmpty ? [record.hoa] : known.sorted() {
            notified(notify, of: hoa, ack, now)
            ack.isSilent = true
            ack.isVerified = ack.isVerified || peers[hoa]?.mapping == notify.record.mapping
        }
    }

    private mutating func notified(_ notify: MANotify, of hoa: HomeAddress, _ ack: PendingAck, _ now: Now) {
        let named = notify.record.mapping.record.hoa
        let isFromOwnServer = ack.source.port == SignalPort.ims && homes.values.contains { $0.registration.servers.contains(ack.source) }
        let subject = Requests.Subject(
            hoa: hoa, peer: peers[hoa], isNoPeer: home(speakingFor: hoa) != nil || home(for: hoa) == nil,
            isBeingResolved: destinations.contains(hoa), isFromItsServer: isServer(ack.source, of: hoa), isFromOwnServer: isFromOwnServer)
        switch requests.judge(notify, ack, about: subject, now) {
        case .answer(let code, let current, let text):
            acknowledge(ack, code, named, current: current, text: text, now)
            if isFromOwnServer, homes[hoa] != nil { pushed(notify.record, of: hoa, from: ack.source, now) }
        case .refuse(let record, let failure):
            refuseRecord(record, ack, failure, now)
        case .inForce(let record, let confirms):
            if confirms { adopt(record, for: hoa, isConfirmed: true, now) }
            if isFromOwnServer { recordRepeated(of: hoa, now) }
            hear(of: hoa, ack, now)
            acknowledge(ack, .ok, named, now)
        case .check(let record):
            check(record, of: hoa, ack, now)
        }
    }

    /// Checks a record's signature, once there are keys to check its certificate with.
    private mutating func check(_ record: OfferedRecord, of hoa: HomeAddress, _ ack: PendingAck, _ now: Now) {
        if let peer = peers[hoa], record.isUnderKnown(of: peer) { return enterIfGood(record, for: hoa, ack, keys: nil, now) }
        let isServed = serverSet(of: hoa).map { $0.expires > now.monotonic } ?? false
        if isServed, let keys = keys(for: record, of: hoa, now) { return enterIfGood(record, for: hoa, ack, keys: keys, now) }
        // A look-up for someone who has not shown that he is where he says is more than section 6 allows.
        guard ack.hasCookie else { return acknowledge(ack, .cookieRequired, record.hoa, now) }
        let pending = PendingRecord(record: record, hoa: hoa, stranger: nil, ack: ack)
        if isServed { lookUpKeys(of: record.prefix, for: .record(pending), now) } else { lookUp(hoa, for: .record(pending), now) }
    }

    /// - Parameter keys: `nil` if the certificate is believed already.
    private mutating func enterIfGood(_ record: OfferedRecord, for hoa: HomeAddress, _ ack: PendingAck?, keys: [PublicKey]?, _ now: Now) {
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
        let isNew = peers[hoa] == nil
        let isConfirmed = ack.map { $0.hasCookie && isServer($0.source, of: hoa) } ?? false
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
        log(requests.reportLevel(.warning, now.monotonic), "a record of \(record.hoa)\(ack.map { " from \($0.source)" } ?? "") is refused: \(error)")
        if let ack { acknowledge(ack, .authenticationFailed, record.hoa, text: error.reason, now) }
    }

    /// Whether the source is an IMS of the HoA.
    private func isServer(_ source: Endpoint, of hoa: HomeAddress) -> Bool { serverSet(of: hoa)?.endpoints.contains(source) ?? false }

    // MARK: What the DNS says of a record

    /// The DNS answered about a record that waited for it.
    mutating func recordLookedUp(_ pending: PendingRecord, _ result: ServerLookup, _ now: Now) {
        let record = pending.record
        guard case .found(let set) = result else {
            log(requests.reportLevel(.info, now.monotonic), "a record of \(record.hoa) can't be checked: the DNS gives no IMS for it")
            if let ack = pending.ack { acknowledge(ack, .authenticationFailed, record.hoa, text: "no key in the DNS", now) }
            return
        }
        guard pending.stranger != nil else {
            if let keys = keys(for: record, of: pending.hoa, now) {
                enterIfGood(record, for: pending.hoa, pending.ack, keys: keys, now)
            } else {
                lookUpKeys(of: record.prefix, for: .record(pending), now)
            }
            return
        }
        // For a stranger: what our IMS remembers is a hint; only the HoA's own IMS's answer is entered.
        releaseKnownStrangers(of: pending.hoa, now)
        if !isUnderWay(.queryPeer(pending.hoa)) { start(.queryPeer(pending.hoa), to: set.endpoints, now) }
    }

    /// The DNS answered about the keys of a network's certificate; `nil` if it gave none.
    mutating func recordKeysLookedUp(_ pending: PendingRecord, _ keys: [PublicKey]?, _ now: Now) {
        if let keys {
            enterIfGood(pending.record, for: pending.hoa, pending.ack, keys: keys, now)
        } else {
            let prefix = pending.record.prefix
            refuseRecord(
                pending.record, pending.ack,
                VerificationFailure("the DNS gives no keys at the name of the certificate's prefix \(prefix)\(prefix.keysNote)"), now)
        }
    }

    // MARK: What it shows

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
        guard requests.hasEarlyNotices, let peer = peers[hoa] else { return }
        for source in requests.earlySources(of: peer.mapping, now.monotonic) { prove(peer, at: source, now) }
    }
}

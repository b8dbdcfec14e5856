import MATCore
import MATSignal

// Requests: sending, retransmission, fail-over along the servers, cookies, and matching of responses.

extension NodeCore {
    /// Starts a request, or restarts it if one for the same purpose is under way.
    ///
    /// - Parameter source: the own address to send from; `nil`: the preferred one.
    mutating func start(
        _ purpose: Exchange.Purpose, _ type: MessageType, to targets: [Endpoint], source: IPAddress? = nil, triesMax: Int? = nil, _ now: Now
    ) {
        cancel(purpose)
        guard !targets.isEmpty else { return }
        var sequence = UInt32.random(in: .min ... .max, using: &random)
        while exchanges[sequence] != nil { sequence &+= 1 }
        var exchange = Exchange(
            sequence: sequence, began: now.monotonic, purpose: purpose, type: type, targets: targets, source: source,
            retransmission: Retransmission(type: type, smoothedRTT: servers.roundTrip(targets[0].address), now: now.monotonic))
        if let triesMax { exchange.triesMax = triesMax }
        exchanges[sequence] = exchange
        exchangeByPurpose[purpose] = sequence
        // Whoever starts many looks at the pace before; a single one goes, and counts.
        if exchange.isPaced { pace.charge(now.monotonic) }
        attempt(sequence, now)
    }

    mutating func cancel(_ purpose: Exchange.Purpose) {
        guard let sequence = exchangeByPurpose.removeValue(forKey: purpose) else { return }
        exchanges[sequence] = nil
        deadlines.cancel(.exchange(sequence))
    }

    func isUnderWay(_ purpose: Exchange.Purpose) -> Bool { exchangeByPurpose[purpose] != nil }

    /// A try is due, or the last one has waited long enough. Many may be due at the same time, which must not become a burst.
    mutating func exchangeDue(_ sequence: UInt32, _ now: Now) {
        guard let exchange = exchanges[sequence] else { return }
        if exchange.isPaced, !exchange.hasTurn {
            let turn = pace.turn(now.monotonic)
            if turn > now.monotonic {
                exchanges[sequence]?.hasTurn = true
                deadlines.set(.exchange(sequence), at: turn)
                return
            }
        }
        exchanges[sequence]?.hasTurn = false
        attempt(sequence, now)
    }

    private mutating func attempt(_ sequence: UInt32, _ now: Now) {
        guard var exchange = exchanges[sequence] else { return }
        // Section 7: an IMS that has never answered gets two HA Notify, whatever else is asked of it.
        let triesMax = exchange.type == .haNotify && !exchange.targets.contains(where: { servers.hasAnswered($0.address) })
            ? min(exchange.triesMax, 2 * exchange.targets.count) : exchange.triesMax
        guard exchange.retransmission.tries < triesMax else {
            exchanges[sequence] = nil
            exchangeByPurpose[exchange.purpose] = nil
            gaveUp(exchange, now)
            return
        }
        exchange.retransmission.tried(at: now.monotonic)
        if exchange.retransmission.tries > 1 { counters.retransmissions += 1 } else { exchange.began = now.monotonic }
        var next = exchange.targets[exchange.target]
        // From the third try on the next server is asked in parallel; where there is one only, it is just asked again.
        if exchange.retransmission.tries >= Retransmission.failoverTry, exchange.targets.count > 1 {
            exchanges[sequence] = exchange
            transmit(sequence, to: next, now)
            exchange = exchanges[sequence] ?? exchange
            exchange.target = (exchange.target + 1) % exchange.targets.count
            next = exchange.targets[exchange.target]
        }
        exchanges[sequence] = exchange
        deadlines.set(.exchange(sequence), at: exchange.retransmission.due)
        transmit(sequence, to: next, now)
    }

    /// Sends a request to one target, with the cookie that is known for it. Without an own address of the target's family
    /// nothing is sent; the try counts all the same, so that a request can't wait for ever.
    private mutating func transmit(_ sequence: UInt32, to target: Endpoint, _ now: Now) {
        guard var exchange = exchanges[sequence] else { return }
        guard let own = exchange.source ?? ownMoAs(ipv4: target.address.isIPv4).first?.address, own.isIPv4 == target.address.isIPv4 else {
            // The next target may be of a family that we have.
            if exchange.targets.count > 1 { exchange.target = (exchange.target + 1) % exchange.targets.count }
            exchanges[sequence] = exchange
            return
        }
        guard let message = message(of: exchange, to: target.address, from: own, now) else { return }
        if !exchange.asked.contains(target) { exchange.asked.append(target) }
        exchange.hadCookie = message.cookie.server != nil
        exchanges[sequence] = exchange
        counters.messagesSent += 1
        post(message.octets, from: own, to: target, needsRoom: exchange.isToUnproven && isStranger(target.address))
    }

    /// Repeats everything under way from the addresses that we have now: after a move the old source is no use.
    mutating func resendAll(_ now: Now) {
        for sequence in exchanges.keys.sorted() {
            guard var exchange = exchanges[sequence], exchange.source == nil else { continue }
            exchange.retransmission = Retransmission(type: exchange.type, now: now.monotonic)
            exchange.cookiesFollowed = 0
            exchange.hasTurn = false
            exchanges[sequence] = exchange
            exchangeDue(sequence, now)
        }
    }

    // MARK: Bodies

    /// The request's message, made anew for each try: cookie and record may have changed since the last.
    private func message(of exchange: Exchange, to server: IPAddress, from own: IPAddress, _ now: Now) -> SignalMessage? {
        let cookie = Cookie(
            client: clientCookies.cookie(server: server, own: own), server: servers.cookie(server: server, own: own, now: now.monotonic))
        let body: SignalMessage.Body
        switch exchange.purpose {
        case .register(let hoa):
            guard let home = homes[hoa], let mapping = home.mapping else { return nil }
            let reference: CertificateReference = home.serverHasCertificate ? .id(home.certificate.id) : .whole(home.certificate)
            let proofs = mapping.record.locators.compactMap { locator -> LocatorProof? in
                let moa = locator.moa
                guard moa.address != own, let proof = servers.proof(servers: exchange.targets, own: moa.address, now: now.monotonic) else { return nil }
                return LocatorProof(locator: moa, client: clientCookies.cookie(server: proof.server, own: moa.address), server: proof.cookie)
            }
            body = .imsUpdate(IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: mapping.mapping, certificate: reference), proofs: proofs))
        case .tryUplink(let hoa, _):
            guard let home = homes[hoa], let mapping = home.mapping else { return nil }
            body = .imsUpdate(IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: mapping.mapping, certificate: .whole(home.certificate)), proofs: []))
        case .prove(let hoa, _), .readClock(let hoa):
            // The answer is not wanted, only its cookie; the unpadded query gets just that of a server that is responsible for the HoA.
            body = .maQuery(MAQuery(cookie: Cookie(client: cookie.client), hoa: hoa))
        case .checkSelf(let hoa):
            body = .maQuery(MAQuery(cookie: cookie, hoa: hoa, certID: homes[hoa]?.mapping?.certificate.id))
        case .queryPeer(let hoa):
            let known = peers[hoa]?.record.key.id
            var query = MAQuery(cookie: cookie, hoa: hoa, certID: known, subscribe: Self.subscribeSeconds)
            // A first query is padded so that its answer fits at once (section 6).
            if cookie.server == nil { query.padding = Self.firstQueryPadding }
            body = .maQuery(query)
        case .notifyServer(let peer):
            guard let own = home(for: peer), let mapping = homes[own]?.mapping else { return nil }
            let record = EnclosedRecord(mapping: mapping.mapping, certificate: .whole(mapping.certificate))
            body = .haNotify(HANotify(cookie: cookie, hoa: own, peerHoA: peer, record: record))
        case .notifyPeer(let peer), .introduce(let peer):
            guard let own = home(for: peer), let mapping = homes[own]?.mapping else { return nil }
            let record = EnclosedRecord(mapping: mapping.mapping, certificate: .whole(mapping.certificate))
            body = .maNotify(MANotify(cookie: cookie, record: record))
        case .identify(let moa):
            body = .haQuery(HAQuery(cookie: cookie, moa: moa))
        case .checkLocator(let hoa, _):
            body = .maQuery(MAQuery(cookie: Cookie(client: cookie.client), hoa: hoa))
        }
        return SignalMessage(sequence: exchange.sequence, body)
    }

    /// Seconds of subscription asked for: the most that an IMS grants.
    static let subscribeSeconds: UInt32 = 300
    /// Makes the first query about 400 octets, the size of the answer with a whole certificate.
    static let firstQueryPadding = 348

    // MARK: Responses

    /// A response arrived. Section 6: dropped unless source, type, sequence, client cookie and HOA or MOA match.
    mutating func finish(_ message: SignalMessage, from source: Endpoint, to local: IPAddress, _ now: Now) {
        counters.messagesReceived += 1
        if finishProbe(message, from: source, to: local, now) { return }
        guard var exchange = exchanges[message.sequence], exchange.type.response == message.type, exchange.asked.contains(source),
            message.cookie.client == clientCookies.cookie(server: source.address, own: local), subjectMatches(message, exchange)
        else {
            counters.unmatchedDropped += 1
            return
        }
        servers.noteAnswer(source.address)
        heardAt[source.address.isIPv4] = now.monotonic
        if let cookie = message.cookie.server {
            noteTime(of: cookie, from: source, to: local, now)
            servers.learn(cookie, server: source.address, own: local, now: now.monotonic)
        }
        // Which of two tries was answered can't be told; but on a path that takes longer than the first repetition every request would be
        // repeated, and nothing ever learned. Too much is mended by the next sample, too little would be for ever.
        let measured = servers.roundTrip(source.address) == nil ? 1...2 : 1...1
        if exchange.cookiesFollowed == 0, measured.contains(exchange.retransmission.tries) {
            servers.learn(roundTrip: now.monotonic - exchange.began, server: source.address)
        }
        exchange.isAnswered = true
        exchanges[message.sequence] = exchange

        if message.code == .cookieRequired {
            if case .prove = exchange.purpose {
                complete(exchange)
                proofArrived(exchange, now)
                return
            }
            if case .readClock(let hoa) = exchange.purpose {
                complete(exchange)
                clockRead(hoa, refusal: nil, now)
                return
            }
            guard exchange.cookiesFollowed < Exchange.cookiesFollowedMax else { return }
            exchange.cookiesFollowed += 1
            exchanges[message.sequence] = exchange
            transmit(message.sequence, to: source, now)
            return
        }
        answered(exchange, message, from: source, to: local, now)
    }

    /// Ends a request that has had its answer.
    mutating func complete(_ exchange: Exchange) {
        exchanges[exchange.sequence] = nil
        if exchangeByPurpose[exchange.purpose] == exchange.sequence { exchangeByPurpose[exchange.purpose] = nil }
        deadlines.cancel(.exchange(exchange.sequence))
    }

    private func subjectMatches(_ message: SignalMessage, _ exchange: Exchange) -> Bool {
        switch (message.body, exchange.purpose) {
        case (.imsUpdateReply, .register), (.imsUpdateReply, .tryUplink): true
        case (.maAnswer(let answer), .prove(let hoa, _)), (.maAnswer(let answer), .queryPeer(let hoa)), (.maAnswer(let answer), .checkLocator(let hoa, _)),
            (.maAnswer(let answer), .readClock(let hoa)), (.maAnswer(let answer), .checkSelf(let hoa)):
            answer.hoa == nil || answer.hoa == hoa
        case (.haNotifyAck(let ack), .notifyServer(let peer)):
            ack.hoa == nil || ack.hoa == home(for: peer)
        case (.haAnswer(let answer), .identify(let moa)): answer.moa == nil || answer.moa == moa
        case (.maNotifyAck(let ack), .notifyPeer(let peer)), (.maNotifyAck(let ack), .introduce(let peer)): ack.hoa == nil || ack.hoa == home(for: peer)
        default: false
        }
    }

    private mutating func answered(_ exchange: Exchange, _ message: SignalMessage, from source: Endpoint, to local: IPAddress, _ now: Now) {
        switch (message.body, exchange.purpose) {
        case (.imsUpdateReply(let reply), .register(let hoa)):
            complete(exchange)
            prefer(source, of: hoa)
            registrationAnswered(hoa, reply, now)
        case (.imsUpdateReply(let reply), .tryUplink(let hoa, let moa)):
            complete(exchange)
            uplinkTried(moa, of: hoa, observed: reply.observed, now)
        case (.maAnswer, .prove):
            complete(exchange)
            proofArrived(exchange, now)
        case (.maAnswer(let answer), .readClock(let hoa)):
            complete(exchange)
            clockRead(hoa, refusal: "the IMS refused: \(answer.code)\(answer.text.map { " (\($0.printable))" } ?? "")", now)
        case (.maAnswer(let answer), .checkSelf(let hoa)):
            complete(exchange)
            selfChecked(hoa, answer, now)
        case (.maAnswer(let answer), .queryPeer(let hoa)):
            complete(exchange)
            peerAnswered(hoa, answer, now)
            // Section 6: to a request without cookie a server writes nothing down, so the subscription takes another.
            if answer.code == .ok, answer.subscribe == nil, !exchange.hadCookie, message.cookie.server != nil, peers[hoa] != nil {
                start(.queryPeer(hoa), .maQuery, to: [source] + exchange.targets.filter { $0 != source }, now)
            }
        case (.maAnswer(let answer), .checkLocator(let hoa, let moa)):
            complete(exchange)
            locatorAnswered(hoa, moa, answer.code, now)
        case (.haNotifyAck(let ack), .notifyServer(let peer)):
            complete(exchange)
            serverNotified(peer, ack.code, ack.text?.printable, lifetime: ack.lifetime, now)
        case (.haAnswer(let answer), .identify(let moa)):
            complete(exchange)
            strangerAnswered(moa, answer, now)
        case (.maNotifyAck(let ack), .notifyPeer(let peer)):
            complete(exchange)
            peerNotified(peer, ack, since: exchange.began, now)
            // Section 7: repeated once with the cookie that the ack brought, which proves our address to the peer.
            if ack.code == .ok, !exchange.hadCookie, message.cookie.server != nil, !isUnderWay(exchange.purpose) {
                start(exchange.purpose, .maNotify, to: [source], triesMax: 1, now)
            }
        case (.maNotifyAck(let ack), .introduce(let peer)):
            complete(exchange)
            if ack.code == .ok { noteKnowsUs(peer) }
        default:
            counters.unmatchedDropped += 1
        }
    }

    /// All tries of a request are used up.
    private mutating func gaveUp(_ exchange: Exchange, _ now: Now) {
        switch exchange.purpose {
        case .register(let hoa):
            if registrationUnanswered(hoa, from: exchange.source.map(MobileAddress.init), now) { return }
            registrationFailed(hoa, "no answer from \(exchange.targets.map(\.description).joined(separator: ", "))", now)
        case .tryUplink(let hoa, let moa):
            uplinkTried(moa, of: hoa, observed: nil, now)
        case .prove:
            proofArrived(exchange, now)
        case .readClock(let hoa):
            // At a start it is this that an address without a way to the IMS leaves unanswered.
            if registrationUnanswered(hoa, from: exchange.source.map(MobileAddress.init), now) { return }
            clockRead(hoa, refusal: "no answer from \(exchange.targets.map(\.description).joined(separator: ", "))", now)
        case .checkSelf:
            // Its silence is the next update's affair.
            break
        case .queryPeer(let hoa):
            peerSilent(hoa, now)
        case .notifyServer(let peer):
            serverNotified(peer, nil, nil, now)
        case .notifyPeer(let peer):
            peerNotified(peer, nil, since: exchange.began, now)
        case .introduce:
            break
        case .identify(let moa):
            strangerAnswered(moa, nil, now)
        case .checkLocator(let hoa, let moa):
            locatorAnswered(hoa, moa, nil, now)
        }
    }
}

import MATControl
import MATCore
import MATSignal

// Requests: `Exchanges` says when to send which to whom, and which responses answer them. Here is what they say, made of what the node knows at
// each try, and to whom their answers go.

extension NodeCore {
    /// Starts a request, or restarts it if one for the same purpose is under way.
    ///
    /// - Parameter source: the own address to send from; `nil`: the preferred one.
    mutating func start(
        _ purpose: Exchange.Purpose, to targets: [Endpoint], source: IPAddress? = nil, triesMax: Int? = nil, _ now: Now
    ) {
        perform(
            exchanges.start(
                purpose, to: targets, source: source, move: moveTold(by: purpose), triesMax: triesMax, preferred: preferredSources, random: &random,
                now.monotonic), now)
    }

    /// What an answer to a request shows its receiver to know of our moves.
    private func moveTold(by purpose: Exchange.Purpose) -> UInt32? {
        switch purpose {
        case .notifyServer(let peer), .notifyPeer(let peer), .introduce(let peer): home(for: peer).flatMap { homes[$0]?.announcement.toldNumber }
        default: nil
        }
    }

    mutating func cancel(_ purpose: Exchange.Purpose) { exchanges.cancel(purpose) }

    func isUnderWay(_ purpose: Exchange.Purpose) -> Bool { exchanges.isUnderWay(purpose) }

    /// Repeats everything under way from the addresses that we have now: after a move the old source is no use.
    mutating func resendAll(_ now: Now) { perform(exchanges.startOver(preferred: preferredSources, now.monotonic), now) }

    /// The own address of each family that requests are sent from, unless they name one.
    var preferredSources: FamilyPair<IPAddress?> { FamilyPair { family in addresses.ordered.first { $0.moa.family == family }?.moa.address } }

    mutating func perform(_ tries: [Exchanges.OnTry], _ now: Now) {
        for action in tries {
            switch action {
            case .send(let transmission): transmit(transmission, now)
            case .giveUp(let exchange): gaveUp(exchange, now)
            case .count(let counter): counters[keyPath: counter] += 1
            }
        }
    }

    private mutating func transmit(_ request: Exchanges.Transmission, _ now: Now) {
        // A peer's agent is asked and told nothing by who is hidden from it; its silence is borne as any other's.
        guard !(isHidden && request.purpose.isToUnproven), let body = body(of: request, now) else { return }
        counters.messagesSent += 1
        post(
            SignalMessage(sequence: request.sequence, body).octets, from: request.own, to: request.target,
            needsRoom: request.purpose.isToUnproven && isStranger(request.target.address))
    }

    /// What a request says: at each try anew, for cookie and record may have changed since the last.
    private func body(of request: Exchanges.Transmission, _ now: Now) -> SignalMessage.Body? {
        let (cookie, own) = (request.cookie, request.own)
        switch request.purpose {
        case .register(let hoa):
            guard let home = homes[hoa], let mapping = home.mapping else { return nil }
            let certificate = home.registration.certificate
            let reference: CertificateReference = certificate.isAtServer ? .id(certificate.current.id) : .whole(certificate.current)
            var update = IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: mapping.mapping, certificate: reference))
            for (moa, place) in zip(home.registration.signer.places, mapping.record.places) {
                // Of any of its IMSs: the targets are of one family.
                var witnesses = home.servers?.endpoints ?? request.targets
                // One that only another server sees is proven by that one's cookie, also of the address that this leaves from.
                if case .endpoint(let endpoint, _) = place {
                    let observers = ownEndpoints[moa].observers(of: endpoint)
                    witnesses = observers.isEmpty ? witnesses : witnesses.filter(observers.contains)
                    if moa.address == own, observers.isEmpty || observers.contains(request.target) { continue }
                } else if moa.address == own {
                    continue
                }
                guard let proof = servers.proof(servers: witnesses, own: moa.address, now: now.monotonic) else { continue }
                let client = exchanges.clientCookie(of: proof.server, at: moa.address)
                switch place {
                case .moa: update.proofs.append(LocatorProof(locator: moa, client: client, server: proof.cookie))
                case .endpoint(let endpoint, _): update.endpointProofs.append(EndpointProof(endpoint: endpoint, client: client, server: proof.cookie))
                case .relay, .unknown: break
                }
            }
            return .imsUpdate(update)
        case .tryUplink(let hoa, _):
            guard let home = homes[hoa], let mapping = home.mapping else { return nil }
            return .imsUpdate(
                IMSUpdate(
                    cookie: cookie, record: EnclosedRecord(mapping: mapping.mapping, certificate: .whole(home.registration.certificate.current)),
                    proofs: []))
        case .prove(let hoa, _), .readClock(let hoa), .checkLocator(let hoa, _):
            // The answer is not wanted, only its cookie; the unpadded query gets just that of a server that is responsible for the HoA. A
            // locator's node answers without one.
            return .maQuery(MAQuery(cookie: cookie, hoa: hoa))
        case .checkSelf(let hoa):
            return .maQuery(MAQuery(cookie: cookie, hoa: hoa, certID: homes[hoa]?.mapping?.certificate.id))
        case .queryPeer(let hoa):
            let known = peers[hoa]?.record.key.id
            var query = MAQuery(cookie: cookie, hoa: hoa, certID: known, subscribe: Self.subscribeSeconds)
            // A first query is padded so that its answer fits at once (section 6).
            if cookie.server == nil { query.padding = Self.firstQueryPadding }
            return .maQuery(query)
        case .notifyServer(let peer):
            guard let own = home(for: peer), let record = enclosedRecord(of: own) else { return nil }
            let signature = placeSignature(.haNotify, of: own, from: request.own, to: request.target, cookie)
            return .haNotify(HANotify(cookie: cookie, hoa: own, peerHoA: peer, record: record, signature: signature))
        case .notifyPeer(let peer), .introduce(let peer):
            guard let own = home(for: peer), let record = enclosedRecord(of: own) else { return nil }
            return .maNotify(MANotify(cookie: cookie, record: record))
        case .identify(let moa):
            return .haQuery(HAQuery(cookie: cookie, moa: moa))
        case .observe:
            return .bind(.padded(cookie: cookie, .ask))
        case .bind(let key):
            return .bind(bindRequest(of: key, to: request.target, cookie))
        case .refresh(let key):
            return .bind(.padded(cookie: cookie, .refresh(key.hoa)))
        case .endBinding(let key):
            return .bind(bindRequest(of: key, to: request.target, cookie, lifetime: 0))
        }
    }

    private func enclosedRecord(of own: HomeAddress) -> EnclosedRecord? {
        homes[own]?.mapping.map { EnclosedRecord(mapping: $0.mapping, certificate: .whole($0.certificate)) }
    }

    /// Seconds of subscription asked for: the most that an IMS grants.
    static let subscribeSeconds: UInt32 = 300
    /// Makes the first query about 400 octets, the size of the answer with a whole certificate.
    static let firstQueryPadding = 348

    // MARK: Responses

    mutating func finish(_ message: SignalMessage, from source: Endpoint, to local: IPAddress, _ now: Now) {
        counters.messagesReceived += 1
        if case .pathAnswer(let answer) = message.body { return pathAnswered(answer, message.sequence, from: source, to: local, now) }
        if finishProbe(message, from: source, to: local, now) { return }
        let fresh = message.cookie.server.flatMap { exchanges.isFresh($0, from: source, at: local, now.monotonic) ? $0 : nil }
        let own = FamilyPair<HomeAddress?> { home(in: $0) }
        let response = exchanges.received(message, from: source, to: local, own: own, preferred: preferredSources, now.monotonic)
        if case .unmatched = response {
            counters.unmatchedDropped += 1
            return
        }
        if let fresh { readTime(of: fresh, from: source, now) }
        switch response {
        case .unmatched: break
        case .sendAgain(let tries): perform(tries, now)
        case .ended(let exchange): answered(exchange, message, from: source, now)
        }
    }

    private mutating func answered(_ exchange: Exchange, _ message: SignalMessage, from source: Endpoint, _ now: Now) {
        switch (message.body, exchange.purpose) {
        case (.imsUpdateReply(let reply), .register(let hoa)):
            registrationAnswered(hoa, reply, from: source, now)
        case (.imsUpdateReply(let reply), .tryUplink(let hoa, let moa)):
            uplinkTried(moa, of: hoa, observed: reply.observed, now)
        case (.maAnswer, .prove(let hoa, let moa)):
            proofEnded(hoa, moa, isAnswered: true, now)
        case (.maAnswer(let answer), .readClock(let hoa)):
            let refusal = answer.code == .cookieRequired ? nil : Problem(refusal: answer.code, answer.text, of: hoa)
            clockRead(hoa, refusal: refusal, now)
        case (.maAnswer(let answer), .checkSelf(let hoa)):
            selfChecked(hoa, answer, now)
        case (.maAnswer(let answer), .queryPeer(let hoa)):
            peerAnswered(hoa, answer, now)
            // Section 6: to a request without cookie a server writes nothing down, so the subscription takes another.
            if answer.code == .ok, answer.subscribe == nil, !exchange.hadCookie, message.cookie.server != nil, peers[hoa] != nil {
                start(.queryPeer(hoa), to: [source] + exchange.targets.filter { $0 != source }, now)
            }
        case (.maAnswer(let answer), .checkLocator(let hoa, let moa)):
            locatorAnswered(hoa, moa, answer.code, now)
        case (.haNotifyAck(let ack), .notifyServer(let peer)):
            serverNotified(peer, ack.code, ack.text?.printable, of: exchange.move, lifetime: ack.lifetime, now)
        case (.haAnswer(let answer), .identify(let moa)):
            strangerAnswered(moa, answer, now)
        case (.maNotifyAck(let ack), .notifyPeer(let peer)):
            peerNotified(peer, ack, of: exchange, now)
            // Section 7: repeated once with the cookie that the ack brought, which proves our address to the peer.
            if ack.code == .ok, !exchange.hadCookie, message.cookie.server != nil, !isUnderWay(exchange.purpose) {
                start(exchange.purpose, to: [source], triesMax: 1, now)
            }
        case (.maNotifyAck(let ack), .introduce(let peer)):
            if ack.code == .ok { peerKnowsUs(peer, of: exchange.move, now) }
        case (.bindAck(let ack), .observe(let question)):
            observed(question, ack, now)
        case (.bindAck(let ack), .bind(let key)), (.bindAck(let ack), .refresh(let key)):
            bindingAnswered(key, ack, now)
        case (.bindAck(let ack), .endBinding(let key)):
            log(.debug, ack.code == .ok ? "\(key.hoa) is not bound at \(key.server) any more" : "\(key.server) did not end a binding: \(ack.code)")
        default:
            counters.unmatchedDropped += 1
        }
    }

    /// The address that may be at fault if the IMS answers no registration from it: the one that comes first, unless that was found before.
    private func suspected(_ own: MobileAddress?, of hoa: HomeAddress) -> MobileAddress? {
        own.flatMap { desiredLocators(of: hoa).first == $0 && !uplinks.isRefused($0) ? $0 : nil }
    }

    /// All tries of a request are used up.
    private mutating func gaveUp(_ exchange: Exchange, _ now: Now) {
        switch exchange.purpose {
        case .register(let hoa):
            let own = exchange.source.map(MobileAddress.init)
            if registrationUnanswered(hoa, from: own, now) { return }
            registrationFailed(hoa, .noAnswer(to: hoa, from: exchange.targets), silentOver: suspected(own, of: hoa), now)
        case .tryUplink(let hoa, let moa):
            uplinkTried(moa, of: hoa, observed: nil, now)
        case .prove(let hoa, let moa):
            proofEnded(hoa, moa, isAnswered: false, now)
        case .readClock(let hoa):
            // At a start it is this that an address without a way to the IMS leaves unanswered.
            let own = exchange.source.map(MobileAddress.init)
            if registrationUnanswered(hoa, from: own, now) { return }
            clockRead(hoa, refusal: .noAnswer(to: hoa, from: exchange.targets), silentOver: suspected(own, of: hoa), now)
        case .checkSelf:
            // Its silence is the next update's affair.
            break
        case .queryPeer(let hoa):
            peerSilent(hoa, now)
        case .notifyServer(let peer):
            serverNotified(peer, nil, nil, of: exchange.move, now)
        case .notifyPeer(let peer):
            peerNotified(peer, nil, of: exchange, now)
        case .introduce:
            break
        case .identify(let moa):
            strangerAnswered(moa, nil, now)
        case .checkLocator(let hoa, let moa):
            locatorAnswered(hoa, moa, nil, now)
        case .observe(let question):
            observationMissing(question, now)
        case .bind(let key), .refresh(let key):
            bindingUnanswered(key, now)
        case .endBinding:
            // It runs out by itself.
            break
        }
    }
}

import MATCore
import MATSignal

// Datagrams on their way to the machines, and answers on their way back (sections 1, 2 and 6).

extension IMSCore {
    mutating func dispatch(_ datagram: [UInt8], _ source: Endpoint, _ local: IPAddress, _ now: Now) {
        // Such a source can't be answered, and only a forger has it.
        guard source.address.isUsableUnicast || source.address.isLoopback || source.address.isLinkLocal, source.port != 0 else {
            counted.dropped += 1
            return
        }
        let parts = SignalDatagram.decode(datagram)
        var sizeRule = SizeRule(datagram, parts)
        var answers: [SignalMessage] = []
        var updates: [(prefix: IPPrefix, request: Request)] = []
        for part in parts {
            let allowed = sizeRule.next(part)
            switch part {
            case .message(let message, let octetsCount):
                counted.received[message.type, default: 0] += 1
                guard message.type.isRequest else {
                    if !responded(message, source, local, now) { counted.dropped += 1 }
                    continue
                }
                // Nodes probe each other.
                guard message.type != .pathProbe else {
                    counted.dropped += 1
                    continue
                }
                let request = request(message, source, local, now)
                if request.isValidated {
                    if case .bind(let bind) = message.body, let hoa = bind.hoa,
                        let update = updates.last(where: { $0.prefix.contains(hoa.address) })
                    {
                        binds.wait(bind, request, for: update.request)
                    } else if let reply = handle(message, request, now) {
                        answers.append(stamped(reply, now))
                    } else if case .imsUpdate(let update) = message.body {
                        updates.append((update.record.mapping.record.prefix, request))
                    }
                } else {
                    let fresh = freshCookie(source, request.clientCookie, now)
                    let body = answerFromMemory(message, request, now)?.under(fresh)
                    let answer = SizeRule.answer(to: message, octetsCount: octetsCount, body, fresh, allowed: allowed, source: source)
                    guard let answer else { continue }
                    sizeRule.answered(answer)
                    answers.append(answer)
                }
            case .draft(let draft): answerDraft(draft, source, local, now)
            case .rejected(let rejection):
                guard let answer = answerRejected(rejection, source, allowed, now) else { continue }
                sizeRule.answered(answer)
                answers.append(answer)
            }
        }
        send(answers, from: local, to: source)
    }

    private func request(_ message: SignalMessage, _ source: Endpoint, _ local: IPAddress, _ now: Now) -> Request {
        let cookie = message.cookie
        let isValidated = cookies.isValid(cookie, from: source, now: now)
        return Request(
            source: source, local: local, type: message.type, sequence: message.sequence, clientCookie: cookie.client,
            isValidated: isValidated,
            isFresh: isValidated && cookies.isValid(cookie, from: source, now: now, ageMax: CookieAuthority.proofAgeMax),
            serverCookie: isValidated ? cookie.server : nil)
    }

    /// - Returns: the answer; `nil` if it comes later, or never.
    private mutating func handle(_ message: SignalMessage, _ request: Request, _ now: Now) -> Reply? {
        switch message.body {
        case .imsUpdate(let update): return handle(update, request, now)
        case .maQuery(let query): return Reply(.maAnswer(answer(query, request, now)), to: request)
        case .haNotify(let notify): return handle(notify, request, now)
        case .haQuery(let query): return Reply(.haAnswer(answer(query, request, now)), to: request)
        case .maNotify(let notify):
            switch notifyAdmission.received(notify, request, view, now) {
            case .answer(let reply): return reply
            case .take(let certified):
                perform(confirmations.offered(Offer(request: request, certified: certified), view, &random, now), now)
                return nil
            }
        case .bind(let bind): return handle(bind, request, now)
        case .join(let join): return handle(join, request, now)
        case .imsUpdateReply, .maAnswer, .haNotifyAck, .haAnswer, .maNotifyAck, .bindAck, .pathProbe, .pathAnswer, .joinReply: return nil
        }
    }

    private mutating func handle(_ update: IMSUpdate, _ request: Request, _ now: Now) -> Reply? {
        switch updates.received(update, request, view, cookies, now) {
        case .answer(let reply): return reply
        case .join(let ticket): registrations.join(ticket, request)
        case .verify(let job):
            if let refusal = verify(job, for: .update(request), source: request.source.address, now), let certified = job.certified {
                return updates.unchecked(certified, request, refusal, view)
            }
        }
        return nil
    }

    private mutating func handle(_ bind: Bind, _ request: Request, _ now: Now) -> Reply? {
        switch binds.received(bind, request, viewWithoutBindings, now) {
        case .answer(let reply): return reply
        case .verify(let job, let pending):
            guard let refusal = verify(job, for: .bind(pending), source: request.source.address, now) else { return nil }
            return binds.unchecked(pending, refusal)
        }
    }

    private mutating func handle(_ join: Join, _ request: Request, _ now: Now) -> Reply? {
        switch joining.received(join, request, view) {
        case .answer(let reply): return reply
        case .verify(let job, let pending):
            guard let refusal = verify(job, for: .join(pending), source: request.source.address, now) else { return nil }
            return joining.unchecked(pending, refusal)
        }
    }

    private mutating func handle(_ notify: HANotify, _ request: Request, _ now: Now) -> Reply? {
        let key = NotifyKey(source: request.source, sequence: request.sequence, hoa: notify.hoa, peerHoA: notify.peerHoA)
        // It is being worked on; its sender will get the one answer.
        if ownNotifies.isWorking(on: key) || confirmations.isWorking(on: key) { return nil }
        switch notifyAdmission.received(notify, request, pendingCount: notifiesPendingCount, view, now) {
        case .answer(let reply): return reply
        case .take(let pending, isOwn: true): perform(ownNotifies.notified(pending, view, now), now)
        case .take(let pending, isOwn: false):
            switch confirmations.notified(pending, view, &random, now) {
            case .answer(let reply): return reply
            case .work(let actions): perform(actions, now)
            }
        }
        return nil
    }

    // MARK: Queries

    /// For a source without a valid cookie: nothing is written for it.
    private mutating func answerFromMemory(_ message: SignalMessage, _ request: Request, _ now: Now) -> SignalMessage.Body? {
        switch message.body {
        case .maQuery(let query): .maAnswer(answer(query, request, now))
        case .haQuery where queries.mayBeFromBound(request, view, now): nil
        case .haQuery(let query): .haAnswer(answer(query, request, now))
        case .bind(let bind) where bind.hoa == nil: Binds.observed(request).body
        default: nil
        }
    }

    private mutating func answer(_ query: MAQuery, _ request: Request, _ now: Now) -> MAAnswer {
        var result = queries.answer(query, request, view, now)
        if let wish = result.subscription { result.answer.subscribe = subscribe(request, wish, now) }
        return result.answer
    }

    /// - Returns: the seconds granted; `nil` if there is no room.
    private mutating func subscribe(_ request: Request, _ wish: Queries.SubscriptionWish, _ now: Now) -> UInt32? {
        let subscriber = SubscriptionTable.Subscriber(
            endpoint: request.source, local: request.local, expires: now.monotonic + .seconds(Int(wish.seconds)))
        guard subscriptions.add(subscriber, to: wish.prefix, now: now.monotonic) else {
            logRefusal("refused SUBSCRIBE to \(wish.prefix) from \(request.source): too many subscriptions", now)
            return nil
        }
        granted(subscriber.endpoint, wish.prefix, now)
        return wish.seconds
    }

    private mutating func answer(_ query: HAQuery, _ request: Request, _ now: Now) -> HAAnswer {
        let result = queries.answer(query, request, view, now)
        if result.isRememberedUsed { _ = remembered.use(holding: query.moa, now: now) }
        if let refusal = result.refusal { logRefusal(refusal.line, now) }
        return result.answer
    }

    private mutating func answerDraft(_ draft: DraftMessage, _ source: Endpoint, _ local: IPAddress, _ now: Now) {
        guard let answer = queries.answer(draft, source, view, now) else {
            counted.dropped += 1
            return
        }
        counted.answered[IMSCounters.Answer(type: .maAnswer, code: answer.code), default: 0] += 1
        append(.send(answer.octets, from: local, to: source))
    }

    private mutating func answerRejected(
        _ rejection: SignalDatagram.Rejection, _ source: Endpoint, _ allowed: Int, _ now: Now
    ) -> SignalMessage? {
        if case .unknownType = rejection.error.code { counted.unknownTypes += 1 } else { counted.malformed += 1 }
        guard let result = rejections.rejected(rejection, from: source, cookies, allowed: allowed, now) else { return nil }
        logRefusal(result.line, now)
        return result.answer
    }

    // MARK: Responses

    /// - Returns: whether it belongs to a request of ours.
    private mutating func responded(_ message: SignalMessage, _ source: Endpoint, _ local: IPAddress, _ now: Now) -> Bool {
        switch message.body {
        case .maAnswer(let answer):
            guard let actions = confirmations.answered(answer, message.sequence, from: source, view, &random, now) else {
                return false
            }
            perform(actions, now)
        case .maNotifyAck(let ack):
            guard let actions = pushes.acked(ack, message.sequence, from: source, servers) else { return false }
            perform(actions, now)
        default: return false
        }
        return true
    }

    // MARK: Sending

    func freshCookie(_ client: Endpoint, _ clientCookie: UInt64, _ now: Now) -> Cookie {
        Cookie(client: clientCookie, server: cookies.make(for: client, clientCookie: clientCookie, now: now))
    }

    /// Every answer brings a fresh cookie, so that a client that talks to us always has one that also proves its location.
    private mutating func stamped(_ reply: Reply, _ now: Now) -> SignalMessage {
        if let refusal = reply.refusal { logRefusal(refusal.line, now) }
        let cookie = freshCookie(reply.request.source, reply.request.clientCookie, now)
        return SignalMessage(sequence: reply.request.sequence, reply.body.under(cookie))
    }

    /// Answers to one datagram.
    mutating func send(_ answers: [SignalMessage], from local: IPAddress, to source: Endpoint) {
        for answer in answers { count(answer) }
        for packed in SignalDatagram.pack(answers) { append(.send(packed, from: local, to: source)) }
    }

    /// An answer that had to wait.
    mutating func send(_ reply: Reply, _ now: Now) {
        let answer = stamped(reply, now)
        count(answer)
        append(.send(answer.octets, from: reply.request.local, to: reply.request.source))
        guard reply.request.type == .imsUpdate else { return }
        for waiting in binds.takeWaiting(for: reply.request) {
            if let reply = handle(waiting.bind, waiting.request, now) { send(reply, now) }
        }
    }

    /// A request of our own.
    mutating func send(_ message: SignalMessage, from local: IPAddress?, to peer: Endpoint) {
        counted.sent[message.type, default: 0] += 1
        append(.send(message.octets, from: local, to: peer))
    }

    private mutating func count(_ answer: SignalMessage) {
        counted.answered[IMSCounters.Answer(type: answer.type, code: answer.code), default: 0] += 1
    }
}

import MATCore
import MATSignal
import MappingMemory

// MA Query, HA Query, and the draft's query: answered from memory.

extension IMSCore {
    /// The most that a HA Answer's "not found" may be remembered (section 7).
    static let strangerNotFoundSecondsMax: UInt32 = 5

    mutating func answer(_ query: MAQuery, _ request: Request, _ now: Now) -> MAAnswer {
        var answer = MAAnswer(code: .ok, cookie: freshCookie(request, now), hoa: query.hoa)
        guard let served = configuration.served(covering: query.hoa.address) else {
            answer.code = .notAuthoritative
            answer.text = "no prefix served here covers \(query.hoa)"
            return answer
        }
        let found = mappings.entry(covering: query.hoa.address)
        // The record of a network may be followed by that of a node within it, so it is not the answer yet either.
        if store.isLoading, found?.record.prefixLength != 128 {
            answer.code = .tryLater
            answer.lifetime = store.unknown.seconds
            answer.text = store.unknown.text
            return answer
        }
        guard let entry = found, entry.isCurrent(now) else {
            answer.code = .notFound
            answer.lifetime = configuration.limits.notFoundSeconds
            return answer
        }
        answer.mapping = entry.certified.mapping
        if query.certID != entry.certified.certificate.id { answer.certificate = entry.certified.certificate }
        if let asked = query.subscribe, asked > 0, request.isValidated {
            answer.subscribe = subscribe(request, asked, to: entry, served, now)
        }
        return answer
    }

    /// - Returns: the seconds granted; `nil` if the subscription is refused. The answer itself is given all the same, since a node
    ///   that polls instead is served worse, not wrongly.
    private mutating func subscribe(_ request: Request, _ asked: UInt32, to entry: StoredMapping, _ served: ServedPrefix, _ now: Now)
        -> UInt32?
    {
        if !served.allowsStrangersToSubscribe {
            let source = MobileAddress(request.source.address)
            guard mappings.entry(holding: source, now: now) != nil || remembered.entry(holding: source, now: now) != nil else { return nil }
        }
        let granted = min(asked, configuration.limits.subscribeSecondsMax)
        let subscriber = SubscriptionTable.Subscriber(
            endpoint: request.source, local: request.local, expires: now.monotonic + .seconds(Int(granted)))
        guard subscriptions.add(subscriber, to: entry.record.prefix, now: now.monotonic) else {
            logRefusal("refused SUBSCRIBE to \(entry.record.prefix) from \(request.source): too many subscriptions", now)
            return nil
        }
        noteSubscription(subscriber.endpoint, to: entry.record.prefix, now)
        return granted
    }

    mutating func answer(_ query: HAQuery, _ request: Request, _ now: Now) -> HAAnswer {
        var answer = HAAnswer(code: .ok, cookie: freshCookie(request, now), moa: query.moa)
        // Only proven sources are charged: a forger must not use up another's rate.
        guard !request.isValidated || queryRates.take(request.source.address.sourceKey, at: now.monotonic) else {
            answer.code = .tryLater
            answer.lifetime = 1
            return answer
        }
        // Who holds which MoA is told only to nodes of our own: others could search for people.
        guard mappings.entry(holding: MobileAddress(request.source.address), now: now) != nil else {
            if store.isLoading { return later(answer) }
            answer.code = .refused
            answer.text = "\(request.source.address) is no locator of a node registered here"
            logRefusal("refused HA Query for \(query.moa) from \(request.source): refused (the source is no registered locator)", now)
            return answer
        }
        guard
            let found = mappings.entry(holding: query.moa, now: now)?.certified ?? rememberedMapping(holding: query.moa, request, now)
        else {
            if store.isLoading { return later(answer) }
            answer.code = .notFound
            answer.lifetime = min(Self.strangerNotFoundSecondsMax, configuration.limits.notFoundSeconds)
            return answer
        }
        answer.mapping = found.mapping
        answer.certificate = found.certificate
        return answer
    }

    /// Who has not shown that it receives at its address changes nothing here, not even what counts as used.
    private mutating func rememberedMapping(holding moa: MobileAddress, _ request: Request, _ now: Now) -> CertifiedMapping? {
        (request.isValidated ? remembered.use(holding: moa, now: now) : remembered.entry(holding: moa, now: now))?.certified
    }

    /// What is not known may still be read.
    private func later(_ answer: HAAnswer) -> HAAnswer {
        var answer = answer
        answer.code = .tryLater
        answer.lifetime = store.unknown.seconds
        answer.text = store.unknown.text
        return answer
    }

    /// Section 9: type 3 from configured sources only, and nothing else ever.
    mutating func answerDraft(_ draft: DraftMessage, _ source: Endpoint, _ local: IPAddress, _ now: Now) {
        guard case .query(let hoa, _) = draft.body, configuration.draftSources.contains(where: { $0.contains(source.address) }) else {
            counters.dropped += 1
            return
        }
        guard draftAnswers.take(at: now.monotonic) else {
            counters.dropped += 1
            return
        }
        var code = ResponseCode.ok
        var moas: [MobileAddress] = []
        var lifetime: UInt32 = 0
        if configuration.served(covering: hoa.address) == nil {
            code = .notAuthoritative
        } else if store.isLoading {
            code = .tryLater
            lifetime = store.unknown.seconds
        } else if let entry = mappings.entry(covering: hoa.address), entry.isCurrent(now) {
            moas = entry.record.locators.filter { $0.prefixLength == 128 }.map(\.moa)
            lifetime = UInt32(clamping: (entry.record.expires - now.wallMilliseconds) / 1000)
        } else {
            code = .notFound
            lifetime = configuration.limits.notFoundSeconds
        }
        let body = DraftMessage.Body.mapping(hoa, moas, timestamp: now.wallSeconds, lifetime: lifetime, isUpdate: false)
        let answer = DraftMessage(code: code, sequence: draft.sequence, body: body)
        counters.answered[IMSCounters.Answer(type: .maAnswer, code: code), default: 0] += 1
        actions.append(.send(answer.octets, from: local, to: source))
    }
}

import MATCore
import MATSignal

// Signalling: Bind in its three forms (protocol.md section 11.3), in the order of refusals of section 2.

extension RelayCore {
    /// A datagram of signalling.
    ///
    /// - Parameter local: the relay's address and port that it came to.
    public mutating func received(_ datagram: [UInt8], from source: Endpoint, to local: Endpoint, now: Now) -> [RelayAction] {
        // Such a source can't be answered, and only a forger has it.
        guard source.address.isUsableUnicast, source.port != 0 else {
            counters.dropped += 1
            return takeActions()
        }
        let parts = SignalDatagram.decode(datagram)
        var sizeRule = SizeRule(datagram, parts)
        var answers: [SignalMessage] = []
        for part in parts {
            let allowed = sizeRule.next(part)
            switch part {
            case .message(let message, _):
                guard case .bind(let bind) = message.body else {
                    counters.dropped += 1
                    continue
                }
                let origin = BindOrigin(source: source, local: local, sequence: message.sequence, cookie: bind.cookie)
                let isValidated = cookies.isValid(bind.cookie, from: source, now: now)
                let ack = isValidated ? received(bind, origin, now) : unvalidated(bind, origin)
                guard let ack else { continue }
                let answer = stamped(ack, origin, now)
                guard isValidated || answer.octets.count <= allowed else { continue }
                if !isValidated { sizeRule.answered(answer) }
                answers.append(answer)
            case .draft: counters.dropped += 1
            case .rejected(let rejection):
                counters.malformed += 1
                guard let result = rejections.rejected(rejection, from: source, cookies, allowed: allowed, now) else { continue }
                logRefusal(result.line, now.monotonic)
                guard let answer = result.answer else { continue }
                sizeRule.answered(answer)
                answers.append(answer)
            }
        }
        for packed in SignalDatagram.pack(answers) { append(.send(packed, from: local, to: source)) }
        return takeActions()
    }

    /// Without a valid cookie: who asks where it comes from is told, everybody else is told to come with a cookie. Nothing is written.
    private mutating func unvalidated(_ bind: Bind, _ origin: BindOrigin) -> BindAck? {
        if case .ask = bind.wish {
            counters.asks += 1
            return ack(.ok, origin)
        }
        return ack(.cookieRequired, origin)
    }

    /// - Returns: the answer; `nil` if it comes later.
    private mutating func received(_ bind: Bind, _ origin: BindOrigin, _ now: Now) -> BindAck? {
        switch bind.wish {
        case .ask:
            counters.asks += 1
            return ack(.ok, origin)
        case .refresh(let hoa):
            guard !isDraining else { return putOff(origin, seconds: Self.drainSeconds) }
            let refreshed = bindings.refresh(
                hoa, from: origin.source, to: origin.local, clientCookie: origin.cookie.client, now.monotonic)
            guard let refreshed else { return refuse(.notFound, hoa, origin, "it has to bind anew", now) }
            counters.refreshes += 1
            extendInKernel(refreshed.prefix, until: refreshed.until, now.monotonic)
            return granted(hoa, refreshed.secondsLeft(now.monotonic), origin, role(of: refreshed.prefix))
        case .bind(let hoa, let proof, let seconds):
            return received(hoa, proof, seconds: seconds, origin, now)
        }
    }

    private mutating func received(_ hoa: HomeAddress, _ proof: PathProof, seconds: UInt32, _ origin: BindOrigin, _ now: Now) -> BindAck? {
        // What is signed says that the node receives there now.
        guard cookies.isValid(origin.cookie, from: origin.source, now: now, ageMax: CookieAuthority.proofAgeMax) else {
            return ack(.cookieRequired, origin)
        }
        guard bindRates.take(origin.source.address, boundCount: bindings.boundCount(at: origin.source.address), at: now.monotonic) else {
            return putOff(hoa, origin, "too many Binds of this source in a second", seconds: 1, now)
        }
        guard !isDraining || seconds == 0 else { return putOff(origin, seconds: Self.drainSeconds) }
        guard configuration.takesVisitors || configuration.residents.contains(where: { $0.prefix.contains(hoa.address) }) else {
            return refuse(.notAuthoritative, hoa, origin, "it is no resident, and visitors are not served", now)
        }
        let certificate: Certificate
        switch proof.certificate {
        case .whole(let whole): certificate = whole
        case .id(let id):
            guard let known = believed[id] else {
                return refuse(.authenticationFailed, hoa, origin, "its certificate is not known here, it has to be sent", now)
            }
            certificate = known.certificate
        }
        guard certificate.hoa == hoa else {
            return refuse(.authenticationFailed, hoa, origin, "the certificate is for \(certificate.prefix)", now)
        }
        let prefix = certificate.prefix
        let holder: Binding.Holder = configuration.resident(prefix) == nil ? .visitor(issuer: certificate.issuerID) : .resident
        guard holder == .resident || configuration.takesVisitors else {
            return refuse(.notAuthoritative, hoa, origin, "\(prefix) is more than the residents' prefixes, and visitors are not served", now)
        }
        if let reason = refusal(of: origin.source, for: prefix, at: origin.local, now.monotonic) {
            return refuse(.refused, hoa, origin, reason, now)
        }
        do throws(VerificationFailure) {
            try certificate.key.checkTimes(of: prefix, now)
        } catch {
            return refuse(.authenticationFailed, hoa, origin, error.reason, now)
        }
        if let reason = prefix.certificateRefusal { return refuse(.authenticationFailed, hoa, origin, reason, now) }
        let request = BindRequest(
            origin: origin, certificate: certificate, signature: proof.signature, seconds: seconds, holder: holder)
        guard let entry = request.entry else { return ack(.cookieRequired, origin) }
        if let refusal = bindings.mayBind(entry, now) { return self.ack(refusal, hoa, origin, now) }
        return findKeys(request, now)
    }

    /// Why nobody may be bound at an endpoint: packets would come back to a relay, this one or another.
    private func refusal(of endpoint: Endpoint, for prefix: IPPrefix, at local: Endpoint, _ now: MonotonicTime) -> String? {
        let address = endpoint.address
        if address == local.address || ownAddresses.contains(address) || configuration.advertised.contains(address) {
            return "\(address) is an address of this relay"
        }
        if configuration.otherRelays.contains(address) { return "\(address) is an address of another relay" }
        if let bound = bindings.binding(covering: address, now), bound.prefix != prefix {
            return "\(address) is a home address that is bound here"
        }
        return nil
    }

    // MARK: Keys

    private mutating func findKeys(_ request: BindRequest, _ now: Now) -> BindAck? {
        let certificate = request.certificate
        // The id alone is 8 octets of a hash, and anybody can look for another certificate that has it.
        if let known = believed[certificate.id], known.certificate == certificate, now.monotonic < known.until {
            return check(request, issuers: nil, keysUntil: known.until, now)
        }
        if let configured = configuration.resident(certificate.prefix)?.publicKeys, !configured.isEmpty {
            return check(request, issuers: configured, keysUntil: .distantFuture, now)
        }
        switch issuerKeys.wanted(request, now.monotonic) {
        case .known(let answer): return found(answer, request, now)
        case .ask:
            counters.lookUps += 1
            append(.lookUp(certificate.prefix))
            return nil
        case .joined: return nil
        case .refused(let reason): return putOff(certificate.hoa, request.origin, reason, seconds: 1, now)
        }
    }

    private mutating func found(_ answer: IssuerKeys.Answer, _ request: BindRequest, _ now: Now) -> BindAck? {
        switch answer {
        case .keys(let keys, let until): return check(request, issuers: keys, keysUntil: until, now)
        case .none(.tryLater, let reason): return putOff(request.certificate.hoa, request.origin, reason, seconds: 2, now)
        case .none(let code, let reason): return refuse(code, request.certificate.hoa, request.origin, reason, now)
        }
    }

    /// The DNS has answered about a name that was asked for.
    public mutating func resolved(_ name: IPPrefix, _ result: IMSLookupResult, now: Now) -> [RelayAction] {
        guard let (answer, waiting) = issuerKeys.resolved(name, result, now.monotonic) else { return takeActions() }
        for request in waiting {
            if let ack = found(answer, request, now) { send(ack, request.origin, now) }
        }
        return takeActions()
    }

    // MARK: Signatures

    private mutating func check(_ request: BindRequest, issuers: [PublicKey]?, keysUntil: MonotonicTime, _ now: Now) -> BindAck? {
        let (hoa, origin) = (request.certificate.hoa, request.origin)
        // Without the issuer's key no arithmetic is worth its time.
        if let issuers, !issuers.contains(where: { $0.id == request.certificate.issuerID }) {
            return refuse(
                .authenticationFailed, hoa, origin, "its certificate is signed by none of the \(issuers.count) IMS keys that are known for it", now)
        }
        guard let challenge = Challenge(origin.cookie) else { return ack(.cookieRequired, origin) }
        let known = configuration.advertised.filter { $0.family == origin.local.family && $0 != origin.local.address } + [origin.local.address]
        let statements = known.map {
            PathStatement(.bind, by: hoa, to: $0, at: Endpoint($0, port: origin.local.port), cookie: challenge)
        }
        let check = BindCheck(request.certificate, issuers: issuers, signature: request.signature, statements: statements)
        switch checks.wanted(check, for: request, keysUntil: keysUntil) {
        case .joined: return nil
        case .refused(let reason): return putOff(hoa, origin, reason, seconds: 1, now)
        case .begin(let ticket):
            let boundCount = bindings.boundCount(at: origin.source.address)
            guard checkRates.take(origin.source.address, boundCount: boundCount, at: now.monotonic) else {
                _ = checks.ended(ticket)
                return putOff(hoa, origin, "too many signature checks for this source in a second", seconds: 1, now)
            }
            counters.checks += 1
            append(.check(ticket, check))
            return nil
        }
    }

    /// A check has ended.
    ///
    /// - Parameter failure: `nil` if the signatures fit.
    public mutating func checked(_ ticket: BindTicket, _ failure: VerificationFailure?, now: Now) -> [RelayAction] {
        guard let (request, keysUntil) = checks.ended(ticket) else { return takeActions() }
        send(checked(request, failure, keysUntil: keysUntil, now), request.origin, now)
        return takeActions()
    }

    private mutating func checked(
        _ request: BindRequest, _ failure: VerificationFailure?, keysUntil: MonotonicTime, _ now: Now
    ) -> BindAck {
        let (hoa, origin) = (request.certificate.hoa, request.origin)
        if let failure { return refuse(.authenticationFailed, hoa, origin, failure.reason, now) }
        believed[request.certificate.id] = BelievedCertificate(certificate: request.certificate, until: keysUntil)
        // Looked at again: others may have been bound meanwhile, or the configuration changed.
        if let reason = refusal(of: origin.source, for: request.certificate.prefix, at: origin.local, now.monotonic) {
            return refuse(.refused, hoa, origin, reason, now)
        }
        guard let entry = request.entry else { return ack(.cookieRequired, origin) }
        switch bindings.bind(entry, now) {
        case .refused(let refusal): return ack(refusal, hoa, origin, now)
        case .ended(let binding, let slot):
            if let binding, let slot {
                ended(binding, in: slot, now)
                logBinding("\(hoa) has ended its binding at \(binding.endpoint)", now.monotonic)
            }
            return granted(hoa, 0, origin, .relay)
        case .bound(let binding, let slot, let isNew, let movedFrom):
            traffic.bound(binding.prefix, in: slot, isNew: isNew, resident: configuration.resident(binding.prefix))
            enterKernel(slot, now.monotonic)
            counters.binds += 1
            if movedFrom != nil || isNew {
                changes.add(RelayChange(atMilliseconds: now.wallMilliseconds, prefix: binding.prefix, before: movedFrom, after: binding.endpoint))
            }
            if let movedFrom {
                counters.moves += 1
                logBinding("\(hoa) moved from \(movedFrom) to \(binding.endpoint)", now.monotonic)
            } else if isNew {
                logBinding("\(hoa) is bound at \(binding.endpoint)\(request.holder == .resident ? "" : ", a visitor")", now.monotonic)
            }
            return granted(hoa, binding.secondsLeft(now.monotonic), origin, role(of: binding.prefix))
        }
    }

    // MARK: Answers

    /// When a node that is put off while the relay drains may come again: it should be elsewhere by then.
    private static let drainSeconds: UInt32 = 60

    private func granted(_ hoa: HomeAddress, _ seconds: UInt32, _ origin: BindOrigin, _ role: ServerRole) -> BindAck {
        BindAck(
            code: .ok, cookie: Cookie(client: origin.cookie.client), observed: origin.source,
            granted: BindAck.Grant(hoa, lifetime: seconds, role: role))
    }

    private func ack(_ code: ResponseCode, _ origin: BindOrigin) -> BindAck {
        BindAck(code: code, cookie: Cookie(client: origin.cookie.client), observed: origin.source)
    }

    private func putOff(_ origin: BindOrigin, seconds: UInt32) -> BindAck {
        var ack = ack(.tryLater, origin)
        ack.lifetime = seconds
        return ack
    }

    private mutating func putOff(
        _ hoa: HomeAddress, _ origin: BindOrigin, _ reason: String, seconds: UInt32, _ now: Now
    ) -> BindAck {
        var ack = refuse(.tryLater, hoa, origin, reason, now)
        ack.lifetime = seconds
        return ack
    }

    private mutating func refuse(_ code: ResponseCode, _ hoa: HomeAddress, _ origin: BindOrigin, _ reason: String, _ now: Now) -> BindAck {
        logRefusal("refused Bind of \(hoa) from \(origin.source): \(code) (\(reason))", now.monotonic)
        return ack(code, origin)
    }

    private mutating func ack(_ refusal: BindingTable.Refusal, _ hoa: HomeAddress, _ origin: BindOrigin, _ now: Now) -> BindAck {
        switch refusal {
        case .olderCookie: return ack(.cookieRequired, origin)
        case .certificateEnded: return refuse(.authenticationFailed, hoa, origin, "its certificate has ended", now)
        case .full: return putOff(hoa, origin, "as many are bound as this relay takes", seconds: Self.fullSeconds, now)
        case .fullOfVisitors: return putOff(hoa, origin, "as many visitors are bound as this relay takes", seconds: Self.fullSeconds, now)
        case .fullOfIssuer:
            return putOff(hoa, origin, "as many visitors of its IMS are bound as this relay takes", seconds: Self.fullSeconds, now)
        }
    }

    /// When to come again to a full relay.
    private static let fullSeconds: UInt32 = 60

    /// Every answer brings a fresh cookie.
    private mutating func stamped(_ ack: BindAck, _ origin: BindOrigin, _ now: Now) -> SignalMessage {
        counters.answered[ack.code, default: 0] += 1
        var ack = ack
        let client = origin.cookie.client
        ack.cookie = Cookie(client: client, server: cookies.make(for: origin.source, clientCookie: client, now: now))
        return SignalMessage(sequence: origin.sequence, .bindAck(ack))
    }

    /// An answer that had to wait.
    private mutating func send(_ ack: BindAck, _ origin: BindOrigin, _ now: Now) {
        append(.send(stamped(ack, origin, now).octets, from: origin.local, to: origin.source))
    }
}

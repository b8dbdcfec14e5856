import MATCore
import MATSignal

// What lies before our own addresses, and the bindings that let others in: asked of the own servers, listed in the record, kept open.

extension NodeCore {
    /// Asks the own servers where they see these addresses, unless they have said so of late.
    mutating func observe(_ moas: [MobileAddress], for hoa: HomeAddress, at servers: [Endpoint], _ now: Now) {
        let relays = ownRelays(of: hoa).flatMap(\.endpoints)
        for question in ownEndpoints.ask(moas, servers: servers, relays: relays, now.monotonic) {
            start(.observe(question), to: [question.server], source: question.moa.address, triesMax: Retransmission.failoverTry, now)
        }
    }

    /// An own server said where it sees an own MoA.
    mutating func observed(_ question: OwnEndpoints.Question, _ ack: BindAck, _ now: Now) {
        guard ack.code == .ok || ack.code == .cookieRequired, let seen = ack.observed else { return observationEnded(question.moa, now) }
        let isRelay = isOwnRelay(question.server)
        if ownEndpoints.observed(question.moa, at: seen, by: question.server, isRelay: isRelay) { endpointChanged(question.moa, now) }
        // What a relay says is not what a record lists.
        if !isRelay { observationEnded(question.moa, now) }
    }

    /// No answer came.
    mutating func observationMissing(_ question: OwnEndpoints.Question, _ now: Now) {
        if ownEndpoints.silent(question) { carryAnew(question.moa, now) }
        if !isOwnRelay(question.server) { observationEnded(question.moa, now) }
    }

    /// Others reach an own MoA in another way than was thought: its record says so, and its peers' packets take other ways.
    mutating func endpointChanged(_ moa: MobileAddress, _ now: Now) {
        for hoa in homesReached(by: moa) {
            if let translation = ownEndpoints.translation(of: moa) {
                log(
                    .notice, "\(moa) is \(translation.text); \(hoa) is reached at \(translation.seen ?? Endpoint(moa.address, port: SignalPort.node))"
                )
            } else {
                log(.info, "nothing stands before \(moa)")
            }
            holdBindings(now)
            // Peers need not wait for the IMS to know of a move.
            if homes[hoa]?.announcement.isOwed == true, desiredLocators(of: hoa).first == moa { tellAtOnce(hoa, moa, now) }
            // What awaits this very answer signs by itself.
            if homes[hoa]?.registration.stage == .updating || homes[hoa]?.registration.isRegistered == true {
                homes[hoa]?.announcement.owe()
                register(hoa, now)
            }
        }
        carryAnew(moa, now)
        probeAnew(now)
    }

    /// How packets leave from an own MoA may be another matter for each peer.
    private mutating func carryAnew(_ moa: MobileAddress, _ now: Now) {
        carryAnew(Set([moa.family] + homesReached(by: moa).map(\.family)), now)
    }

    /// Likewise, of HoAs of these families.
    mutating func carryAnew(_ families: Set<AddressFamily>, _ now: Now) {
        for peer in peers.slots.compactMap({ peers[$0]?.hoa }).filter({ families.contains($0.family) }).sorted() { applyPeer(peer, now) }
    }

    // MARK: Bindings

    /// Holds the bindings that the present addresses need, and no others: at two targets of the IMS, from the first MoA of each HoA if that
    /// is translated or filtered, or not of IPv4 as the HoA, and at relays (section 11.3).
    mutating func holdBindings(_ now: Now) {
        var needed = neededRelays
        records.isTranslated(homes.keys.contains { hoa in desiredLocators(of: hoa).first.map { ownEndpoints[$0].endpoint != nil } ?? false })
        for (hoa, home) in homes {
            // An IMS binds only whom it knows.
            guard home.isKnown || home.registration.stage == .updating, let moa = desiredLocators(of: hoa).first,
                ownEndpoints[moa].endpoint != nil || OtherFamily.needsBinding(hoa, at: moa),
                let servers = home.servers
            else { continue }
            for server in servers.endpoints.filter({ $0.family == moa.family }).prefix(OwnBindings.targetsMax) {
                needed[OwnBindings.Key(hoa: hoa, server: server)] = moa
            }
        }
        perform(bindings.need(needed), now)
    }

    mutating func perform(_ actions: [OwnBindings.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .bind(let key, let moa): start(.bind(key), to: [key.server], source: moa.address, now)
            case .refresh(let key, let moa): start(.refresh(key), to: [key.server], source: moa.address, now)
            case .stop(let key):
                cancel(.bind(key))
                cancel(.refresh(key))
            case .moved(let key, let moa):
                log(.notice, "\(moa) is seen elsewhere by \(key.server) than before: what translates it has changed")
            }
        }
        if let due = bindings.due { deadlines.set(.bindings, at: due) } else { deadlines.cancel(.bindings) }
    }

    /// What a Bind says. Without the server's cookie it gets that first.
    func bindRequest(of key: OwnBindings.Key, to server: Endpoint, _ cookie: Cookie) -> Bind {
        guard let given = Challenge(cookie), let home = homes[key.hoa] else { return .padded(cookie: cookie, .refresh(key.hoa)) }
        let statement = PathStatement(.bind, by: key.hoa, to: server.address, at: server, cookie: given)
        let certificate = home.registration.certificate
        // A relay may have forgotten it, or never had it.
        let isKnownThere = certificate.isAtServer && home.registration.servers.contains(server)
        let reference: CertificateReference = isKnownThere ? .id(certificate.current.id) : .whole(certificate.current)
        guard let signature = statement.signed(with: home.registration.signer.key) else { return .padded(cookie: cookie, .refresh(key.hoa)) }
        return Bind(cookie: cookie, .bind(key.hoa, PathProof(certificate: reference, signature: signature), lifetime: OwnBindings.lifetime))
    }

    /// Our word for where a request comes from, if our record does not list the source that its server sees: a translator whose mapping depends on
    /// the destination shows each another (section 11.3).
    func placeSignature(_ type: MessageType, of hoa: HomeAddress, from own: IPAddress, to server: Endpoint, _ cookie: Cookie) -> Signature? {
        guard let translation = ownEndpoints.translation(of: MobileAddress(own)), translation.seen != nil,
            translation.mapping != .endpointIndependent, let given = Challenge(cookie), let home = homes[hoa]
        else { return nil }
        return PathStatement(type, by: hoa, to: server.address, at: server, cookie: given).signed(with: home.registration.signer.key)
    }

    mutating func bindingAnswered(_ key: OwnBindings.Key, _ ack: BindAck, _ now: Now) {
        let actions = bindings.answered(
            key, ack.code, seen: ack.observed, granted: ack.granted?.lifetime, random: &random, now.monotonic)
        if let role = ack.granted?.role { bindings.granted(role, key) }
        let isRelay = isOwnRelay(key.server)
        // What others' relays see is nobody's word.
        if let seen = ack.observed, let moa = bindings.source(of: key), isRelay || isOwnServer(key.server),
            ownEndpoints.observed(moa, at: seen, by: key.server, isRelay: isRelay)
        {
            endpointChanged(moa, now)
        }
        perform(actions, now)
        relayBindingEnded(key, now)
    }

    /// All tries stayed unanswered.
    mutating func bindingUnanswered(_ key: OwnBindings.Key, _ now: Now) {
        perform(bindings.silent(key, now.monotonic), now)
        relayBindingEnded(key, now)
    }

    private func isOwnServer(_ endpoint: Endpoint) -> Bool { homes.values.contains { $0.registration.servers.contains(endpoint) } }
}

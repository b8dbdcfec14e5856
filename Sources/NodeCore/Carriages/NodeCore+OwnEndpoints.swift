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
        probeFromSeen(now)
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
                ownEndpoints[moa].endpoint != nil || OtherFamily.needsBinding(hoa, at: moa) || isHidden
                    // What stands before an address that a mobile network is reached at by datagrams alone, no check of its IMS tells.
                    || home.isNetwork && !isOpen(moa, for: hoa),
                let servers = home.servers
            else { continue }
            for server in servers.endpoints.filter({ $0.family == moa.family }).prefix(OwnBindings.targetsMax) {
                needed[OwnBindings.Key(hoa: hoa, server: server)] = moa
            }
        }
        perform(bindings.need(needed, now.monotonic), now)
    }

    /// Bindings are to be refreshed. What keeps the ways of peers' IMSs to us open goes along with them: a radio wakes once for all of it.
    mutating func bindingsDue(_ now: Now) {
        let actions = bindings.takeDue(now.monotonic)
        perform(actions, now)
        if actions.contains(where: \.isInTurn) { records.pollTogether(in: &peers, now.monotonic) }
    }

    mutating func perform(_ actions: [OwnBindings.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .bind(let key, let moa):
                cancel(.endBinding(key))
                start(.bind(key), to: [key.server], source: moa.address, now)
            case .refresh(let key, let moa): start(.refresh(key), to: [key.server], source: moa.address, now)
            case .stop(let key):
                cancel(.bind(key))
                cancel(.refresh(key))
            case .end(let key, let holder): endBinding(key, heldFrom: holder, now)
            case .moved(let key, let moa):
                log(.notice, "\(moa) is seen elsewhere by \(key.server) than before: what translates it has changed")
            }
        }
        if let due = bindings.due { deadlines.set(.bindings, at: due) } else { deadlines.cancel(.bindings) }
    }

    /// Tells a server that a HoA is bound there no more; unless it is bound by another of the server's addresses, which that would end.
    private mutating func endBinding(_ key: OwnBindings.Key, heldFrom holder: MobileAddress, _ now: Now) {
        guard homes[key.hoa] != nil, !bindings.servers(of: key.hoa).contains(where: { mayBeSame(key.server, $0, for: key.hoa) }),
            let source = isUsable(holder.address) ? holder : way(to: [key.server])?.moa
        else { return }
        start(.endBinding(key), to: [key.server], source: source.address, triesMax: 2, now)
    }

    /// Whether two addresses may be one server's. Of an own relay it is known which are; those of a peer's relays, and of IMSs, could be.
    private func mayBeSame(_ a: Endpoint, _ b: Endpoint, for hoa: HomeAddress) -> Bool {
        let relays = ownRelays(of: hoa)
        if let relay = relays.first(where: { $0.endpoints.contains(a) }) { return relay.endpoints.contains(b) }
        return isOwnServer(a) == isOwnServer(b) && !relays.contains { $0.endpoints.contains(b) }
    }

    /// The node ends, and nothing of it stays in the kernel: its servers need not hold their bindings until these run out.
    mutating func leaveServers(_ now: Now) { perform(bindings.leaveAll(), now) }

    /// What a Bind says. Without the server's cookie it gets that first.
    ///
    /// - Parameter lifetime: 0 ends the binding.
    func bindRequest(of key: OwnBindings.Key, to server: Endpoint, _ cookie: Cookie, lifetime: UInt32 = OwnBindings.lifetime) -> Bind {
        guard let given = Challenge(cookie), let home = homes[key.hoa] else { return .padded(cookie: cookie, .refresh(key.hoa)) }
        let statement = PathStatement(.bind, by: key.hoa, to: server.address, at: server, cookie: given)
        let certificate = home.registration.certificate
        // A relay may have forgotten it, or never had it.
        let isKnownThere = certificate.isAtServer && home.registration.servers.contains(server)
        let reference: CertificateReference = isKnownThere ? .id(certificate.current.id) : .whole(certificate.current)
        guard let signature = statement.signed(with: home.registration.signer.key) else { return .padded(cookie: cookie, .refresh(key.hoa)) }
        return Bind(cookie: cookie, .bind(key.hoa, PathProof(certificate: reference, signature: signature), lifetime: lifetime))
    }

    /// Our word for where a request comes from, if our record does not list the source that its server sees: a translator whose mapping depends on
    /// the destination shows each another (section 11.3).
    func placeSignature(_ type: MessageType, of hoa: HomeAddress, from own: IPAddress, to server: Endpoint, _ cookie: Cookie) -> Signature? {
        let translation = ownEndpoints.translation(of: MobileAddress(own))
        let isListed = !isHidden && (translation?.seen == nil || translation?.mapping == .endpointIndependent)
        guard !isListed, let given = Challenge(cookie), let home = homes[hoa] else { return nil }
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
        if let moa = bindings.source(of: key), bindings.areSilent(from: moa) { changePort(of: moa, now) }
    }

    /// Nothing comes back to an own MoA. A translator before it may keep the flow as it was before it changed, as long as packets go; another port is
    /// another flow.
    private mutating func changePort(of moa: MobileAddress, _ now: Now) {
        // Of a stand-in the machine knows only what it stands for. And the port is one for all homes that have the address: whose it is speaks for it.
        guard ownEndpoints.translation(of: moa)?.seen != nil, !StandIns.isStandIn(moa.address), !configuration.sharesAddresses,
            let port = localPorts.silent(moa, random: &random, now.monotonic)
        else { return }
        log(.notice, "no server answers \(moa), which is translated: its datagrams leave from port \(port) now")
        emit(.usePort(port, for: moa.address))
        portChanged(of: moa, now)
    }

    /// Its datagrams leave from another port, which others see elsewhere.
    private mutating func portChanged(of moa: MobileAddress, _ now: Now) {
        perform(bindings.retry(from: moa, now.monotonic), now)
        probeAnew(AddressFamily.allCases, now)
    }

    /// Another core has changed the port of an own address that this one shares.
    mutating func portChanged(of own: IPAddress, now: Now) -> [NodeAction] {
        guard configuration.sharesAddresses else { return [] }
        portChanged(of: MobileAddress(own), now)
        return endEvent()
    }

    private func isOwnServer(_ endpoint: Endpoint) -> Bool { homes.values.contains { $0.registration.servers.contains(endpoint) } }
}

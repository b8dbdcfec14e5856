import MATCore
import MATSignal
import MappingMemory

// What machines want, done: by another machine, or by the shell.

extension IMSCore {
    // MARK: Signatures

    /// - Returns: why it is not checked; `nil` if it is.
    mutating func verify(_ job: VerificationJob, for use: VerificationUse, source: IPAddress?, _ now: Now) -> VerificationRefusal? {
        do throws(VerificationRefusal) {
            let times = source.map { registrations.sharedAddresses.budgetTimes(of: $0, binds.table) } ?? 1
            if case .begin(let ticket) = try verifications.wanted(job, for: use, source: source, times: times, now) {
                append(.verify(ticket, job))
            }
            return nil
        } catch {
            return error
        }
    }

    mutating func verified(_ job: VerificationJob, for use: VerificationUse, _ failure: VerificationFailure?, _ now: Now) {
        switch use {
        case .bind(let pending):
            let ended = binds.verified(pending, failure, viewWithoutBindings, now)
            if let news = ended.news { sharing.learned(news) }
            if case .bound(let prefix, _)? = ended.news { follow(prefix, now) }
            return send(ended.reply, now)
        case .notifyPath(let key, let truth): return perform(confirmations.pathVerified(key, truth, failure), now)
        case .ownNotifyPath(let key): return perform(ownNotifies.pathVerified(key, failure, view, now), now)
        case .join(let pending): return perform(joining.verified(pending, failure, viewWithoutLeases, now), now)
        case .update, .notify, .ownNotify, .offer, .truth: break
        }
        // All others are about a record.
        guard let certified = job.certified else { return }
        switch use {
        case .bind, .notifyPath, .ownNotifyPath, .join: break
        case .update(let request):
            switch updates.verified(certified, request, failure, view, now) {
            case .answer(let reply): send(reply, now)
            case .join(let ticket): registrations.join(ticket, request)
            case .write(let write, let served): commit(registrations.begin(write, ofUpdateTo: served, now))
            }
        case .notify(let key): perform(confirmations.verified(key, failure, view), now)
        case .ownNotify(let key): perform(ownNotifies.verified(key, failure, view, now), now)
        case .offer(let request, let isFromIMS):
            let offer = Offer(request: request, certified: certified)
            perform(confirmations.verified(offer, isFromIMS: isFromIMS, failure, view, &random, now), now)
        case .truth(let hoa): perform(confirmations.verified(truth: certified, of: hoa, failure, view, &random, now), now)
        }
    }

    /// There is no time for a check that a notify wants.
    private mutating func unchecked(_ job: VerificationJob, for use: VerificationUse, _ refusal: VerificationRefusal, _ now: Now) {
        switch use {
        // Answered where they came in.
        case .update, .bind, .join: break
        case .notifyPath(let key, _): perform(confirmations.unchecked(key, refusal), now)
        case .ownNotifyPath(let key): perform(ownNotifies.unchecked(key, refusal, view, now), now)
        case .notify(let key): perform(confirmations.unchecked(key, refusal), now)
        case .ownNotify(let key): perform(ownNotifies.unchecked(key, refusal, view, now), now)
        case .offer(let request, _):
            guard let record = job.certified?.record else { break }
            send(Offer.refused(record, request, .tryLater, refusal.reason, lifetime: refusal.seconds), now)
        case .truth(let hoa): perform(confirmations.unchecked(truthOf: hoa, refusal), now)
        }
    }

    // MARK: The store

    @discardableResult
    mutating func commit(_ write: Registrations.Write) -> StoreTicket {
        append(.commit(write.ticket, write.change))
        return write.ticket
    }

    /// The store has answered for a change.
    mutating func written(_ ticket: StoreTicket, _ result: StoreOutcome.Result, _ now: Now) {
        guard let write = registrations.finish(ticket, isDurable: result == .durable, now) else { return }
        var isHeld = true
        switch result {
        case .durable:
            if let mapping = write.mapping { isHeld = hold(mapping, isWrittenHere: true, now) }
            if write.renewed != nil { counted.certificatesRenewed += 1 }
            // What nobody waits for is no node's update, or came by another instance, which tests.
            if configuration.testsReachability, !write.waiting.isEmpty, let mapping = write.mapping {
                check(reachability.registered(mapping, &random, now))
            }
        case .failed(let reason):
            let name = write.mapping.map { " of \($0.record.prefix)" } ?? ""
            if let line = store.failed(name, reason, now) { log(.error, line) } else { counted.logLinesSuppressed += 1 }
        case .outrun(let current): isHeld = hold(current, now)
        case .conflict(let rows): holdRows(rows, isAnyVersion: true, now)
        }
        if result == .durable { account(for: write.rows, now) }
        if let key = write.joins {
            perform(joining.written(key, result, rows: write.rows, viewWithoutLeases, now), now)
            return follow(write.rows, now)
        }
        if result == .durable {
            holdRows(write.rows, now)
            if let mapping = write.mapping { accountForUpdate(of: mapping, now) }
        }
        for reply in Updates.answers(to: write, result, isHeld: isHeld) { send(reply, now) }
    }

    /// A mapping that is durable: held from now on and told to those who want to know, unless a newer one is held.
    ///
    /// - Parameter isWrittenHere: this instance has had it made durable.
    /// - Returns: whether it, or a newer one, is held.
    @discardableResult
    mutating func hold(_ mapping: StoredMapping, isWrittenHere: Bool = false, _ now: Now) -> Bool {
        let isWrittenHere = isWrittenHere || registrations.isBeingWritten(mapping.record.prefix)
        do throws(MemoryRefusal) {
            // What revokes a mapping ends its binding, over which its node is to hear of it.
            let node = mapping.isRevocation ? wayToRevoked(mapping.record.prefix, isWrittenHere: isWrittenHere, now) : nil
            let held = try registrations.hold(mapping, configuration, now)
            isHeld(mapping)
            if let held {
                tell(of: mapping, held, now)
                if let node {
                    perform(pushes.push(mapping.certified, to: node.endpoint, from: node.local, isSubscription: false, &random, now), now)
                }
            }
            return true
        } catch {
            isUnheld(mapping, error, now)
            return false
        }
    }

    /// There is no memory for a mapping that is durable.
    private mutating func isUnheld(_ mapping: StoredMapping, _ refusal: MemoryRefusal, _ now: Now) {
        counted.memoryRefusals += 1
        if let line = unheld.refused(mapping, refusal, now) { log(.error, line) } else { counted.logLinesSuppressed += 1 }
        store.unheld(unheld.count)
    }

    private mutating func isHeld(_ mapping: StoredMapping) {
        guard unheld.count > 0 else { return }
        if let line = unheld.held(mapping.record.prefix, mapping.certified.version) { log(.notice, line) }
        store.unheld(unheld.count)
    }

    /// There may be memory again.
    mutating func retryUnheld(_ now: Now) {
        for mapping in unheld.due(now.monotonic) ?? [] { guard hold(mapping, now) else { break } }
    }

    /// Where the node of a mapping that is about to be revoked is told so: otherwise it would find out when it next registers. Of several
    /// instances, the one where it is bound tells it, else the one that revokes it.
    private func wayToRevoked(_ prefix: IPPrefix, isWrittenHere: Bool, _ now: Now) -> (endpoint: Endpoint, local: IPAddress)? {
        // At a start nobody is told of anything; what was without locators before has no node that would be there.
        guard !store.isLoading, let before = registrations[prefix], !before.record.isWithdrawal, before.isCurrent(now) else { return nil }
        let isBoundHere = binds.table.binding(of: prefix, now.monotonic) != nil
        return isBoundHere || isWrittenHere || !sharing.isShared ? view.way(to: before, now) : nil
    }

    private mutating func tell(of mapping: StoredMapping, _ held: Registrations.OnHeld, _ now: Now) {
        // At a start there is nobody to tell yet.
        guard !store.isLoading else { return }
        for change in held.changes { log(change, now) }
        let prefix = mapping.record.prefix
        remembered.remove(prefix)
        if mapping.record.isWithdrawal { binds.withdrawn(prefix, now) }
        if binds.registered(mapping, now) { sharing.learned(.unbound(prefix)) }
        follow(prefix, now)
        let subscribers = subscriptions.current(of: prefix, now: now.monotonic)
        perform(pushes.changed(mapping, subscribers: subscribers[...], &random, now), now)
        if !ownNotifies.isEmpty { perform(ownNotifies.registered(mapping, view, now), now) }
    }

    mutating func load(_ contents: StoreContents, _ now: Now) {
        contents.mappings.forEach { packed in
            // At a start nobody is to be told of anything, so no value is made of it.
            if store.isLoading, let facts = packed.wellFormed {
                do throws(MemoryRefusal) {
                    try registrations.load(packed, facts, configuration)
                } catch {
                    if let mapping = packed.stored { isUnheld(mapping, error, now) }
                }
            } else if let mapping = packed.stored {
                hold(mapping, now)
            }
        }
        for certificate in contents.issued { registrations.hold(certificate) }
        holdRows(contents.rows, now)
        for name in contents.unreadable { log(.error, "the store holds something unreadable about \(name); it is not served") }
    }

    // MARK: Joining

    mutating func perform(_ actions: [Joining.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .answer(let reply): send(reply, now)
            case .write(let write): commit(registrations.begin(write, now))
            case .authorise(let ticket, let authorisation): append(.authorise(ticket, authorisation))
            case .log(let line): log(.notice, line)
            case .lookUp(let name): append(.lookUp(name))
            case .verify(let job, let pending):
                if let refusal = verify(job, for: .join(pending), source: pending.request.source.address, now) {
                    send(joining.unchecked(pending, refusal), now)
                }
            }
        }
    }

    // MARK: Notifies

    mutating func perform(_ actions: [NotifyAction], _ now: Now) {
        for action in actions {
            switch action {
            case .reply(let reply): send(reply, now)
            case .tell(let peerHoA, let certified): tell(peerHoA, certified, now)
            case .lookUp(let name): append(.lookUp(name))
            case .verify(let job, let use, let source):
                if let refusal = verify(job, for: use, source: source, now) { unchecked(job, for: use, refusal, now) }
            case .ask(let hoa, let peers, let sequence): for peer in peers { ask(hoa, peer, sequence) }
            case .heard(let peer, let cookie):
                servers.heard(from: peer.address)
                servers.learned(cookie, of: KnownServers.Peer(endpoint: peer, local: nil))
            case .remember(let certified, let isConfirmed, let source, let endpoint):
                let record = certified.record
                let before = remembered[record.prefix]?.certified.record.whereabouts ?? []
                let after = record.whereabouts
                if before != after {
                    let change = BindingChange(
                        hoa: record.prefix, reason: .remembered, before: before, after: after, source: endpoint,
                        sequence: record.sequence)
                    log(change, now)
                }
                remembered.set(certified, isConfirmed: isConfirmed, from: source, now: now)
            case .forget(let prefix): remembered.remove(prefix)
            case .log(let line): log(.notice, line)
            case .logRefusal(let line): logRefusal(line, now)
            }
        }
    }

    /// Tells a node of this server's about a correspondent: over its binding, else where its last accepted IMS Update came from, if its record
    /// lists that. Where the binding may be another instance's, that one tells it.
    ///
    /// - Parameter isHandedOver: whether another instance wants it told here.
    private mutating func tell(_ peerHoA: HomeAddress, _ certified: CertifiedMapping, isHandedOver: Bool = false, _ now: Now) {
        guard let peer = registrations.current(covering: peerHoA.address, now), !peer.record.isWithdrawal else { return }
        // Only nodes whose records have endpoints are bound.
        if sharing.isShared, !isHandedOver, peer.record.hasKinds, binds.table.binding(of: peer.record.prefix, now.monotonic) == nil {
            return sharing.learned(.handOver(to: peer.record.prefix, certified))
        }
        guard let way = view.way(to: peer, now) else { return }
        perform(
            pushes.push(certified, to: way.endpoint, from: way.local, isSubscription: false, node: peer.record.prefix, &random, now), now)
    }

    /// An own node has registered or is bound: what it was to be told elsewhere, and has not acked, it is told where it is now.
    private mutating func follow(_ prefix: IPPrefix, _ now: Now) {
        guard pushes.isUnderWay(to: prefix), let node = registrations[prefix], let way = view.way(to: node, now) else { return }
        for certified in pushes.takeBehind(prefix, at: way.endpoint) { tell(HomeAddress(prefix.address), certified, now) }
    }

    private mutating func ask(_ hoa: HomeAddress, _ peer: Endpoint, _ sequence: UInt32) {
        let query = MAQuery(
            cookie: servers.cookie(for: KnownServers.Peer(endpoint: peer, local: nil)), hoa: hoa,
            certID: remembered.entry(covering: hoa)?.certified.certificate.id, subscribe: configuration.limits.subscribeSecondsMax
        )
        send(SignalMessage(sequence: sequence, .maQuery(query)), from: nil, to: peer)
    }

    // MARK: The reachability test

    mutating func check(_ checks: [ReachabilityTests.Check]) {
        for check in checks {
            counted.sent[check.message.type, default: 0] += 1
            append(.check(check.message.octets, to: check.target, avoiding: check.avoided))
        }
    }

    // MARK: Pushes and subscriptions

    mutating func perform(_ actions: [Pushes.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .send(let certified, let key, let sequence):
                let cookie = servers.cookie(for: KnownServers.Peer(endpoint: key.peer, local: key.local))
                let record = EnclosedRecord(mapping: certified.mapping, certificate: .whole(certified.certificate))
                send(
                    SignalMessage(sequence: sequence, .maNotify(MANotify(cookie: cookie, record: record))), from: key.local,
                    to: key.peer)
            case .drop(let key):
                logRefusal("no MA Notify about \(key.prefix) to \(key.peer): too many are waiting for their ack", now)
            case .endSubscription(let key): endSubscription(key.peer, key.prefix)
            case .unanswered(let key, let isSubscription):
                counted.pushesUnanswered += 1
                guard isSubscription else { break }
                endSubscription(key.peer, key.prefix)
                log(
                    .debug,
                    "\(key.peer) did not acknowledge \(Retransmission.triesMax) pushes about \(key.prefix); its subscription ends"
                )
            case .learned(let cookie, let peer): servers.learned(cookie, of: peer)
            case .oddAck(let key, let code, let text):
                log(.debug, "\(key.peer) answered MA Notify about \(key.prefix) with \(code)\(text.map { ": \($0)" } ?? "")")
            }
        }
    }

    /// A subscription was granted or prolonged. Others are told of half as much again as was granted, so that they need not hear of every
    /// renewal and yet never end it before its time.
    mutating func granted(_ endpoint: Endpoint, _ prefix: IPPrefix, _ now: Now) {
        guard sharing.isShared, let told = subscriptions.becomesNews(endpoint, of: prefix, now: now.monotonic) else { return }
        sharing.learned(
            .subscribed(
                SharedSubscription(prefix: prefix, endpoint: endpoint, local: told.local, lasts: told.until - now.monotonic)))
    }

    /// What is no longer held is another instance's, which finds out by itself whether the subscriber answers.
    private mutating func endSubscription(_ endpoint: Endpoint, _ prefix: IPPrefix) {
        if subscriptions.remove(endpoint, from: prefix) != nil { sharing.learned(.unsubscribed(prefix, endpoint)) }
    }

    // MARK: Other instances

    /// What another instance has told, or which subscriptions are this one's to serve.
    mutating func shared(_ item: SharedNews, _ now: Now) {
        switch item {
        case .remembered(let certified, let isConfirmed):
            guard configuration.served(covering: certified.record.prefix) == nil else { break }
            remembered.shared(certified, isConfirmed: isConfirmed, now)
        case .serve(let subscription, let isBehind): serve(subscription, isBehind: isBehind, now)
        case .leave(let prefix, let endpoint):
            guard let left = subscriptions.remove(endpoint, from: prefix) else { break }
            pushes.left(PushKey(peer: endpoint, local: left.local, prefix: prefix))
        case .handedOver(let prefix, let certified): tell(HomeAddress(prefix.address), certified, isHandedOver: true, now)
        // Said by a core, never to it.
        case .subscribed, .unsubscribed, .bound, .unbound, .handOver: break
        }
    }

    private mutating func serve(_ shared: SharedSubscription, isBehind: Bool, _ now: Now) {
        guard let subscriber = SubscriptionTable.Subscriber(shared, configuration.limits, now) else { return }
        guard subscriptions.add(subscriber, to: shared.prefix, now: now.monotonic, isGranted: true) else {
            logRefusal("can't serve the subscription of \(shared.endpoint) to \(shared.prefix): the table is full", now)
            return
        }
        guard isBehind, let mapping = registrations[shared.prefix], mapping.source != shared.endpoint else { return }
        perform(
            pushes.push(mapping.certified, to: shared.endpoint, from: shared.local, isSubscription: true, &random, now), now)
    }

    // MARK: Logs

    /// What others put into their messages reaches the log as one line of visible characters.
    mutating func log(_ level: IMSLogLevel, _ message: String) { append(.log(level, message.printable)) }

    /// Says what was refused to whom and why, unless there is a flood of such lines.
    mutating func logRefusal(_ what: @autoclosure () -> String, _ now: Now) {
        switch refusalLog.line(now.monotonic) {
        case .suppress: counted.logLinesSuppressed += 1
        case .write(let suppressed):
            if suppressed > 0 { log(.warning, "\(suppressed) more refusals were not logged, because there were too many") }
            log(.notice, what())
        }
    }

    /// Counts a change of a mapping, and has it logged unless there are too many.
    mutating func log(_ change: BindingChange, _ now: Now) {
        counted.bindingChanges[change.reason, default: 0] += 1
        if change.reason != .refreshed { recentChanges.add(RecentChange(change: change, atMilliseconds: now.wallMilliseconds)) }
        switch bindingLogs.changed(change.level, now.monotonic) {
        case .suppress: counted.logLinesSuppressed += 1
        case .write(let suppressed):
            if suppressed > 0 {
                log(change.level, "\(suppressed) more changes of mappings were not logged, because there were too many")
            }
            append(.bindingChanged(change))
        }
    }
}

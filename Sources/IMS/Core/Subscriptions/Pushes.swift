import MATCore
import MATSignal
import MappingMemory

// MA Notify that this server sends: to subscribers of a changed mapping, and to nodes of its own about their correspondents.

/// One receiver is told of one HoA at a time; a newer record takes the place of the one on its way.
struct PushKey: Hashable, Sendable {
    var peer: Endpoint
    var local: IPAddress
    var prefix: IPPrefix
}

struct Push: Sendable {
    var certified: CertifiedMapping
    var sequence: UInt32
    var retransmission: Retransmission
    /// Code 9 answers followed; a receiver that wants a third cookie is not served.
    var cookiesFollowed = 0
    /// Whether it is owed to a subscription, which ends if nobody acks.
    var isSubscription: Bool
}

extension IMSCore {
    /// Code 9 answers followed per exchange (section 2).
    static let cookiesFollowedMax = 2

    /// Pushes sent at once; the rest of a popular HoA's subscribers come after a pause, in which others get their answers.
    static let pushesPerTurnMax = 256
    static let pushPause: Duration = .milliseconds(1)

    mutating func pushToSubscribers(of mapping: StoredMapping, _ now: Now) {
        pushOn(mapping, subscriptions.current(of: mapping.record.prefix, now: now.monotonic)[...], now)
    }

    private mutating func pushOn(_ mapping: StoredMapping, _ subscribers: ArraySlice<SubscriptionTable.Subscriber>, _ now: Now) {
        for subscriber in subscribers.prefix(Self.pushesPerTurnMax) where subscriber.endpoint != mapping.source {
            push(mapping.certified, to: subscriber.endpoint, from: subscriber.local, isSubscription: true, now)
        }
        let prefix = mapping.record.prefix
        let rest = subscribers.dropFirst(Self.pushesPerTurnMax)
        // A newer record begins again with all of them, and takes the place of this one in the list of who is still to be told.
        subscribersToTell[prefix] = rest.isEmpty ? nil : rest
        if rest.isEmpty { deadlines.cancel(.pushOn(prefix)) } else { deadlines.set(.pushOn(prefix), at: now.monotonic + Self.pushPause) }
    }

    /// The pause after a part of a mapping's pushes is over.
    mutating func pushOnIsDue(_ prefix: IPPrefix, _ now: Now) {
        guard let rest = subscribersToTell.removeValue(forKey: prefix), let mapping = mappings[prefix] else { return }
        pushOn(mapping, rest, now)
    }

    /// Tells the node whose last accepted IMS Update this is about a correspondent.
    mutating func push(_ certified: CertifiedMapping, toNodeOf own: StoredMapping, _ now: Now) {
        push(certified, to: own.source, from: own.local, isSubscription: false, now)
    }

    mutating func push(_ certified: CertifiedMapping, to peer: Endpoint, from local: IPAddress, isSubscription: Bool, _ now: Now) {
        let key = PushKey(peer: peer, local: local, prefix: certified.record.prefix)
        var owed = isSubscription
        if let earlier = pushes[key] {
            owed = owed || earlier.isSubscription
            if earlier.certified == certified {
                // It is on its way; its retransmissions go on.
                pushes[key]?.isSubscription = owed
                return
            }
            pushes[key] = nil
            pushKeys[earlier.sequence] = nil
        }
        guard pushes.count < configuration.limits.pushesMax else {
            logRefusal("no MA Notify about \(certified.record.prefix) to \(peer): too many are waiting for their ack", now)
            return
        }
        let sequence = unusedSequence()
        pushes[key] = Push(
            certified: certified, sequence: sequence, retransmission: Retransmission(type: .maNotify, now: now.monotonic),
            isSubscription: owed)
        pushKeys[sequence] = key
        transmit(key, now)
    }

    /// Sequence numbers are random; one in use is not drawn again.
    mutating func unusedSequence() -> UInt32 {
        while true {
            let sequence = randomSequence()
            if pushKeys[sequence] == nil, confirmationKeys[sequence] == nil { return sequence }
        }
    }

    private mutating func transmit(_ key: PushKey, _ now: Now) {
        guard var push = pushes[key] else { return }
        push.retransmission.tried(at: now.monotonic)
        pushes[key] = push
        deadlines.set(.push(key), at: push.retransmission.due)
        sendOnce(push, key)
    }

    private mutating func sendOnce(_ push: Push, _ key: PushKey) {
        let cookie = ownCookie(for: CookiePeer(peer: key.peer, local: key.local))
        let record = EnclosedRecord(mapping: push.certified.mapping, certificate: .whole(push.certified.certificate))
        send(SignalMessage(sequence: push.sequence, .maNotify(MANotify(cookie: cookie, record: record))), from: key.local, to: key.peer)
    }

    mutating func pushIsDue(_ key: PushKey, _ now: Now) {
        guard let push = pushes[key] else { return }
        guard push.retransmission.isExhausted else { return transmit(key, now) }
        counters.pushesUnanswered += 1
        endPush(key)
        if push.isSubscription {
            endSubscription(key.peer, to: key.prefix)
            log(.debug, "\(key.peer) did not acknowledge \(Retransmission.triesMax) pushes about \(key.prefix); its subscription ends")
        }
    }

    private mutating func endPush(_ key: PushKey) {
        guard let push = pushes.removeValue(forKey: key) else { return }
        pushKeys[push.sequence] = nil
        deadlines.cancel(.push(key))
    }

    /// - Returns: whether it belongs to a push of ours.
    mutating func take(_ ack: MANotifyAck, _ sequence: UInt32, _ source: Endpoint, _ local: IPAddress, _ now: Now) -> Bool {
        guard let key = pushKeys[sequence], var push = pushes[key], key.peer == source else { return false }
        let peer = CookiePeer(peer: key.peer, local: key.local)
        guard ack.cookie.client == ownCookie(for: peer).client else { return false }
        if let hoa = ack.hoa, !push.certified.record.prefix.contains(hoa.address) { return false }
        remember(ack.cookie.server, of: peer)
        switch ack.code {
        case .cookieRequired where ack.cookie.server != nil && push.cookiesFollowed < Self.cookiesFollowedMax:
            push.cookiesFollowed += 1
            pushes[key] = push
            sendOnce(push, key)
        case .notFound, .notAuthoritative, .refused:
            // It does not want to know (any more).
            endPush(key)
            endSubscription(key.peer, to: key.prefix)
        case .tryLater:
            // The retransmission that is due anyway comes late enough.
            break
        default:
            endPush(key)
            if ack.code != .ok, ack.code != .stale {
                log(.debug, "\(source) answered MA Notify about \(key.prefix) with \(ack.code)\(ack.text.map { ": \($0)" } ?? "")")
            }
        }
        return true
    }
}

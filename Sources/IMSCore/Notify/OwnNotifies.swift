import MATCore
import MATSignal
import MappingMemory

/// HA Notifies of nodes that are registered here themselves: IMS_MN is this server, so its table is the truth, except that the update may
/// still be on its way, since a node sends both at once.
///
/// ```
///                    the registration lists the source, or it is bound or signed (section 11.3) ─► accepted: ack, and the correspondent's node is told
///   notified ─► settle ─ a newer record is enclosed ─► verify ─ ... ─ verified ─► remembered as a hint, accepted, its correspondent told
///                 ▲  └─ its update is being written ─► waits
///                 │  └─ neither ─► code 8
///   registered ───┘        3 s without that update ─► those who wait get code 8; the hint is forgotten, those who were told it get the
///                                                    registered record
/// ```
struct OwnNotifies: Sendable {
    /// All that waits for one HoA's registration.
    private struct Announcement: Sendable {
        let started: MonotonicTime
        var waiting: [NotifyKey] = []
        /// The correspondents whose nodes were told a record that is not registered yet.
        var told: Set<HomeAddress> = []
    }

    private var announcements: [HomeAddress: Announcement] = [:]
    private var notifies: [NotifyKey: PendingNotify] = [:]
    private var deadlines = DeadlineQueue<HomeAddress>()

    /// How long a HA Notify may be ahead of the IMS Update that it belongs to.
    static let updateDelayMax: Duration = .seconds(3)
    /// More are not corrected if the record turns out wrong; their nodes find out by themselves.
    static let toldMax = 256

    /// Notifies that are being worked on.
    var count: Int { notifies.count }
    var isEmpty: Bool { announcements.isEmpty }
    func isWorking(on key: NotifyKey) -> Bool { notifies[key] != nil }

    // MARK: Events

    mutating func notified(_ pending: PendingNotify, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        notifies[pending.key] = pending
        announcements[pending.key.hoa, default: Announcement(started: now.monotonic)].waiting.append(pending.key)
        return settle(pending.key.hoa, server, now)
    }

    /// The signature of what was enclosed has been checked. Its update may have been stored before, which settled it.
    mutating func verified(_ key: NotifyKey, _ failure: VerificationFailure?, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        guard let enclosed = notifies[key]?.record else { return [] }
        notifies[key]?.checkEnds()
        var actions: [NotifyAction] = []
        let stored = server.registrations.current(covering: key.hoa.address, now)?.certified
        if let failure {
            actions += refuse(key, .authenticationFailed, failure.reason)
        } else if stored.map({ $0.version < enclosed.version }) ?? true {
            actions.append(.remember(enclosed, isConfirmed: false, from: key.source.address, by: key.source))
            if let count = announcements[key.hoa]?.told.count, count < Self.toldMax {
                announcements[key.hoa]?.told.insert(key.peerHoA)
            }
            actions += accept(key, enclosed)
        }
        return actions + settle(key.hoa, server, now)
    }

    /// The signature of the way that it came has been checked.
    mutating func pathVerified(_ key: NotifyKey, _ failure: VerificationFailure?, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        guard notifies[key] != nil else { return [] }
        notifies[key]?.sourceCheckEnds()
        let refused = failure.map { refuse(key, .authenticationFailed, $0.reason) } ?? []
        return refused + settle(key.hoa, server, now)
    }

    /// There is no time to check the signature of what was enclosed.
    mutating func unchecked(_ key: NotifyKey, _ refusal: VerificationRefusal, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        refuse(key, .tryLater, refusal.reason, lifetime: refusal.seconds) + settle(key.hoa, server, now)
    }

    /// A registration has become durable: what waited for it is settled.
    mutating func registered(_ mapping: StoredMapping, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        let prefix = mapping.record.prefix
        let hoas =
            prefix.length == 128
            ? [HomeAddress(prefix.address)] : announcements.keys.filter { prefix.contains($0.address) }.sorted()
        var actions: [NotifyAction] = []
        for hoa in hoas where announcements[hoa] != nil {
            announcements[hoa]?.told = []
            actions += settle(hoa, server, now)
        }
        return actions
    }

    // MARK: Time

    var nextDeadline: MonotonicTime? { mutating get { deadlines.next } }

    /// - Returns: `nil` if nothing is due.
    mutating func due(_ server: ServerView, _ now: Now) -> [NotifyAction]? {
        deadlines.takeDue(now.monotonic).map { giveUp($0, server, now) }
    }

    // MARK: What becomes of them

    private mutating func settle(_ hoa: HomeAddress, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        guard var announcement = announcements[hoa] else { return [] }
        var actions: [NotifyAction] = []
        let registrations = server.registrations
        let stored = registrations.current(covering: hoa.address, now)?.certified
        let isBeingWritten = registrations.isBeingWritten(stored?.record.prefix ?? IPPrefix(hoa.address))
        for key in announcement.waiting {
            guard let pending = notifies[key] else { continue }
            if let enclosed = pending.record, stored.map({ $0.version < enclosed.version }) ?? true {
                if pending.isBeingChecked { continue }
                if let newest = registrations.certificates[enclosed.record.prefix],
                    enclosed.certificate.notBefore < newest.notBefore
                {
                    actions += refuse(key, .authenticationFailed, registrations.supersededReason(newest))
                    continue
                }
                let job = VerificationJob(enclosed, with: pending.claim, issuers: server.issuersToCheck(enclosed.certificate))
                notifies[key]?.checkBegins()
                actions.append(.verify(job, .ownNotify(key), source: key.source.address))
            } else if let stored, stored.record.listsSource(key.source) || pending.isSourceProven {
                actions += accept(key, stored)
            } else if pending.isSourceBeingChecked {
                continue
            } else if let stored, let claim = pending.claim {
                notifies[key]?.sourceCheckBegins()
                let job = VerificationJob(claim, by: stored.certificate, issuers: nil)
                actions.append(.verify(job, .ownNotifyPath(key), source: key.source.address))
            } else if !isBeingWritten {
                actions += refuse(
                    key, .upstreamFailed,
                    stored == nil
                        ? "\(hoa) is not registered here" : "the registered record does not list the source \(key.source)"
                )
            }
        }
        announcement.waiting.removeAll { notifies[$0] == nil }
        guard !announcement.waiting.isEmpty || !announcement.told.isEmpty else {
            announcements[hoa] = nil
            deadlines.cancel(hoa)
            return actions
        }
        announcements[hoa] = announcement
        deadlines.set(hoa, at: announcement.started + Self.updateDelayMax)
        return actions
    }

    /// The update that a notifier's record promised has not come: those who were told it get the registered one.
    private mutating func giveUp(_ hoa: HomeAddress, _ server: ServerView, _ now: Now) -> [NotifyAction] {
        guard let announcement = announcements.removeValue(forKey: hoa) else { return [] }
        var actions: [NotifyAction] = []
        for key in announcement.waiting {
            actions += refuse(key, .upstreamFailed, "\(hoa) has no registration that lists \(key.source)")
        }
        guard !announcement.told.isEmpty, let hint = server.remembered.entry(covering: hoa), !hint.isConfirmed else {
            return actions
        }
        actions.append(.forget(hint.certified.record.prefix))
        actions.append(.log("\(hoa) announced a record that it did not register; it is forgotten"))
        guard let stored = server.registrations.current(covering: hoa.address, now) else { return actions }
        return actions + announcement.told.sorted().map { .tell($0, stored.certified) }
    }

    private mutating func accept(_ key: NotifyKey, _ certified: CertifiedMapping) -> [NotifyAction] {
        notifies.removeValue(forKey: key).map { [.reply($0.accepted), .tell(key.peerHoA, certified)] } ?? []
    }

    private mutating func refuse(_ key: NotifyKey, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil)
        -> [NotifyAction]
    {
        notifies.removeValue(forKey: key).map { [.reply($0.refused(code, reason, lifetime: lifetime))] } ?? []
    }
}

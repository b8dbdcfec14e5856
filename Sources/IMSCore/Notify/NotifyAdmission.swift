import MATCore
import MATSignal

/// Which notifies are worked on: what costs little to find out, in the order of section 2.
///
/// ```
///   HA Notify ─► rate of the source, of PEER-HOA ─► room ─► authority ─► the store is read ─► PEER-HOA registered? ─► record ─► taken
///                            7 │                     7 │         5 │              7 │                    3 │       4, 8, 9 │
///   MA Notify ─► not of a node here ─► remembered? ─► certificate, times, names ─► newer than what is remembered? ─► taken
///                        2 │               3 │                 4 │                           0, 6 │
/// ```
/// The numbers are the codes of the answers to what is not.
struct NotifyAdmission: Sendable {
    private var sourceRates: RateTable<IPPrefix>
    private var peerRates: RateTable<HomeAddress>

    enum OnHANotify: Sendable {
        case answer(Reply)
        /// To be worked on. `isOwn`: the notifier's HoA is served here too.
        case take(PendingNotify, isOwn: Bool)
    }

    enum OnMANotify: Sendable {
        case answer(Reply)
        /// The record is newer than what is remembered; whether it is signed is still to be checked.
        case take(CertifiedMapping)
    }

    init(_ limits: IMSLimits) {
        sourceRates = RateTable(perSecond: limits.notifiesPerSecond, keysMax: limits.ratesMax)
        peerRates = RateTable(perSecond: limits.notifiesPerSecond, keysMax: limits.ratesMax)
    }

    mutating func reconfigure(_ limits: IMSLimits) {
        sourceRates.reconfigure(perSecond: limits.notifiesPerSecond, keysMax: limits.ratesMax)
        peerRates.reconfigure(perSecond: limits.notifiesPerSecond, keysMax: limits.ratesMax)
    }

    var ratesCount: Int { sourceRates.count + peerRates.count }

    mutating func sweep(_ now: MonotonicTime) {
        sourceRates.sweep(now)
        peerRates.sweep(now)
    }

    // MARK: HA Notify: this server as IMS_CN (section 7, paper 4.2 and 4.3)

    /// - Parameter pendingCount: notifies that are being worked on.
    mutating func received(_ notify: HANotify, _ request: Request, pendingCount: Int, _ server: ServerView, _ now: Now)
        -> OnHANotify
    {
        let key = NotifyKey(source: request.source, sequence: request.sequence, hoa: notify.hoa, peerHoA: notify.peerHoA)
        var pending = PendingNotify(key: key, request: request)
        if let answer = refusal(of: pending, pendingCount, server, now) { return .answer(answer) }
        if server.isBound(notify.hoa, at: request.source, now) {
            pending.source = .proven
        } else if let signature = notify.signature {
            guard request.isFresh, let cookie = request.serverCookie else {
                return .answer(Reply(.haNotifyAck(HANotifyAck(code: .cookieRequired, cookie: request.cookie, hoa: nil)), to: request))
            }
            pending.source = .claimed(server.claim(signature, of: notify.hoa, request, cookie))
        }
        if let enclosed = notify.record {
            do throws(VerificationFailure) {
                if let certified = try Self.certify(enclosed, notify.hoa, server, now) {
                    pending.enclosed = .unchecked(certified)
                }
            } catch {
                return .answer(pending.refused(.authenticationFailed, error.reason))
            }
            if let record = pending.record?.record {
                if record.listsSource(request.source) {
                    // Nothing else need speak for the source.
                    pending.source = .unproven
                } else if !pending.isSourceProven, pending.claim == nil {
                    return .answer(
                        pending.refused(.upstreamFailed, "the enclosed record does not list the source \(request.source)"))
                }
            }
        }
        return .take(pending, isOwn: server.configuration.served(covering: notify.hoa.address) != nil)
    }

    private mutating func refusal(of pending: PendingNotify, _ pendingCount: Int, _ server: ServerView, _ now: Now) -> Reply? {
        let (peerHoA, limits) = (pending.key.peerHoA, server.limits)
        let (source, times) = (pending.request.source.address, server.budgetTimes(of: pending.request.source.address))
        guard sourceRates.take(source.sourceKey, at: now.monotonic, times: times) else {
            return pending.refused(.tryLater, "more than \(limits.notifiesPerSecond * times) a second from this source", lifetime: 1)
        }
        guard peerRates.take(peerHoA, at: now.monotonic) else {
            return pending.refused(.tryLater, "more than \(limits.notifiesPerSecond) a second for this PEER-HOA", lifetime: 1)
        }
        guard pendingCount < limits.notifiesPendingMax else {
            return pending.refused(.tryLater, "\(pendingCount) are being worked on", lifetime: 1)
        }
        guard server.configuration.served(covering: peerHoA.address) != nil else {
            return pending.refused(.notAuthoritative, "no prefix served here covers PEER-HOA \(peerHoA)")
        }
        if server.store.isIncomplete {
            return pending.refused(.tryLater, server.store.unknown.text, lifetime: server.store.unknown.seconds)
        }
        guard let peer = server.registrations.current(covering: peerHoA.address, now), !peer.record.isWithdrawal else {
            return pending.refused(.notFound, "nothing is registered for PEER-HOA \(peerHoA)", lifetime: limits.notFoundSeconds)
        }
        return nil
    }

    /// The enclosed record with its certificate; `nil` if a newer record of the HoA is known, because then IMS_MN must decide.
    private static func certify(
        _ enclosed: EnclosedRecord, _ hoa: HomeAddress, _ server: ServerView, _ now: Now
    ) throws(VerificationFailure) -> CertifiedMapping? {
        var found = server.registrations.certificate(named: enclosed)
        if found == nil, case .id(let id) = enclosed.certificate { found = server.remembered.certificate(id, of: hoa) }
        guard let certificate = found else { throw VerificationFailure("CERT-ID is unknown here; repeat with CERTIFICATE") }
        let certified = CertifiedMapping(mapping: enclosed.mapping, certificate: certificate)
        try certified.checkTimesAndNames(asked: hoa, now: now)
        if let held = server.remembered.entry(covering: hoa), held.isConfirmed, held.certified.version > certified.version {
            return nil
        }
        return certified
    }

    // MARK: MA Notify: news of an HoA that is remembered here, from its IMS or from anyone who holds the signed record

    func received(_ notify: MANotify, _ request: Request, _ server: ServerView, _ now: Now) -> OnMANotify {
        let record = notify.record.mapping.record
        func refuse(_ code: ResponseCode, _ reason: String) -> OnMANotify {
            .answer(Offer.refused(record, request, code, reason))
        }

        guard server.configuration.served(covering: record.prefix) == nil else {
            return refuse(.refused, "nodes of this server register by IMS Update only")
        }
        guard let held = server.remembered[record.prefix] else {
            return refuse(.notFound, "no mapping of \(record.prefix) is remembered here")
        }
        let certificate: Certificate
        switch notify.record.certificate {
        case .whole(let whole): certificate = whole
        case .id(let id) where held.certified.certificate.id == id: certificate = held.certified.certificate
        case .id: return refuse(.authenticationFailed, "CERT-ID is unknown here; repeat with CERTIFICATE")
        }
        let certified = CertifiedMapping(mapping: notify.record.mapping, certificate: certificate)
        do throws(VerificationFailure) {
            try certified.checkTimesAndNames(asked: nil, now: now)
        } catch {
            return refuse(.authenticationFailed, error.reason)
        }
        if certified == held.certified { return .answer(Offer.acked(record.hoa, request, .ok)) }
        guard certified.version > held.certified.version else {
            return .answer(
                Offer.acked(record.hoa, request, .stale, current: held.certified.mapping, text: "a newer record is held"))
        }
        return .take(certified)
    }
}

/// A record that came by MA Notify.
struct Offer: Sendable {
    var request: Request
    var certified: CertifiedMapping

    /// Whether it comes from the IMS that serves its HoA.
    func isFrom(_ set: IMSSet) -> Bool { set.servers.contains { $0.endpoints.contains(request.source) } }

    static func acked(
        _ hoa: HomeAddress, _ request: Request, _ code: ResponseCode, current: SignedMapping? = nil, lifetime: UInt32? = nil,
        text: String? = nil
    ) -> Reply {
        let ack = MANotifyAck(code: code, cookie: request.cookie, hoa: hoa, current: current, lifetime: lifetime, text: text)
        return Reply(.maNotifyAck(ack), to: request)
    }

    static func refused(
        _ record: MappingRecord, _ request: Request, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil
    ) -> Reply {
        var reply = acked(record.hoa, request, code, lifetime: lifetime, text: reason)
        reply.refusal = Refusal(subject: .maNotify(record.prefix), source: request.source, code: code, reason: reason)
        return reply
    }
}

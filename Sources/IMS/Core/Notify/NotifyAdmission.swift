import MATCore
import MATDNS
import MATSignal

// MA Notify that comes in: news of an HoA that is remembered here, from its IMS or from anyone who holds the signed record.

extension IMSCore {
    mutating func handle(_ notify: MANotify, _ request: Request, _ now: Now) -> Answer {
        let record = notify.record.mapping.record
        guard configuration.served(covering: record.prefix) == nil else {
            return refuse(record, request, .refused, "nodes of this server register by IMS Update only", now)
        }
        guard let held = remembered[record.prefix] else {
            return refuse(record, request, .notFound, "no mapping of \(record.prefix) is remembered here", now)
        }
        let certificate: Certificate
        switch notify.record.certificate {
        case .whole(let whole): certificate = whole
        case .id(let id) where held.certified.certificate.id == id: certificate = held.certified.certificate
        case .id: return refuse(record, request, .authenticationFailed, "CERT-ID is unknown here; repeat with CERTIFICATE", now)
        }
        let certified = CertifiedMapping(mapping: notify.record.mapping, certificate: certificate)
        do throws(VerificationFailure) {
            try certified.checkTimesAndNames(asked: nil, now: now)
        } catch {
            return refuse(record, request, .authenticationFailed, error.reason, now)
        }
        if certified == held.certified { return .now(ack(request, record.hoa, .ok, now)) }
        guard certified.version > held.certified.version else {
            return .now(ack(request, record.hoa, .stale, current: held.certified.mapping, text: "a newer record is held", now))
        }
        var confirmation = confirmations[record.hoa] ?? Confirmation(hoa: record.hoa, isOwn: false, now: now.monotonic)
        guard confirmation.offered.count < Confirmation.offeredMax else { return .later }
        confirmation.offered.append((request, certified))
        confirmations[record.hoa] = confirmation
        advanceOffer(record.hoa, now)
        return .later
    }

    /// Like `advance`, but an offer from IMS_MN itself needs no question to it.
    private mutating func advanceOffer(_ hoa: HomeAddress, _ now: Now) {
        if let confirmation = confirmations[hoa], confirmation.query == nil, confirmation.waiting.isEmpty,
            case .found(let set)? = lookUp(IPPrefix(hoa.address), for: hoa, now),
            confirmation.offered.allSatisfy({ offer in set.servers.contains { $0.endpoints.contains(offer.request.source) } })
        {
            verifyOffered(hoa, set, now)
            if confirmations[hoa]?.offered.isEmpty == true { endConfirmation(hoa) }
            return
        }
        advance(hoa, now)
    }

    mutating func verifyOffered(_ hoa: HomeAddress, _ set: IMSSet, _ now: Now) {
        guard let offered = confirmations[hoa]?.offered else { return }
        var left: [(request: Request, certified: CertifiedMapping)] = []
        for offer in offered {
            guard let keys = keys(for: offer.certified.certificate, of: hoa, now) else {
                left.append(offer)
                continue
            }
            let source = offer.request.source
            switch keys {
            case .failure(let failure): settle(offer.request, offer.certified.record, .authenticationFailed, failure.reason, now)
            case .success(let keys):
                do throws(VerificationRefusal) {
                    let isFromIMS = set.servers.contains { $0.endpoints.contains(source) }
                    let job = VerificationJob(offer.certified, issuers: keys)
                    try verify(job, for: .offer(offer.request, isFromIMS: isFromIMS), source: source.address, now)
                } catch {
                    settle(offer.request, offer.certified.record, .tryLater, error.reason, lifetime: error.seconds, now)
                }
            }
        }
        confirmations[hoa]?.offered = left
    }

    /// The signature of what came by MA Notify has been checked.
    mutating func finishOffer(_ certified: CertifiedMapping, _ request: Request, isFromIMS: Bool, _ failure: VerificationFailure?, _ now: Now) {
        let record = certified.record
        if let failure { return settle(request, record, .authenticationFailed, failure.reason, now) }
        if remembered[record.prefix].map({ $0.certified.version < certified.version }) ?? true {
            noteRemembered(certified, from: request.source, now)
            remembered.set(certified, isConfirmed: isFromIMS, from: request.source.address, now: now)
            // IMS_MN's answer may have come before the check ended: it is asked about this record too.
            if !isFromIMS, confirmations[record.hoa] == nil {
                confirmations[record.hoa] = Confirmation(hoa: record.hoa, isOwn: false, now: now.monotonic)
                advance(record.hoa, now)
            }
        }
        acknowledge(request, record.hoa, .ok, now)
    }

    private mutating func settle(
        _ request: Request, _ record: MappingRecord, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil, _ now: Now
    ) {
        guard case .now(let body) = refuse(record, request, code, reason, lifetime: lifetime, now) else { return }
        reply(body, to: request)
    }

    mutating func acknowledge(_ request: Request, _ hoa: HomeAddress, _ code: ResponseCode, text: String? = nil, _ now: Now) {
        reply(ack(request, hoa, code, text: text, now), to: request)
    }

    private func ack(
        _ request: Request, _ hoa: HomeAddress, _ code: ResponseCode, current: SignedMapping? = nil, lifetime: UInt32? = nil,
        text: String? = nil,
        _ now: Now
    ) -> SignalMessage.Body {
        .maNotifyAck(MANotifyAck(code: code, cookie: freshCookie(request, now), hoa: hoa, current: current, lifetime: lifetime, text: text))
    }

    private mutating func refuse(
        _ record: MappingRecord, _ request: Request, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil, _ now: Now
    ) -> Answer {
        logRefusal("refused MA Notify about \(record.prefix) from \(request.source): \(code) (\(reason))", now)
        return .now(ack(request, record.hoa, code, lifetime: lifetime, text: reason, now))
    }
}

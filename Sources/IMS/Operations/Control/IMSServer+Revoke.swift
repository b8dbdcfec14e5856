import IMSCore
import MATControl
import MATRuntime
import MATSignal

// Revocation at the operator's word.

extension IMSServer {
    /// HoAs revoked by one request.
    static let revocationsMax = 256
    /// HoAs looked at by one request.
    static let revocationsLookedAtMax = 4096

    /// The answer comes when all of it is durable, and then pushes are on their way.
    func revoke(_ request: RevokeRequest<JSONValue>, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        var next: IPPrefix?
        let prefixes: [IPPrefix]
        if let prefix = try Self.prefix(request.prefix, "prefix") {
            prefixes = [prefix]
        } else if let text = request.certificate {
            guard let number = UInt64(text, radix: 16), text.count == 16 else {
                throw ControlError("\"certificate\" must be the 16 hexadecimal digits that `mat ims show` prints")
            }
            guard let prefix = core.prefix(certifiedBy: CertificateID(rawValue: number)) else {
                throw ControlError("no home address has a certificate \(text) as its newest; older ones are refused already")
            }
            prefixes = [prefix]
        } else if let before = request.beforeMilliseconds ?? request.wouldBeforeMilliseconds {
            (prefixes, next) = certified(
                before: before, within: try Self.prefix(request.within, "within"), after: try Self.prefix(request.after, "after"))
            guard request.beforeMilliseconds != nil else {
                return respond(.result(RevocationReport(revoked: prefixes.map(\.shortText), next: next.map { "\($0)" })))
            }
        } else {
            throw ControlError("give \"prefix\", \"certificate\", \"before\" or \"wouldBefore\"")
        }
        var tombstone: CertifiedMapping?
        if let value = request.tombstone { tombstone = try Self.tombstone(value) }
        try revoke(prefixes, isUnknownAllowed: request.unknown ?? false, tombstone, next, respond)
    }

    private static func tombstone(_ value: JSONValue) throws(ControlError) -> CertifiedMapping {
        do throws(TransferError) {
            if case .mapping(let mapping) = try TransferLine(json: value) { return mapping.certified }
            throw TransferError("it is no mapping")
        } catch {
            throw ControlError("\"tombstone\": \(error)")
        }
    }

    /// HoAs whose newest certificate was issued before the time, and which are not revoked.
    private func certified(before: UInt64, within: IPPrefix?, after: IPPrefix?) -> (prefixes: [IPPrefix], next: IPPrefix?) {
        let page = core.issued.page(after: after, count: Self.revocationsLookedAtMax)
        var prefixes: [IPPrefix] = []
        for certificate in page where certificate.notBefore < before && within.map({ $0.contains(certificate.prefix) }) ?? true {
            if let held = core.mappings[certificate.prefix], held.isRevocation, held.certified.certificate == certificate { continue }
            prefixes.append(certificate.prefix)
            if prefixes.count == Self.revocationsMax { return (prefixes, certificate.prefix) }
        }
        return (prefixes, page.count < Self.revocationsLookedAtMax ? nil : page.last?.prefix)
    }

    private func revoke(
        _ prefixes: [IPPrefix], isUnknownAllowed: Bool, _ tombstone: CertifiedMapping?, _ next: IPPrefix?,
        _ respond: @escaping (ControlResponse) -> Void
    ) throws(ControlError) {
        let now = SystemClock.now()
        var (tickets, revoked, already): ([StoreTicket], [IPPrefix], [IPPrefix]) = ([], [], [])
        for prefix in prefixes {
            do throws(RevocationRefusal) {
                if let (ticket, actions) = try core.revoke(prefix, isUnknownAllowed: isUnknownAllowed, tombstone: tombstone, now: now) {
                    perform(actions)
                    tickets.append(ticket)
                    revoked.append(prefix)
                } else {
                    already.append(prefix)
                }
            } catch {
                throw ControlError(revoked.isEmpty ? error.description : "\(error); before that, \(revoked.count) were revoked")
            }
        }
        whenDurable(tickets) { failures in
            if let failure = failures.first { return respond(.failed("the revocation could not be recorded: \(failure)")) }
            respond(
                .result(
                    RevocationReport(revoked: revoked.map(\.shortText), already: already.map(\.shortText), next: next.map { "\($0)" })))
        }
    }

    /// Calls back when the writes have ended, with the reasons of those that failed.
    func whenDurable(_ tickets: [StoreTicket], _ done: @escaping ([String]) -> Void) {
        var left = tickets.count
        var failures: [String] = []
        guard left > 0 else { return done([]) }
        for ticket in tickets {
            awaited[ticket] = { failure in
                left -= 1
                if let failure { failures.append(failure) }
                if left == 0 { done(failures) }
            }
        }
    }
}

import IMSCore
import MATSignal
import MappingMemory

/// Looks at what is to be imported as if it came from the network: nobody knows through whose hands a file went.
public struct TransferCheck: Sendable {
    /// What is served; nothing else is taken.
    public var served: [IPPrefix]
    /// The IMS keys that certificates may be signed with.
    public var keys: [PublicKey]

    public init(served: [IPPrefix], keys: [PublicKey]) {
        self.served = served
        self.keys = keys
    }

    /// - Returns: why the mapping is not taken; `nil` if it is fine. One whose record or certificate has ended is taken all the same: it
    ///   marks the version below which nothing is accepted.
    public func refusal(of mapping: StoredMapping, now: Now) -> String? {
        let record = mapping.record
        if let refusal = refusal(of: mapping.certified.certificate, now: now) { return refusal }
        guard mapping.certified.certificate.prefix == record.prefix else {
            return "its certificate is for \(mapping.certified.certificate.prefix)"
        }
        let latest = now.latestBelieved
        guard record.issued <= latest, record.sequence <= latest, mapping.provenAt <= latest else {
            return "it is dated more than 300 s ahead of this clock"
        }
        guard mapping.isRevocation || mapping.source.port != 0 else { return "it says that it came from port 0" }
        do throws(VerificationFailure) {
            try mapping.certified.verifySignature()
        } catch {
            return error.reason
        }
        return nil
    }

    public func refusal(of certificate: Certificate, now: Now) -> String? {
        guard served.contains(where: { $0.contains(certificate.prefix) }) else { return "no prefix served here covers it" }
        guard certificate.notBefore <= now.latestBelieved else { return "its certificate begins more than 300 s ahead of this clock" }
        guard keys.contains(where: { $0.id == certificate.issuerID }) else {
            return "its certificate is signed with a key that is not among this server's (public-keys, previous-keys)"
        }
        guard keys.contains(where: certificate.isIssued) else { return "the signature of its certificate is wrong" }
        return nil
    }

    public func refusal(of secret: CookieSecret, now: Now) -> String? {
        secret.madeAt <= now.latestBelieved ? nil : "it is dated more than 300 s ahead of this clock"
    }
}

/// What became of imported lines.
public struct TransferOutcome: Sendable, Hashable {
    public struct Skipped: Sendable, Hashable {
        public var what: String
        public var reason: String

        public init(what: String, reason: String) {
            self.what = what
            self.reason = reason
        }
    }

    public var taken = 0
    /// Held already.
    public var same = 0
    /// Something newer is held.
    public var older = 0
    /// At most `skippedMax` of them; `skippedCount` counts all.
    public var skipped: [Skipped] = []
    public var skippedCount = 0

    public static let skippedMax = 10_000

    public init() {}

    public mutating func skip(_ what: String, _ reason: String) {
        skippedCount += 1
        if skipped.count < Self.skippedMax { skipped.append(Skipped(what: what, reason: reason)) }
    }

    public static func += (sum: inout TransferOutcome, part: TransferOutcome) {
        sum.taken += part.taken
        sum.same += part.same
        sum.older += part.older
        sum.skippedCount += part.skippedCount
        sum.skipped += part.skipped.prefix(skippedMax - min(skippedMax, sum.skipped.count))
    }
}

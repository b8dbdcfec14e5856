import MATCore
import MATSignal

/// What signs a HoA's records: its key, the highest sequence so far, and the newest record.
///
/// A sequence once signed can never be taken back: nobody accepts a lower one from the same key. So none is signed that lies more than 300 s
/// ahead of a confirmed clock (protocol.md section 4).
struct RecordSigner: Sendable {
    enum OnSign: Hashable, Sendable {
        case signed
        /// The sequence kept from before lay so many seconds in the future, and counts no more.
        case signedAnew(leadSeconds: UInt64)
        /// No clock is confirmed, the machine's is too far ahead of it, or the key is of no use.
        case notSigned
    }

    let key: SigningKey
    /// The highest that was signed, or that someone has of us.
    private(set) var sequence: UInt64
    private(set) var mapping: CertifiedMapping?

    init(_ key: SigningKey, lastSequence: UInt64) {
        self.key = key
        sequence = lastSequence
    }

    /// Makes the next record: sequence = max(previous + 1, Unix time in ms).
    ///
    /// - Parameters:
    ///   - lifetime: in seconds.
    ///   - sequenceMax: that the confirmed clock allows; `nil` while there is none.
    mutating func sign(
        _ locators: [MobileAddress], of hoa: HomeAddress, under certificate: Certificate, lifetime: UInt32, sequenceMax: UInt64?, _ now: Now
    ) -> OnSign {
        guard let most = sequenceMax else { return .notSigned }
        var outcome = OnSign.signed
        if sequence > most {
            // Signed while a clock was wrong. No IMS with the right time took it; what it holds instead it tells by code 5.
            outcome = .signedAnew(leadSeconds: (sequence - most) / 1000 + 300)
            sequence = 0
        }
        let next = max(sequence + 1, now.wallMilliseconds)
        guard next <= most else { return .notSigned }
        let length = certificate.prefixLength
        let record = MappingRecord(
            hoa: hoa, prefixLength: length, sequence: next, lifetime: lifetime, issued: now.wallMilliseconds,
            locators: locators.enumerated().map { Locator($1, prefixLength: length, preference: UInt8(clamping: ($0 + 1) * 10)) })
        guard let signed = record.signed(with: key) else { return .notSigned }
        mapping = CertifiedMapping(mapping: signed, certificate: certificate)
        sequence = next
        return outcome
    }

    /// Somebody has this sequence of ours: the next one goes beyond it.
    mutating func goBeyond(_ other: UInt64) { sequence = max(sequence, other) }
}

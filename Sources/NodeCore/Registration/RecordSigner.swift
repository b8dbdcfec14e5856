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
    /// The own MoAs that it speaks of, in its order: listed themselves, or by the endpoint that others see.
    private(set) var places: [MobileAddress] = []
    /// The addresses of relays that it lists.
    private(set) var relays: [Endpoint] = []

    init(_ key: SigningKey, lastSequence: UInt64) {
        self.key = key
        sequence = lastSequence
    }

    /// Makes the next record: sequence = max(previous + 1, Unix time in ms).
    ///
    /// - Parameters:
    ///   - listing: how the record says where each of them is.
    ///   - relays: at which it is bound, after all of them; at most `MappingRecord.relaysMax`.
    ///   - lifetime: in seconds.
    ///   - sequenceMax: that the confirmed clock allows; `nil` while there is none.
    mutating func sign(
        _ locators: [MobileAddress], listing: (MobileAddress) -> OwnEndpoints.Listing = { _ in .moa }, relays: [Endpoint] = [], of hoa: HomeAddress,
        under certificate: Certificate, lifetime: UInt32, sequenceMax: UInt64?, _ now: Now
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
        let bound = relays.prefix(MappingRecord.relaysMax)
        let listed = Self.listed(locators, listing, of: hoa.family, isBeside: !bound.isEmpty, length: length).prefix(
            MappingRecord.locatorsMax - bound.count)
        let ofRelays = bound.enumerated().map { index, relay in
            MappingRecord.Place.relay(relay, preference: Self.firstPreferenceOfRelays + UInt8(clamping: index))
        }
        let record = MappingRecord(
            hoa: hoa, prefixLength: length, sequence: next, lifetime: lifetime, issued: now.wallMilliseconds,
            places: listed.map(\.place) + ofRelays)
        guard let signed = record.signed(with: key) else { return .notSigned }
        places = listed.map(\.moa)
        self.relays = Array(bound)
        mapping = CertifiedMapping(mapping: signed, certificate: certificate)
        sequence = next
        return outcome
    }

    /// Above those of all MoAs, ten for each (protocol.md section 11.1).
    private static let firstPreferenceOfRelays: UInt8 = 200

    /// What the record says of each MoA. Beside endpoints and relays it lists no address that only a site knows (protocol.md section 11.1).
    ///
    /// - Parameter isBeside: it lists relays.
    private static func listed(
        _ locators: [MobileAddress], _ listing: (MobileAddress) -> OwnEndpoints.Listing, of family: AddressFamily, isBeside: Bool, length: UInt8
    ) -> [(moa: MobileAddress, place: MappingRecord.Place)] {
        let listings = locators.map { (moa: $0, listing: listing($0)) }
        let hasEndpoints = isBeside || listings.contains { if case .endpoint = $0.listing { true } else { false } }
        return listings.enumerated().compactMap { index, entry in
            let preference = UInt8(clamping: (index + 1) * 10)
            switch entry.listing {
            case .endpoint(let endpoint): return (entry.moa, .endpoint(endpoint, preference: preference))
            case .never: return nil
            case .moa, .awaited:
                guard !hasEndpoints || entry.moa.address.scope == .global, entry.moa.family == family, !StandIns.isStandIn(entry.moa.address)
                else { return nil }
                return (entry.moa, .moa(Locator(entry.moa, prefixLength: length, preference: preference)))
            }
        }
    }

    /// Somebody has this sequence of ours: the next one goes beyond it.
    mutating func goBeyond(_ other: UInt64) { sequence = max(sequence, other) }
}

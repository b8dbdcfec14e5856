import MATSignal

/// What a node keeps of a peer's verified record and certificate: what later records are compared and checked with, and what
/// an answer must enclose. The HoA and the locators stand in the peer itself; the certificate's own signature has done its
/// service once it was verified.
struct PeerRecord: Hashable, Sendable {
    let sequence: UInt64
    /// Unix time in ms.
    let issued: UInt64
    let signature: Signature
    let key: CertifiedKey
    /// Seconds from `issued`.
    let lifetime: UInt32
    let prefixLength: UInt8
    /// All that it lists, if it lists more than MoAs: few peers' do.
    private let kinds: [MappingRecord.Place]

    init(_ offered: OfferedRecord) {
        let record = offered.record
        sequence = record.sequence
        issued = record.issued
        signature = offered.mapping.signature
        key = offered.key
        lifetime = record.lifetime
        prefixLength = record.prefixLength
        kinds = record.hasKinds ? record.places : []
    }

    var version: RecordVersion { RecordVersion(nodeKey: key.nodeKey, notBefore: key.notBefore, sequence: sequence) }

    var isNetwork: Bool { prefixLength < 128 }

    /// Why it lists no place, in words about its node; `nil` if it lists some.
    func reasonNowhere(at locators: [Locator]) -> String? {
        guard places(at: locators).isEmpty else { return nil }
        return key.isRevocation(sequence: sequence, issued: issued) ? Self.revoked : Self.withdrawn
    }

    private static let revoked = "revoked: the operator of its mapping server took the address from its node"
    private static let withdrawn = "withdrawn: its node has said that it is nowhere"

    /// What it lists, of all kinds in its order.
    ///
    /// - Parameter locators: the MoAs among it.
    func places(at locators: [Locator]) -> [MappingRecord.Place] { kinds.isEmpty ? locators.map(MappingRecord.Place.moa) : kinds }

    /// Where it receives encapsulated packets, beside the MoAs.
    var endpoints: [Endpoint] { kinds.compactMap(\.endpoint) }

    /// Unix time in ms.
    var expires: UInt64 { MappingRecord.expires(issued: issued, lifetime: lifetime) }

    /// The record as its node signed it.
    func mapping(of hoa: HomeAddress, at locators: [Locator]) -> SignedMapping {
        let record = MappingRecord(
            hoa: HomeAddress(hoa.address.masked(to: prefixLength)), prefixLength: prefixLength, sequence: sequence, lifetime: lifetime,
            issued: issued, places: places(at: locators))
        return SignedMapping(record: record, signature: signature)
    }
}

/// A record with its locators, apart from a peer.
struct LocatedRecord: Hashable, Sendable {
    let record: PeerRecord
    let locators: [Locator]

    init(_ offered: OfferedRecord) {
        record = PeerRecord(offered)
        locators = offered.record.locators
    }

    init(_ record: PeerRecord, at locators: [Locator]) {
        self.record = record
        self.locators = locators
    }

    var version: RecordVersion { record.version }

    /// The locators as places of this HoA; see `MappingRecord.moas`.
    func places(of hoa: HomeAddress) -> [Locator] {
        guard record.prefixLength < 128 else { return locators }
        return locators.map { locator in
            var place = locator
            place.moa = MobileAddress(hoa.address.replacingPrefix(with: locator.moa.address, length: record.prefixLength))
            return place
        }
    }
}

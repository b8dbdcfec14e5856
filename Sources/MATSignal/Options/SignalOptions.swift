/// The values of one message's options (sections 3, 11 and 12). What they may be and which of them a message must have, `OptionTable` says.
///
/// ```
/// +-------------------------------+-------------------------------+
/// |             Kind              |        Length of value        |  value, then zero padding to 4 octets
/// +-------------------------------+-------------------------------+
/// ```
struct SignalOptions: Hashable, Sendable {
    static let textOctetsMax = 200

    var cookie: Cookie?
    var hoa: HomeAddress?
    var moa: MobileAddress?
    var peerHoA: HomeAddress?
    var observed: Endpoint?
    /// XOBSERVED, which the client cookie masks on the wire.
    var observedMasked: Endpoint?
    var challenge: Challenge?
    var candidates: [Candidate] = []
    var mapping: SignedMapping?
    var certificate: Certificate?
    var certID: CertificateID?
    var pathSignature: Signature?
    /// Of a Join; that of a record belongs to `mapping`.
    var signature: Signature?
    var publicKey: PublicKey?
    var tokenProof: TokenProof?
    var wanted: IPPrefix?
    var subscribe: UInt32?
    var lifetime: UInt32?
    var role: ServerRole?
    var locatorProofs: [LocatorProof] = []
    var endpointProofs: [EndpointProof] = []
    var text: String?
    /// Octets of the PAD option's value.
    var padding: Int?

    init() {}

    // MARK: Decoding

    /// - Parameter message: one that was read and found well-formed.
    init(_ message: SignalView) {
        cookie = message.cookie
        hoa = message.address(.hoa).map(HomeAddress.init)
        moa = message.address(.moa).map(MobileAddress.init)
        peerHoA = message.address(.peerHoA).map(HomeAddress.init)
        observed = message.value(.observed).map { Endpoint($0.address(at: 0), port: $0.uint16(at: 16)) }
        if let cookie { observedMasked = message.value(.xObserved).map { XObserved($0).endpoint(under: cookie.client) } }
        challenge = message.value(.challenge).map(Challenge.init)
        candidates =
            message.value(.candidates).map { value in
                stride(from: 0, to: value.count, by: Candidate.octetsCount).map { Candidate(value, at: $0) }
            } ?? []
        if let record = message.mapping, let signature = message.value(.signature).flatMap({ Signature($0.octets(0..<$0.count)) }) {
            mapping = SignedMapping(record: MappingRecord(record), signature: signature)
        } else {
            signature = message.value(.signature).flatMap { Signature($0.octets(0..<$0.count)) }
        }
        publicKey = message.value(.publicKey).flatMap { PublicKey($0.octets(0..<$0.count)) }
        tokenProof = message.value(.tokenProof).map(TokenProof.init)
        wanted = message.value(.wanted).flatMap { IPPrefix($0.address(at: 0), length: $0.uint8(at: 16)) }
        certificate = message.value(.certificate).flatMap(Certificate.init)
        certID = message.uint64(.certID).map(CertificateID.init)
        pathSignature = message.value(.pathSignature).flatMap { Signature($0.octets(0..<$0.count)) }
        subscribe = message.uint32(.subscribe)
        lifetime = message.uint32(.lifetime)
        role = message.uint32(.role).map(ServerRole.init)
        // Bounded by the message, which has room for 23; those of no listed locator are never looked at.
        locatorProofs = message.values(.locatorProof).map(LocatorProof.init)
        endpointProofs = message.values(.endpointProof).map(EndpointProof.init)
        text = message.value(.text).map { String(decoding: $0.octets(0..<$0.count), as: UTF8.self) }
        padding = message.value(.pad)?.count
    }

    // MARK: Encoding

    /// In the order of the test vectors; any order is valid on the wire.
    func encode(into writer: inout SignalWriter) {
        if let cookie { option(.cookie, &writer, cookie.encode) }
        if let hoa { option(.hoa, &writer) { $0.address(hoa.address) } }
        if let moa { option(.moa, &writer) { $0.address(moa.address) } }
        if let peerHoA { option(.peerHoA, &writer) { $0.address(peerHoA.address) } }
        if let observed {
            option(.observed, &writer) {
                $0.address(observed.address)
                $0.uint16(observed.port)
                $0.zeros(2)
            }
        }
        if let observedMasked, let cookie { option(.xObserved, &writer, XObserved(observedMasked, under: cookie.client).encode) }
        if let challenge { option(.challenge, &writer, challenge.encode) }
        if !candidates.isEmpty {
            option(.candidates, &writer) { for candidate in candidates.prefix(Candidate.countMax) { candidate.encode(into: &$0) } }
        }
        if let mapping {
            option(.mapping, &writer, mapping.record.encode)
            option(.signature, &writer, mapping.signature.encode)
        }
        if let certificate { option(.certificate, &writer, certificate.encode) }
        if let certID { option(.certID, &writer) { $0.uint64(certID.rawValue) } }
        if let publicKey { option(.publicKey, &writer, publicKey.encode) }
        if let wanted { option(.wanted, &writer, wanted.encodeWanted) }
        if let pathSignature { option(.pathSignature, &writer, pathSignature.encode) }
        if let subscribe { option(.subscribe, &writer) { $0.uint32(subscribe) } }
        if let lifetime { option(.lifetime, &writer) { $0.uint32(lifetime) } }
        if let tokenProof { option(.tokenProof, &writer, tokenProof.encode) }
        if let signature { option(.signature, &writer, signature.encode) }
        if let role { option(.role, &writer) { $0.uint32(role.rawValue) } }
        for proof in locatorProofs { option(.locatorProof, &writer, proof.encode) }
        for proof in endpointProofs { option(.endpointProof, &writer, proof.encode) }
        if let text { option(.text, &writer) { $0.bytes(Self.cut(text)) } }
        if let padding { option(.pad, &writer) { $0.zeros(padding) } }
    }

    private func option(_ kind: OptionKind, _ writer: inout SignalWriter, _ value: (inout SignalWriter) -> Void) {
        writer.uint16(kind.rawValue)
        writer.uint16(0)
        let start = writer.count
        value(&writer)
        let count = writer.count - start
        writer.patch(uint16: UInt16(truncatingIfNeeded: count), at: start - 2)
        if count % 4 != 0 { writer.zeros(4 - count % 4) }
    }

    /// The text's UTF-8 within the limit, not cut inside a character.
    private static func cut(_ text: String) -> [UInt8] {
        var result: [UInt8] = []
        for character in text {
            let octets = Array(character.utf8)
            if result.count + octets.count > textOctetsMax { break }
            result += octets
        }
        return result
    }
}

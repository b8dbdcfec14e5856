/// The options of one message (section 3), decoded and checked each for itself. Which of them a message must have is the
/// message's affair.
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
    var mapping: SignedMapping?
    var certificate: Certificate?
    var certID: CertificateID?
    var subscribe: UInt32?
    var lifetime: UInt32?
    var locatorProofs: [LocatorProof] = []
    var text: String?
    /// Octets of the PAD option's value.
    var padding: Int?

    init() {}

    // MARK: Decoding

    init(decoding reader: inout SignalReader) throws(SignalError) {
        // A bit for each kind: floods of messages come this way, and a set would cost more than all the rest.
        var seen: UInt32 = 0
        var unsigned: MappingRecord?
        var unsupported: OptionKind?
        while !reader.isAtEnd {
            let kind = OptionKind(rawValue: try reader.uint16("option kind"))
            let count = Int(try reader.uint16("length of \(kind)"))
            var body = try reader.part(count, "\(kind)")
            try reader.zeros((4 - count % 4) % 4, "padding of \(kind)")
            if unsigned != nil, kind != .signature { throw .malformed("MAPPING is not followed by its SIGNATURE") }

            switch kind {
            case .pad:
                padding = count
                try body.zeros(count, "PAD")
            case .cookie:
                cookie = try Cookie(decoding: &body)
            case .hoa:
                hoa = HomeAddress(try body.address("HOA"))
            case .moa:
                moa = MobileAddress(try body.address("MOA"))
            case .peerHoA:
                peerHoA = HomeAddress(try body.address("PEER-HOA"))
            case .observed:
                observed = Endpoint(try body.address("OBSERVED"), port: try body.uint16("OBSERVED port"))
                try body.zeros(2, "OBSERVED reserved")
            case .mapping:
                unsigned = try MappingRecord(decoding: &body)
            case .signature:
                guard let record = unsigned else { throw .malformed("SIGNATURE does not follow a MAPPING") }
                mapping = SignedMapping(record: record, signature: try Signature(decoding: &body))
                unsigned = nil
            case .certificate:
                certificate = try Certificate(decoding: &body)
            case .certID:
                certID = CertificateID(rawValue: try body.uint64("CERT-ID"))
            case .subscribe:
                subscribe = try body.uint32("SUBSCRIBE")
            case .lifetime:
                lifetime = try body.uint32("LIFETIME")
            case .locatorProof:
                // Bounded by the message, which has room for 23; those of no listed locator are never looked at.
                locatorProofs.append(try LocatorProof(decoding: &body))
            case .text:
                guard count <= Self.textOctetsMax else { throw .malformed("TEXT of \(count) octets, at most \(Self.textOctetsMax)") }
                guard let decoded = String(validating: try body.bytes(count, "TEXT"), as: UTF8.self) else { throw .malformed("TEXT is not UTF-8") }
                text = decoded
            default:
                if kind.isCritical { unsupported = unsupported ?? kind }
                continue
            }
            try body.finish("\(kind)")
            // Section 7 says "per further locator" of LOCATOR-PROOF alone.
            let bit = UInt32(1) << UInt32(kind.rawValue)
            if kind != .locatorProof, seen & bit != 0 { throw .malformed("\(kind) stands twice") }
            seen |= bit
        }
        guard unsigned == nil else { throw .malformed("MAPPING is not followed by its SIGNATURE") }
        // Told after everything else was read, because a malformed message is malformed whatever else it asks for.
        if let unsupported { throw SignalError(.unsupportedOption(unsupported.rawValue), "critical \(unsupported) is unknown") }
    }

    /// The cookie of a message that could not be decoded, for the answer that says so: the first COOKIE that can be read.
    static func cookie(salvagedFrom octets: [UInt8], _ range: Range<Int>) -> Cookie? {
        var reader = SignalReader(octets, range)
        do throws(SignalError) {
            while !reader.isAtEnd {
                let kind = OptionKind(rawValue: try reader.uint16("kind"))
                let count = Int(try reader.uint16("length"))
                var body = try reader.part(count, "value")
                if kind == .cookie {
                    let cookie = try Cookie(decoding: &body)
                    return body.isAtEnd ? cookie : nil
                }
                _ = try reader.part((4 - count % 4) % 4, "padding")
            }
        } catch {
            return nil
        }
        return nil
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
        if let mapping {
            option(.mapping, &writer, mapping.record.encode)
            option(.signature, &writer) { $0.bytes(mapping.signature.octets) }
        }
        if let certificate { option(.certificate, &writer, certificate.encode) }
        if let certID { option(.certID, &writer) { $0.uint64(certID.rawValue) } }
        if let subscribe { option(.subscribe, &writer) { $0.uint32(subscribe) } }
        if let lifetime { option(.lifetime, &writer) { $0.uint32(lifetime) } }
        for proof in locatorProofs { option(.locatorProof, &writer, proof.encode) }
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
        writer.zeros((4 - count % 4) % 4)
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

/// The first 8 octets of SHA-256 of a CERTIFICATE value: it stands for a certificate that both sides have.
public struct CertificateID: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The id of the certificate with this CERTIFICATE value.
    public init(certificate octets: UnsafeRawBufferPointer) { self.init(rawValue: sha256Prefix(octets)) }
}

/// What a certificate says, without its proof: enough to check further records with, once it was verified.
public struct CertifiedKey: Hashable, Sendable {
    public let nodeKey: PublicKey
    /// Unix time in ms.
    public let notBefore: UInt64
    /// Unix time in ms.
    public let notAfter: UInt64
    /// The first 8 octets of SHA-256 of the IMS's public key.
    public let issuerID: UInt64
    public let id: CertificateID
}

/// Says that a key may sign mappings for an HoA; signed by the HoA's IMS (section 5).
///
/// ```
/// HoA 16 | HoA prefix length 1 | zero 3 | not before 8 (ms) | not after 8 (ms) | node public key 32 | IMS key id 8 | signature 64
/// ```
public struct Certificate: Hashable, Sendable {
    public static let octetsCount = 140
    /// Where there are zeros in a CERTIFICATE value.
    static let reservedPlace = 17..<20
    /// Where the node key stands in a CERTIFICATE value.
    public static let nodeKeyPlace = 36..<68
    static let signingContext = Array("MAT certificate v1".utf8)

    public let hoa: HomeAddress
    public let prefixLength: UInt8
    /// Unix time in ms.
    public let notBefore: UInt64
    /// Unix time in ms.
    public let notAfter: UInt64
    public let nodeKey: PublicKey
    /// The first 8 octets of SHA-256 of the IMS's public key.
    public let issuerID: UInt64
    public let signature: Signature

    /// Makes and signs a certificate.
    ///
    /// - Returns: `nil` only if the crypto library fails.
    public init?(
        issuing hoa: HomeAddress, prefixLength: UInt8 = 128, nodeKey: PublicKey, notBefore: UInt64, notAfter: UInt64, with issuer: SigningKey
    ) {
        self.hoa = hoa
        self.prefixLength = prefixLength
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.nodeKey = nodeKey
        issuerID = issuer.publicKey.id
        var body = SignalWriter()
        body.bytes(Self.signingContext)
        Self.encodeBody(into: &body, hoa, prefixLength, notBefore, notAfter, nodeKey, issuerID)
        guard let signature = issuer.sign(body.octets) else { return nil }
        self.signature = signature
    }

    public var prefix: IPPrefix { IPPrefix(covering: hoa.address, length: prefixLength) }

    public var id: CertificateID { CertificateID(rawValue: sha256Prefix(octets)) }

    public var key: CertifiedKey {
        CertifiedKey(nodeKey: nodeKey, notBefore: notBefore, notAfter: notAfter, issuerID: issuerID, id: id)
    }

    /// Whether the key is the one named in the certificate and signed it. Times are checked apart from this.
    public func isIssued(by key: PublicKey) -> Bool {
        guard key.id == issuerID else { return false }
        var body = SignalWriter()
        body.bytes(Self.signingContext)
        Self.encodeBody(into: &body, hoa, prefixLength, notBefore, notAfter, nodeKey, issuerID)
        return key.isValid(signature, over: body.octets)
    }

    // MARK: Wire

    /// - Parameter value: one that was found well-formed; `nil` if it is not of a certificate's length.
    init?(_ value: OctetView) {
        guard value.count == Self.octetsCount, let nodeKey = PublicKey(value.octets(Self.nodeKeyPlace)),
            let signature = Signature(value.octets(Self.octetsCount - Signature.octetsCount..<Self.octetsCount))
        else { return nil }
        hoa = HomeAddress(value.address(at: 0))
        prefixLength = value.uint8(at: 16)
        notBefore = value.uint64(at: 20)
        notAfter = value.uint64(at: 28)
        self.nodeKey = nodeKey
        issuerID = value.uint64(at: 68)
        self.signature = signature
    }

    func encode(into writer: inout SignalWriter) {
        Self.encodeBody(into: &writer, hoa, prefixLength, notBefore, notAfter, nodeKey, issuerID)
        signature.encode(into: &writer)
    }

    private static func encodeBody(
        into writer: inout SignalWriter, _ hoa: HomeAddress, _ prefixLength: UInt8, _ notBefore: UInt64, _ notAfter: UInt64,
        _ nodeKey: PublicKey, _ issuerID: UInt64
    ) {
        writer.address(hoa.address)
        writer.uint8(prefixLength)
        writer.zeros(3)
        writer.uint64(notBefore)
        writer.uint64(notAfter)
        nodeKey.encode(into: &writer)
        writer.uint64(issuerID)
    }

    /// The CERTIFICATE value as it travels and is stored.
    public var octets: [UInt8] {
        var writer = SignalWriter(reserving: Self.octetsCount)
        encode(into: &writer)
        return writer.octets
    }

    /// Reads a stored CERTIFICATE value.
    public init(octets: [UInt8]) throws(SignalError) {
        let read = octets.withUnsafeBytes { octets in Result { () throws(SignalError) in try Certificate(octets: octets) } }
        self = try read.get()
    }

    /// The same of octets in place, without an array.
    public init(octets: UnsafeRawBufferPointer) throws(SignalError) {
        let view = OctetView(octets)
        let fault = OptionTable.standard.fault(of: view, as: .certificate)
        guard fault == nil, let certificate = Certificate(view) else {
            throw (fault ?? .wrongLength(.certificate, octets: octets.count)).error(in: nil, .standard)
        }
        self = certificate
    }
}

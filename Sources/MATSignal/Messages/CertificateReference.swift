/// How a message names a certificate: whole, or by id if the receiver is known to have it.
public enum CertificateReference: Hashable, Sendable {
    case whole(Certificate)
    case id(CertificateID)

    public var id: CertificateID {
        switch self {
        case .whole(let certificate): certificate.id
        case .id(let id): id
        }
    }

    init?(_ options: SignalOptions) {
        if let certificate = options.certificate {
            self = .whole(certificate)
        } else if let id = options.certID {
            self = .id(id)
        } else {
            return nil
        }
    }

    func add(to options: inout SignalOptions) {
        switch self {
        case .whole(let certificate): options.certificate = certificate
        case .id(let id): options.certID = id
        }
    }
}

/// A node's own record with its certificate, as it travels in IMS Update, HA Notify and MA Notify.
public struct EnclosedRecord: Hashable, Sendable {
    public var mapping: SignedMapping
    public var certificate: CertificateReference

    public init(mapping: SignedMapping, certificate: CertificateReference) {
        self.mapping = mapping
        self.certificate = certificate
    }

    /// `nil` if the message has no MAPPING.
    init?(_ options: SignalOptions) {
        guard let mapping = options.mapping, let certificate = CertificateReference(options) else { return nil }
        self.init(mapping: mapping, certificate: certificate)
    }

    func add(to options: inout SignalOptions) {
        options.mapping = mapping
        certificate.add(to: &options)
    }
}

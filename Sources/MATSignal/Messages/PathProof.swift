/// The sender's own word for where it receives, with the certificate that it is checked by: PATH-SIGNATURE, and CERTIFICATE or CERT-ID, in Bind
/// and Path Probe (section 11). What is signed, `PathStatement` says.
public struct PathProof: Hashable, Sendable {
    public var certificate: CertificateReference
    public var signature: Signature

    public init(certificate: CertificateReference, signature: Signature) {
        self.certificate = certificate
        self.signature = signature
    }

    /// `nil` if the message is not signed.
    init?(_ options: SignalOptions) {
        guard let signature = options.pathSignature, let certificate = CertificateReference(options) else { return nil }
        self.init(certificate: certificate, signature: signature)
    }

    func add(to options: inout SignalOptions) {
        certificate.add(to: &options)
        options.pathSignature = signature
    }
}

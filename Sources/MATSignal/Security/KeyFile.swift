/// Text of key and certificate files: one line `label: base64`, comment lines with `#`.
///
/// ```
/// # private key of this node; keep it secret
/// mat-ed25519-private: BASE64 of the 32-octet seed
///
/// # certificate of 192.0.2.10
/// mat-certificate: BASE64 of the 140-octet CERTIFICATE value
/// ```
public enum KeyFile {
    static let privateLabel = "mat-ed25519-private"
    static let certificateLabel = "mat-certificate"

    /// - Returns: `nil` if the text holds no private key of this form.
    public static func parsePrivateKey(_ text: String) -> SigningKey? {
        value(privateLabel, in: text).flatMap(SigningKey.init(seed:))
    }

    public static func write(_ key: SigningKey) -> String {
        """
        # Private key of a MAT node or server: keep it secret, mode 0600.
        # Public key: \(Base64.write(key.publicKey.octets))
        \(privateLabel): \(Base64.write(key.seed))

        """
    }

    /// - Returns: `nil` if the text holds no certificate of this form.
    public static func parseCertificate(_ text: String) -> Certificate? {
        guard let octets = value(certificateLabel, in: text), octets.count == Certificate.octetsCount else { return nil }
        return try? Certificate(octets: octets)
    }

    public static func write(_ certificate: Certificate) -> String {
        """
        # Certificate of \(certificate.prefix), valid from \(UTCTime.text(unixMilliseconds: certificate.notBefore)) to \(UTCTime.text(unixMilliseconds: certificate.notAfter)).
        \(certificateLabel): \(Base64.write(certificate.octets))

        """
    }

    /// - Returns: `nil` if the text is no base64 of 32 octets.
    public static func parsePublicKey(_ text: String) -> PublicKey? {
        Base64.parse(text.utf8).flatMap(PublicKey.init)
    }

    public static func write(_ key: PublicKey) -> String { Base64.write(key.octets) }

    private static func value(_ label: String, in text: String) -> [UInt8]? {
        for line in text.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0].allSatisfy({ !$0.isWhitespace }), parts[0] == label else { continue }
            return Base64.parse(parts[1].filter { !$0.isWhitespace }.utf8)
        }
        return nil
    }
}

/// What a PATH-SIGNATURE says (section 11): the holder of this HoA receives at the endpoint that this cookie was made for, now.
///
/// ```
/// "MAT path v1" 11 | type 1 | signer's HoA 16 | the other's HoA 16 | destination: address 16, port 2 | cookie 24
/// ```
/// The destination is in it so that nobody can pass a signature on to another than it was meant for, the type so that an answer can't be
/// used as a Bind.
public struct PathStatement: Hashable, Sendable {
    static let signingContext = Array("MAT path v1".utf8)

    /// Of the message that carries it: HA Notify, Bind, Path Probe or Path Answer.
    public var type: MessageType
    public var signer: HomeAddress
    /// The other node's HoA; a server's is the address that the signer knows it by.
    public var other: IPAddress
    /// Where the datagram goes, as the signer sees it.
    public var destination: Endpoint
    /// The other's cookie for the signer: in a Path Answer the CHALLENGE, else both halves of the COOKIE that the other gave.
    public var cookie: Challenge

    public init(_ type: MessageType, by signer: HomeAddress, to other: IPAddress, at destination: Endpoint, cookie: Challenge) {
        self.type = type
        self.signer = signer
        self.other = other
        self.destination = destination
        self.cookie = cookie
    }

    /// What is signed.
    public var octets: [UInt8] {
        var writer = SignalWriter(reserving: 96)
        writer.bytes(Self.signingContext)
        writer.uint8(type.rawValue)
        writer.address(signer.address)
        writer.address(other)
        writer.address(destination.address)
        writer.uint16(destination.port)
        cookie.encode(into: &writer)
        return writer.octets
    }

    /// - Parameter key: of the signer's certificate.
    /// - Returns: `nil` only if the crypto library fails.
    public func signed(with key: SigningKey) -> Signature? { key.sign(octets) }

    /// - Parameter key: that the signer's certificate names.
    public func isSigned(_ signature: Signature, by key: PublicKey) -> Bool { key.isValid(signature, over: octets) }
}

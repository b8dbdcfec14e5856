/// The value of XOBSERVED (section 11): the source that the responder saw, under the client cookie of its message. Translators that look for
/// addresses in what they carry, and "correct" them, then find none.
///
/// ```
/// address 16, XORed with the client cookie twice over | port 2, with its first 2 octets | zero 2
/// ```
public struct XObserved: Hashable, Sendable {
    public static let octetsCount = 20

    /// As they go on the wire.
    private let address: IPAddress
    private let port: UInt16

    /// - Parameter client: the client cookie that the message echoes.
    public init(_ endpoint: Endpoint, under client: UInt64) {
        address = IPAddress(high: endpoint.address.high ^ client, low: endpoint.address.low ^ client)
        port = endpoint.port ^ UInt16(truncatingIfNeeded: client >> 48)
    }

    init(_ value: OctetView) {
        address = value.address(at: 0)
        port = value.uint16(at: 16)
    }

    /// - Parameter client: the client cookie of the message.
    public func endpoint(under client: UInt64) -> Endpoint {
        // To mask twice is not to mask.
        let plain = XObserved(Endpoint(address, port: port), under: client)
        return Endpoint(plain.address, port: plain.port)
    }

    public func encode(into writer: inout SignalWriter) {
        writer.address(address)
        writer.uint16(port)
        writer.zeros(2)
    }
}

/// One of CANDIDATES (section 11): an own endpoint of the sender that is not global, for peers at the same site.
public struct Candidate: Hashable, Sendable {
    /// In one option.
    public static let countMax = 8
    static let octetsCount = 20

    public var endpoint: Endpoint
    /// Lower is preferred.
    public var preference: UInt8

    public init(_ endpoint: Endpoint, preference: UInt8) {
        self.endpoint = endpoint
        self.preference = preference
    }

    /// `address 16 | port 2 | preference 1 | zero 1`
    init(_ value: OctetView, at place: Int) {
        endpoint = Endpoint(value.address(at: place), port: value.uint16(at: place &+ 16))
        preference = value.uint8(at: place &+ 18)
    }

    func encode(into writer: inout SignalWriter) {
        writer.address(endpoint.address)
        writer.uint16(endpoint.port)
        writer.uint8(preference)
        writer.zeros(1)
    }
}

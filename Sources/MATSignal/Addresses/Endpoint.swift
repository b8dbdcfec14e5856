/// An address and UDP port. In order by the address, then the port.
public struct Endpoint: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var address: IPAddress
    public var port: UInt16

    public init(_ address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    public var description: String { address.family == .ipv4 ? "\(address):\(port)" : "[\(address)]:\(port)" }

    public static func < (a: Endpoint, b: Endpoint) -> Bool { (a.address, a.port) < (b.address, b.port) }
}

/// The ports of protocol.md section 1.
public enum SignalPort {
    /// Where an IMS listens and sends from.
    public static let ims: UInt16 = 6288
    /// Where a node listens and sends from.
    public static let node: UInt16 = 6289
    /// Where a relay listens and sends from (section 11).
    public static let relay: UInt16 = 6290
}

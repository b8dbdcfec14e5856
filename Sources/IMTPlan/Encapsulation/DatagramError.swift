import MATSignal

/// What the network, or this host, said of a datagram of ours. Anybody on its path, or who guesses its ports, can say so: a reason to look, and
/// no more.
public struct DatagramError: Hashable, Sendable {
    /// The own port that it left from, and where it was to go.
    public var port: UInt16
    public var far: Endpoint
    /// As `errno`: EMSGSIZE for one that was too large, ECONNREFUSED where nobody listens, EHOSTUNREACH, ENETUNREACH, EACCES.
    public var reason: Int32
    /// Of EMSGSIZE: what would pass, in octets with the outer IP header; 0 if it was not said.
    public var largest: UInt32
    /// The HoAs of the packet in it, own first, if enough of it is quoted; `nil` for signalling.
    public var pair: HomePair?

    public init(port: UInt16, far: Endpoint, reason: Int32, largest: UInt32, pair: HomePair?) {
        self.port = port
        self.far = far
        self.reason = reason
        self.largest = largest
        self.pair = pair
    }

    /// EMSGSIZE, errno.h.
    public static let tooLarge: Int32 = 90
    /// ECONNREFUSED.
    private static let refused: Int32 = 111

    public var isTooLarge: Bool { reason == Self.tooLarge }
    /// Nobody listens there.
    public var isRefusal: Bool { reason == Self.refused }
}

extension DatagramError {
    /// The HoAs of the packet that an error quotes.
    package static func pair(_ quote: UnsafeRawBufferPointer) -> HomePair? {
        func pair(_ start: Int, _ octets: Int) -> HomePair? {
            guard quote.count >= start + 2 * octets, let own = IPAddress(octets: quote[start..<start + octets]),
                let peer = IPAddress(octets: quote[start + octets..<start + 2 * octets])
            else { return nil }
            return HomePair(own: HomeAddress(own), peer: HomeAddress(peer))
        }
        switch quote.first.map({ $0 >> 4 }) {
        case 4: return pair(12, 4)
        case 6: return pair(8, 16)
        default: return nil
        }
    }
}

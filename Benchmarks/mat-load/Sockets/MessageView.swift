import BenchSupport
import MATSignal

/// One message of a datagram as it lies there: the generator looks at a few fields of millions, and decodes none as a whole.
struct MessageView {
    let octets: UnsafeRawBufferPointer

    @inline(__always) var type: UInt8 { octets[0] }
    @inline(__always) var code: UInt8 { octets[1] }
    @inline(__always) var sequence: UInt32 {
        UInt32(bigEndian: octets.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    }

    /// Calls `body` for each message that is whole.
    @inline(__always)
    static func forEach(in datagram: UnsafeRawBufferPointer, _ body: (MessageView) -> Void) {
        var start = 0
        while start + SignalHeader.octetsCount <= datagram.count {
            let count = Int(datagram[start + 3]) * 4
            guard count >= SignalHeader.octetsCount, start + count <= datagram.count else { return }
            body(MessageView(octets: UnsafeRawBufferPointer(rebasing: datagram[start..<start + count])))
            start += count
        }
    }

    /// The value of the first option of this kind.
    func option(_ kind: OptionKind) -> UnsafeRawBufferPointer? {
        var start = SignalHeader.octetsCount
        while start + 4 <= octets.count {
            let found = UInt16(bigEndian: octets.loadUnaligned(fromByteOffset: start, as: UInt16.self))
            let count = Int(UInt16(bigEndian: octets.loadUnaligned(fromByteOffset: start + 2, as: UInt16.self)))
            guard start + 4 + count <= octets.count else { return nil }
            if found == kind.rawValue { return UnsafeRawBufferPointer(rebasing: octets[start + 4..<start + 4 + count]) }
            start += 4 + (count + 3) / 4 * 4
        }
        return nil
    }

    /// The server's half of the cookie, if there is one.
    var serverCookie: CookieOctets? {
        guard let cookie = option(.cookie), cookie.count == 24 else { return nil }
        return CookieOctets(cookie.baseAddress.map { $0 + 8 })
    }

    /// The HoA and sequence of the MAPPING.
    var mapping: (hoa: IPAddress, sequence: UInt64)? {
        guard let value = option(.mapping), value.count >= 28, let hoa = IPAddress(octets: value.prefix(16)) else { return nil }
        return (hoa, UInt64(bigEndian: value.loadUnaligned(fromByteOffset: 20, as: UInt64.self)))
    }
}

/// 16 octets that a server gave, to be sent back unread.
struct CookieOctets {
    private(set) var words: (UInt64, UInt64) = (0, 0)

    init() {}
    init?(_ octets: UnsafeRawPointer?) {
        guard let octets else { return nil }
        words = (octets.loadUnaligned(as: UInt64.self), octets.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    var isEmpty: Bool { words.0 == 0 }

    @inline(__always)
    func write(to octets: UnsafeMutableRawPointer) {
        octets.storeBytes(of: words.0, as: UInt64.self)
        octets.storeBytes(of: words.1, toByteOffset: 8, as: UInt64.self)
    }
}

/// A server cookie to be overwritten, so that messages are written with the room for one.
enum AnyCookie {
    static func make() throws -> ServerCookie {
        guard let authority = CookieAuthority(secret: Array(repeating: 0, count: 16)) else { throw BenchError("no cookie") }
        let nobody = Endpoint(.unspecifiedIPv4, port: 0)
        return authority.make(for: nobody, clientCookie: 0, now: Now(monotonic: .zero, wallMilliseconds: 0))
    }
}

/// Where fields stand in requests whose first option is a COOKIE with both halves, as `SignalMessage` writes them.
enum Offset {
    static let sequence = 4
    static let clientCookie = 12
    static let serverCookie = 20
    /// The first option after the cookie.
    static let next = 36
    /// The value of an HOA option there.
    static let hoa = 40
}

extension UnsafeMutableRawPointer {
    @inline(__always)
    func store(sequence: UInt32) { storeBytes(of: sequence.bigEndian, toByteOffset: Offset.sequence, as: UInt32.self) }

    @inline(__always)
    func store(_ address: IPAddress, at offset: Int) {
        storeBytes(of: address.high.bigEndian, toByteOffset: offset, as: UInt64.self)
        storeBytes(of: address.low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
    }
}

/// Copies octets to where a datagram is made; the caller knows that there is room.
func put(_ octets: [UInt8], at place: UnsafeMutableRawPointer) {
    octets.withUnsafeBytes { if let base = $0.baseAddress { place.copyMemory(from: base, byteCount: $0.count) } }
}

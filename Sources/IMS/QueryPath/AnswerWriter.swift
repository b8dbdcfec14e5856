import Glibc
import MATServer
import MATSignal

/// Writes answers into memory given beforehand, packed into datagrams as `SignalDatagram.pack` does.
struct AnswerWriter {
    /// The datagrams that answers to one may need: sixteen answers, of which at least two go into each.
    static let datagramsPerRequestMax = 8

    private let base: UnsafeMutableRawPointer
    private let lengths: UnsafeMutablePointer<Int32>
    private(set) var datagramsCount = 0
    private var messagesCount = 0
    private var place: UnsafeMutableRawPointer
    private var message: UnsafeMutableRawPointer

    /// - Parameters:
    ///   - base: room for `datagramsPerRequestMax` datagrams.
    ///   - lengths: gets the octets of each.
    init(_ base: UnsafeMutableRawPointer, _ lengths: UnsafeMutablePointer<Int32>) {
        self.base = base
        self.lengths = lengths
        place = base
        message = base
    }

    /// Begins an answer of so many octets.
    @inline(__always)
    mutating func begin(_ type: MessageType, _ code: ResponseCode, _ sequence: UInt32, octets: Int) {
        if datagramsCount == 0 || messagesCount == SignalDatagram.messagesMax
            || Int(lengths[datagramsCount - 1]) + octets > SignalDatagram.octetsMax
        {
            place = base + datagramsCount * DatagramBatch.octetsPerDatagram
            lengths[datagramsCount] = 0
            datagramsCount += 1
            messagesCount = 0
        }
        message = place
        lengths[datagramsCount - 1] += Int32(truncatingIfNeeded: octets)
        messagesCount += 1
        // Type, code, flag X, length in words.
        let head = UInt32(type.rawValue) << 24 | UInt32(code.rawValue) << 16 | 1 << 8 | UInt32(truncatingIfNeeded: octets / 4)
        put(head)
        put(sequence)
    }

    @inline(__always)
    private mutating func put<Number: FixedWidthInteger & BitwiseCopyable>(_ number: Number) {
        place.storeBytes(of: number.bigEndian, as: Number.self)
        place += MemoryLayout<Number>.size
    }

    @inline(__always)
    private mutating func option(_ kind: OptionKind, _ count: Int) {
        put(UInt32(kind.rawValue) << 16 | UInt32(truncatingIfNeeded: count))
    }

    @inline(__always)
    mutating func cookie(_ client: UInt64, _ server: ServerCookie?) {
        option(.cookie, server == nil ? 8 : 24)
        put(client)
        guard let server else { return }
        put(server.head)
        put(server.hash)
    }

    @inline(__always)
    mutating func address(_ kind: OptionKind, _ address: IPAddress) {
        option(kind, 16)
        put(address.high)
        put(address.low)
    }

    /// XOBSERVED: what no translator on the way finds and rewrites.
    mutating func observed(_ source: Endpoint, _ client: UInt64) {
        option(.xObserved, 20)
        put(source.address.high ^ client)
        put(source.address.low ^ client)
        put(source.port ^ UInt16(truncatingIfNeeded: client >> 48))
        put(UInt16(0))
    }

    @inline(__always)
    mutating func lifetime(_ seconds: UInt32) {
        option(.lifetime, 4)
        put(seconds)
    }

    @inline(__always)
    mutating func options(_ octets: UnsafeRawPointer, _ count: Int) {
        place.copyMemory(from: octets, byteCount: count)
        place += count
    }

    mutating func text(_ text: AnswerText) {
        option(.text, text.count)
        place.copyMemory(from: text.octets, byteCount: text.count)
        place += text.count
        while (place - message) & 3 != 0 {
            place.storeBytes(of: 0, as: UInt8.self)
            place += 1
        }
    }
}

/// The text of an answer that says no, put together without memory of its own.
struct AnswerText {
    private static let room = 256
    let octets: UnsafeMutableRawPointer
    private(set) var count = 0

    init() { octets = .allocate(byteCount: Self.room, alignment: 8) }

    func deallocate() { octets.deallocate() }

    /// What the option TEXT takes with its head and padding.
    var optionOctets: Int { 4 + (count + 3) & ~3 }

    /// Text, an address as `IPAddress.description` writes it, text.
    mutating func set(_ before: StaticString, _ address: IPAddress? = nil, _ after: StaticString = "") {
        count = 0
        append(before)
        if let address { append(address) }
        append(after)
    }

    private mutating func append(_ text: StaticString) {
        guard text.hasPointerRepresentation, count + text.utf8CodeUnitCount <= Self.room else { return }
        (octets + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        count += text.utf8CodeUnitCount
    }

    private mutating func append(_ address: IPAddress) {
        guard count + Int(INET6_ADDRSTRLEN) <= Self.room else { return }
        let place = (octets + count).assumingMemoryBound(to: CChar.self)
        if let ipv4 = address.ipv4 {
            var number = ipv4.bigEndian
            inet_ntop(AF_INET, &number, place, socklen_t(INET6_ADDRSTRLEN))
        } else {
            var words = (address.high.bigEndian, address.low.bigEndian)
            inet_ntop(AF_INET6, &words, place, socklen_t(INET6_ADDRSTRLEN))
        }
        count += strlen(place)
    }
}

import MATSignal

/// What a datagram holds, as far as it matters for who may have the core look at it. The later ones weigh more: a datagram of several
/// messages is of the kind of its heaviest.
enum DatagramKind: UInt8, Comparable, Sendable {
    /// Queries, answers and acks.
    case regular
    case update
    /// HA Notify, MA Notify: strangers send these too, and each may cost a signature check, a look-up, a question to another server.
    case notify
    /// A message of the draft's form.
    case draft
    /// What can't be read, or is of an unknown type, or has an option that must be known and is not.
    case odd

    static func < (a: DatagramKind, b: DatagramKind) -> Bool { a.rawValue < b.rawValue }
}

/// A request that is alone in its datagram and is no query, read in place.
struct RequestHead {
    var type: MessageType
    var sequence: UInt32
    var clientCookie: UInt64
    var serverCookie: ServerCookie?
    /// HOA of HA Notify, or the mapping's.
    var hoa: IPAddress
}

/// Reads what `QueryResponder` leaves, in place: without allocating and in a fraction of a microsecond, so that a flood of what is not
/// worth the core's time ends at the worker.
///
/// It finds malformed what `SignalDatagram.decode` finds malformed (`QueryPathTests` compares them), with three exceptions: which options a
/// response must have, and the draft's bodies, are left to the core; and TEXT in a request, which no node sends, is odd.
enum DatagramInspector {
    struct Result {
        var kind: DatagramKind
        var request: RequestHead?
    }

    static func inspect(_ datagram: UnsafeRawBufferPointer) -> Result {
        guard let base = datagram.baseAddress, datagram.count <= SignalDatagram.octetsMax else { return Result(kind: .odd) }
        var kind = DatagramKind.regular
        var request: RequestHead?
        var start = 0
        var count = 0
        repeat {
            guard count < SignalDatagram.messagesMax, datagram.count - start >= SignalHeader.octetsCount else { return Result(kind: .odd) }
            let octets = Int(base.load(fromByteOffset: start + 3, as: UInt8.self)) * 4
            guard octets >= SignalHeader.octetsCount, octets <= datagram.count - start else { return Result(kind: .odd) }
            var message = Message(base + start, octets)
            kind = max(kind, message.read())
            guard kind != .odd else { return Result(kind: .odd) }
            request = message.head
            start += octets
            count += 1
        } while start < datagram.count
        return Result(kind: kind, request: count == 1 ? request : nil)
    }
}

/// One message. Nothing is read beyond `octets`.
private struct Message {
    private let base: UnsafeRawPointer
    private let octets: Int
    private var client: UInt64 = 0
    private var server: ServerCookie?
    private var hoa = IPAddress(high: 0, low: 0)
    private var mappingHoA = IPAddress(high: 0, low: 0)
    /// A bit for each kind of option that was there.
    private var seen: UInt32 = 0
    private(set) var head: RequestHead?

    init(_ base: UnsafeRawPointer, _ octets: Int) {
        self.base = base
        self.octets = octets
    }

    private func octet(_ place: Int) -> UInt8 { base.load(fromByteOffset: place, as: UInt8.self) }
    private func half(_ place: Int) -> Int { Int(UInt16(bigEndian: base.loadUnaligned(fromByteOffset: place, as: UInt16.self))) }
    private func word(_ place: Int) -> UInt32 { UInt32(bigEndian: base.loadUnaligned(fromByteOffset: place, as: UInt32.self)) }
    private func double(_ place: Int) -> UInt64 { UInt64(bigEndian: base.loadUnaligned(fromByteOffset: place, as: UInt64.self)) }
    private func address(_ place: Int) -> IPAddress { IPAddress(high: double(place), low: double(place + 8)) }

    private func isZero(_ range: Range<Int>) -> Bool {
        for place in range where octet(place) != 0 { return false }
        return true
    }

    private func has(_ kind: OptionKind) -> Bool { seen & 1 << UInt32(kind.rawValue) != 0 }

    mutating func read() -> DatagramKind {
        guard let type = MessageType(rawValue: octet(0)) else { return .odd }
        guard octet(2) & 1 == 1 else { return .draft }
        guard readOptions(isRequest: type.isRequest) else { return .odd }
        guard type.isRequest else { return .regular }
        guard has(.cookie), !has(.mapping) || has(.certificate) != has(.certID) else { return .odd }
        switch type {
        case .maQuery: return has(.hoa) ? .regular : .odd
        case .haQuery: return has(.moa) ? .regular : .odd
        case .haNotify: guard has(.hoa), has(.peerHoA) else { return .odd }
        default: guard has(.mapping) else { return .odd }
        }
        head = RequestHead(
            type: type, sequence: word(4), clientCookie: client, serverCookie: server, hoa: type == .haNotify ? hoa : mappingHoA)
        return type == .imsUpdate ? .update : .notify
    }

    /// - Returns: whether each is well-formed for itself.
    private mutating func readOptions(isRequest: Bool) -> Bool {
        var place = SignalHeader.octetsCount
        var wantsSignature = false
        while place < octets {
            guard octets - place >= 4 else { return false }
            let kind = OptionKind(rawValue: UInt16(truncatingIfNeeded: half(place)))
            let count = half(place + 2)
            place += 4
            let end = place + count
            let padded = place + (count + 3) & ~3
            guard padded <= octets, isZero(end..<padded), !wantsSignature || kind == .signature else { return false }
            guard kind.rawValue < 16, kind.rawValue != 0, kind.rawValue != 14 else {
                // Unknown: passed over, unless the sender says that it must not be.
                guard !kind.isCritical else { return false }
                place = padded
                continue
            }
            guard kind == .locatorProof || !has(kind) else { return false }
            seen |= 1 << UInt32(kind.rawValue)
            switch kind {
            case .pad:
                guard isZero(place..<end) else { return false }
            case .cookie:
                guard count == 8 || count == 24 else { return false }
                client = double(place)
                if count == 24 { server = ServerCookie(head: double(place + 8), hash: double(place + 16)) }
            case .hoa, .moa, .peerHoA:
                guard count == 16, address(place).isUsableUnicast else { return false }
                if kind == .hoa { hoa = address(place) }
            case .observed:
                guard count == 20, address(place).isUsableUnicast, isZero(place + 18..<end) else { return false }
            case .mapping:
                guard isMapping(place, count) else { return false }
                mappingHoA = address(place)
                wantsSignature = true
            case .signature:
                guard wantsSignature, count == Signature.octetsCount else { return false }
                wantsSignature = false
            case .certificate:
                guard count == Certificate.octetsCount, isPrefix(place), isZero(place + 17..<place + 20) else { return false }
            case .certID:
                guard count == 8 else { return false }
            case .subscribe, .lifetime:
                guard count == 4 else { return false }
            case .locatorProof:
                guard count == 40, address(place).isUsableUnicast else { return false }
            default:
                // TEXT. Answers have it, and whether it is UTF-8 is seen when someone reads it.
                guard !isRequest, count <= 200 else { return false }
            }
            place = padded
        }
        return !wantsSignature
    }

    /// `address 16 | prefix length 1`, a prefix that an address of its family can have, without bits beyond its length.
    private func isPrefix(_ place: Int) -> Bool {
        let (address, length) = (address(place), octet(place + 16))
        return address.isUsableUnicast && length > 0 && (!address.isIPv4 || length > 96) && IPPrefix(address, length: length) != nil
    }

    /// Section 4 of protocol.md.
    private func isMapping(_ place: Int, _ count: Int) -> Bool {
        guard count >= 40, isPrefix(place), octet(place + 17) == 0 else { return false }
        let locators = half(place + 18)
        guard locators <= MappingRecord.locatorsMax, count == 40 + 20 * locators else { return false }
        let hoa = address(place)
        var isHome = true
        for number in 0..<locators {
            let locator = place + 40 + 20 * number
            guard isPrefix(locator), octet(locator + 16) == octet(place + 16), isZero(locator + 18..<locator + 20) else { return false }
            // None stands twice; there are eight at most.
            for earlier in 0..<number where address(place + 40 + 20 * earlier) == address(locator) { return false }
            if address(locator) != hoa { isHome = false }
        }
        let lifetime = word(place + 28)
        return lifetime > 0 && lifetime <= (isHome ? MappingRecord.homeLifetimeMax : MappingRecord.lifetimeMax)
    }
}

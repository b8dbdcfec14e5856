import MATSignal
import MappingMemory

/// One MA Query or HA Query, read in place.
struct Query {
    var isHA = false
    var hasServerCookie = false
    var isValidated = false
    /// Whether the mapping that was found is good for an answer: there, and not expired.
    var isCurrent = false
    var sequence: UInt32 = 0
    /// Octets of the message.
    var octetsCount = 0
    var clientCookie: UInt64 = 0
    var serverCookie = ServerCookie(head: 0, hash: 0)
    /// The HoA or MoA asked for.
    var address = IPAddress(high: 0, low: 0)
    var certificateID: UInt64?
    var subscribe: UInt32 = 0
    /// The mapping found for it.
    var block: MappingBlock?
}

/// Reads datagrams that hold nothing but MA Queries and HA Queries without anything unusual. Whatever else a datagram holds, even if it
/// is well-formed, is the core's affair; so this has to know only what the two messages consist of, and may give up at anything.
enum QueryDecoder {
    /// - Returns: how many messages there are; 0 if the datagram is for the core.
    static func decode(_ datagram: UnsafeRawBufferPointer, into queries: UnsafeMutablePointer<Query>) -> Int {
        guard let base = datagram.baseAddress, datagram.count <= SignalDatagram.octetsMax else { return 0 }
        var start = 0
        var count = 0
        while start < datagram.count {
            guard count < SignalDatagram.messagesMax, datagram.count - start >= SignalHeader.octetsCount else { return 0 }
            let octets = Int(base.load(fromByteOffset: start + 3, as: UInt8.self)) * 4
            guard octets >= SignalHeader.octetsCount, octets <= datagram.count - start else { return 0 }
            guard decode(base + start, octets, into: &queries[count]) else { return 0 }
            start += octets
            count += 1
        }
        return count
    }

    /// All offsets below are checked against `octets` before anything is read there.
    @inline(__always)
    private static func decode(_ message: UnsafeRawPointer, _ octets: Int, into query: inout Query) -> Bool {
        let type = message.load(as: UInt8.self)
        guard type == MessageType.maQuery.rawValue || type == MessageType.haQuery.rawValue,
            message.load(fromByteOffset: 2, as: UInt8.self) & 1 == 1
        else { return false }
        query = Query()
        query.isHA = type == MessageType.haQuery.rawValue
        query.sequence = UInt32(bigEndian: message.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        query.octetsCount = octets

        func word(_ offset: Int) -> UInt64 { UInt64(bigEndian: message.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }

        // A bit for each kind below 16: none may stand twice.
        var seen: UInt32 = 0
        var place = SignalHeader.octetsCount
        while place < octets {
            guard octets - place >= 4 else { return false }
            let kind = UInt16(bigEndian: message.loadUnaligned(fromByteOffset: place, as: UInt16.self))
            let count = Int(UInt16(bigEndian: message.loadUnaligned(fromByteOffset: place + 2, as: UInt16.self)))
            place += 4
            let padded = (count + 3) & ~3
            guard kind < 16, padded <= octets - place, seen & (1 << UInt32(kind)) == 0 else { return false }
            seen |= 1 << UInt32(kind)
            switch kind {
            case OptionKind.cookie.rawValue:
                guard count == 8 || count == 24 else { return false }
                query.clientCookie = word(place)
                if count == 24 {
                    query.hasServerCookie = true
                    query.serverCookie = ServerCookie(head: word(place + 8), hash: word(place + 16))
                }
            case OptionKind.hoa.rawValue, OptionKind.moa.rawValue:
                guard count == 16 else { return false }
                let address = IPAddress(high: word(place), low: word(place + 8))
                guard address.isUsableUnicast else { return false }
                if (kind == OptionKind.moa.rawValue) == query.isHA { query.address = address }
            case OptionKind.certID.rawValue:
                guard count == 8 else { return false }
                query.certificateID = word(place)
            case OptionKind.subscribe.rawValue:
                guard count == 4 else { return false }
                query.subscribe = UInt32(bigEndian: message.loadUnaligned(fromByteOffset: place, as: UInt32.self))
            case OptionKind.pad.rawValue:
                for offset in 0..<padded where message.load(fromByteOffset: place + offset, as: UInt8.self) != 0 { return false }
            default:
                return false
            }
            place += padded
        }
        let needed = 1 << UInt32(OptionKind.cookie.rawValue)
            | 1 << UInt32(query.isHA ? OptionKind.moa.rawValue : OptionKind.hoa.rawValue) as UInt32
        return seen & needed == needed
    }
}

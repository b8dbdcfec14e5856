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

/// Reads datagrams that hold nothing but MA Queries and HA Queries, by the grammar that all readers share. Whatever else a datagram holds,
/// even if it is well-formed, is the core's affair.
struct QueryDecoder {
    /// The options that queries are answered by; what is well-formed and means nothing in a query may stand beside them.
    private static var understood: UInt64 {
        OptionKind.cookie.bit | OptionKind.hoa.bit | OptionKind.moa.bit | OptionKind.certID.bit | OptionKind.subscribe.bit | OptionKind.pad.bit
    }

    let table: OptionTable

    /// - Returns: how many messages there are; 0 if the datagram is for the core.
    func decode(_ datagram: UnsafeRawBufferPointer, into queries: UnsafeMutablePointer<Query>) -> Int {
        guard datagram.count <= SignalDatagram.octetsMax else { return 0 }
        var start = 0
        var count = 0
        while start < datagram.count {
            guard count < SignalDatagram.messagesMax else { return 0 }
            var message = SignalView(datagram, from: start)
            guard !message.isEmpty, read(&message, into: &queries[count]) else { return 0 }
            start += message.octetsCount
            count += 1
        }
        return count
    }

    @inline(__always)
    private func read(_ message: inout SignalView, into query: inout Query) -> Bool {
        let type = message.typeNumber
        guard type == MessageType.maQuery.rawValue || type == MessageType.haQuery.rawValue, message.hasOptions, message.read(table) == nil,
            message.hasOnly(Self.understood), let cookie = message.cookie
        else { return false }
        let isHA = type == MessageType.haQuery.rawValue
        guard let address = message.address(isHA ? .moa : .hoa) else { return false }
        query = Query()
        query.isHA = isHA
        query.sequence = message.sequence
        query.octetsCount = message.octetsCount
        query.clientCookie = cookie.client
        if let server = cookie.server {
            query.hasServerCookie = true
            query.serverCookie = server
        }
        query.address = address
        query.certificateID = message.uint64(.certID)
        query.subscribe = message.uint32(.subscribe) ?? 0
        return true
    }
}

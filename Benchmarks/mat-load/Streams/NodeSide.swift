import BenchSupport
import MATSignal

/// The nodes' end: one socket on their port that speaks for all of their addresses, hands answers to the stream that asked, and
/// acknowledges what the server pushes.
final class NodeSide: LoadStream {
    /// The sequence number's upper octet names the stream.
    private var streams: [Exchanges?] = Array(repeating: nil, count: 256)
    private var lastStream: UInt8 = 0
    private let inbox: Inbox
    let outbox: Outbox
    /// Gets each MA Notify: from which server, to which address.
    var pushed: ((MessageView, _ to: IPAddress, _ now: UInt64) -> Void)?
    private(set) var pushesAcknowledged: UInt64 = 0

    /// - Parameter socket: on the nodes' port (6289), except for those that prove nothing.
    init(_ socket: LoadSocket) {
        inbox = Inbox(socket, wantsAddresses: true)
        outbox = Outbox(socket)
    }

    /// Numbers come round: of two streams 255 apart the earlier is long done.
    func nextStreamNumber() -> UInt8 {
        lastStream = lastStream == 255 ? 1 : lastStream + 1
        return lastStream
    }

    func add(_ stream: Exchanges, _ number: UInt8) { streams[Int(number)] = stream }

    var isDone: Bool { true }

    /// Comes last in a generator's list: it also sends what the others have put out.
    func turn(_ now: UInt64) {
        outbox.flush()
        while true {
            let count = inbox.receive()
            guard count > 0 else { break }
            let now = Ticks.wall()
            for index in 0..<count {
                MessageView.forEach(in: inbox.datagram(index)) { message in
                    if message.type & 1 == 0 {
                        streams[Int(message.sequence >> 24)]?.took(message, now)
                    } else if message.type == MessageType.maNotify.rawValue, let local = inbox.local(index) {
                        pushed?(message, local, now)
                        acknowledge(message, from: local, to: inbox.source(index))
                    }
                }
            }
            if count < Inbox.datagramsMax { break }
        }
        outbox.flush()
    }

    /// MA Notify Ack: the client cookie comes back with a server cookie, which is ours to choose, and the HoA.
    private func acknowledge(_ message: MessageView, from local: IPAddress, to server: Endpoint) {
        guard let cookie = message.option(.cookie), cookie.count >= 8, let hoa = message.mapping?.hoa else { return }
        let client = cookie.loadUnaligned(as: UInt64.self)
        pushesAcknowledged &+= 1
        outbox.add(from: local, to: server) { octets in
            octets.storeBytes(of: UInt32(bigEndian: 0x0A00_010E), as: UInt32.self)
            octets.store(sequence: message.sequence)
            octets.storeBytes(of: UInt32(bigEndian: 0x0002_0018), toByteOffset: 8, as: UInt32.self)
            octets.storeBytes(of: client, toByteOffset: Offset.clientCookie, as: UInt64.self)
            octets.storeBytes(of: UInt64(bigEndian: 0x0100_0000_0000_0001), toByteOffset: Offset.serverCookie, as: UInt64.self)
            octets.storeBytes(of: client, toByteOffset: Offset.serverCookie + 8, as: UInt64.self)
            octets.storeBytes(of: UInt32(bigEndian: 0x0003_0010), toByteOffset: Offset.next, as: UInt32.self)
            octets.store(hoa, at: Offset.hoa)
            return 56
        }
    }
}

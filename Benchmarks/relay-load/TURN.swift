import BenchSupport
import Glibc
import MATRuntime
import MATSignal

/// A client's channel to a peer at a TURN server (RFC 8656), as short as a benchmark can do with: IPv4, no authentication.
struct TURNChannel {
    let client: End
    let peer: End
    /// Where the peer sends to.
    let relayed: Endpoint

    private static let number: UInt16 = 0x4000

    init(client: End, peer: End) throws {
        self.client = client
        self.peer = peer
        // REQUESTED-TRANSPORT: UDP.
        let allocated = try Self.ask(client, 0x0003, Self.attribute(0x0019, [17, 0, 0, 0]))
        // XOR-RELAYED-ADDRESS.
        guard let value = allocated[0x0016], value.count == 8 else { throw BenchError("coturn told no relayed address") }
        relayed = Endpoint(
            IPAddress(ipv4: Self.word(value, 4) ^ Self.magic), port: UInt16(value[2] ^ 0x21) << 8 | UInt16(value[3] ^ 0x12))
        guard let address = peer.place.address.ipv4 else { throw BenchError("the peer has no IPv4 address") }
        // XOR-PEER-ADDRESS.
        let port = peer.place.port ^ 0x2112
        let place = [0, 1, UInt8(port >> 8), UInt8(port & 0xFF)] + Self.octets(address ^ Self.magic)
        let channel: [UInt8] = [UInt8(Self.number >> 8), UInt8(Self.number & 0xFF), 0, 0]
        _ = try Self.ask(client, 0x0009, Self.attribute(0x000C, channel) + Self.attribute(0x0012, place))
    }

    /// The octets as a datagram for the peer.
    func channel(_ octets: [UInt8]) -> [UInt8] {
        [UInt8(Self.number >> 8), UInt8(Self.number & 0xFF), UInt8(octets.count >> 8 & 0xFF), UInt8(octets.count & 0xFF)] + octets
    }

    private static let magic: UInt32 = 0x2112_A442

    private static func octets(_ word: UInt32) -> [UInt8] { withUnsafeBytes(of: word.bigEndian) { Array($0) } }
    private static func word(_ octets: [UInt8], _ place: Int) -> UInt32 { octets[place..<place + 4].reduce(0) { $0 << 8 | UInt32($1) } }

    private static func attribute(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
        [UInt8(type >> 8), UInt8(type & 0xFF), UInt8(value.count >> 8 & 0xFF), UInt8(value.count & 0xFF)] + value
            + [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
    }

    /// - Returns: the attributes of the answer, if that is a success.
    private static func ask(_ client: End, _ type: UInt16, _ attributes: [UInt8]) throws -> [UInt16: [UInt8]] {
        let head: [UInt8] = [UInt8(type >> 8), UInt8(type & 0xFF), UInt8(attributes.count >> 8 & 0xFF), UInt8(attributes.count & 0xFF)]
        let request = head + octets(magic) + (0..<12).map { UInt8($0) ^ UInt8(type & 0xFF) } + attributes
        // As long as it may take to start.
        for _ in 0..<50 {
            client.socket.send(request, to: client.relay)
            var waiting = pollfd(fd: client.socket.descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, 200) > 0 else { continue }
            var buffer = [UInt8](repeating: 0, count: 2048)
            let count = recv(client.socket.descriptor, &buffer, buffer.count, 0)
            guard count >= 20, buffer[0] == UInt8(type >> 8) | 1, buffer[1] == UInt8(type & 0xFF) else { continue }
            var result: [UInt16: [UInt8]] = [:]
            var place = 20
            while place + 4 <= count {
                let length = Int(buffer[place + 2]) << 8 | Int(buffer[place + 3])
                guard place + 4 + length <= count else { break }
                result[UInt16(buffer[place]) << 8 | UInt16(buffer[place + 1])] = Array(buffer[place + 4..<place + 4 + length])
                place += 4 + (length + 3) / 4 * 4
            }
            return result
        }
        throw BenchError("coturn does not answer a request of type \(String(type, radix: 16)), or refuses it")
    }
}

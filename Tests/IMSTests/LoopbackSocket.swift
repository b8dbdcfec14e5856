import Glibc
import Testing

/// A UDP socket on loopback that counts what it sends and gets.
final class LoopbackSocket {
    private let descriptor: Int32
    private let peer: UInt16
    private(set) var port: UInt16 = 0
    private(set) var octetsSent = 0
    private(set) var octetsReceived = 0
    private(set) var received: [[UInt8]] = []

    /// Datagrams kept; of more only the octets are counted.
    private static let keptMax = 4096

    /// - Parameter peer: the port at 127.0.0.1 to send to; 0 for a socket that only listens.
    init(peer: UInt16) throws {
        self.peer = peer
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        self.descriptor = descriptor
        try #require(descriptor >= 0)
        var size: Int32 = 4 << 20
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, 4)
        var name = Self.name(0)
        let bound = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        try #require(bound == 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        port = UInt16(bigEndian: name.sin_port)
    }

    deinit { close(descriptor) }

    private static func name(_ port: UInt16) -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return name
    }

    func send(_ octets: [UInt8]) {
        var name = Self.name(peer)
        octetsSent += octets.count
        _ = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, octets, octets.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    /// Takes what has come so far.
    func drain() {
        var buffer = [UInt8](repeating: 0, count: 2048)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0 { return }
            octetsReceived += count
            if received.count < Self.keptMax { received.append(Array(buffer.prefix(count))) }
        }
    }

    /// Waits for the next datagram.
    func next(within milliseconds: Int32) -> [UInt8]? {
        let before = received.count
        var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&poller, 1, milliseconds) == 1 else { return nil }
        drain()
        return received.count > before ? received[before] : nil
    }
}

import Glibc
import MATRuntime
import MATSignal
import Testing

@testable import IMS

@Suite("Where locator checks come from")
struct ReachabilitySocketsTests {
    /// A socket at 127.0.0.1, and what has come to it by now: over loopback that is there when the call that sent it returns.
    private struct Node {
        let socket: BoundSocket
        let endpoint: Endpoint

        init() throws {
            let here = try #require(IPAddress("127.0.0.1"))
            socket = try BoundSocket(port: 0, address: here, options: BoundSocket.Options())
            var name = sockaddr_in6()
            var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
            let descriptor = socket.descriptor
            let found = withUnsafeMutablePointer(to: &name) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
            }
            try #require(found == 0)
            endpoint = Endpoint(here, port: UInt16(bigEndian: name.sin6_port))
        }

        /// First octets, each with its sender's last.
        var received: [[UInt8]] {
            var all: [[UInt8]] = []
            while true {
                var (name, octet) = (sockaddr_in6(), UInt8(0))
                var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
                let count = withUnsafeMutablePointer(to: &name) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(socket.descriptor, &octet, 1, Int32(MSG_DONTWAIT), $0, &length) }
                }
                guard count >= 0 else { return all }
                all.append([octet, withUnsafeBytes(of: name.sin6_addr) { $0[15] }])
            }
        }
    }

    @Test("From another address than the node has sent to if there is one, all of them, when they are flushed")
    func addresses() throws {
        let node = try Node()
        let (one, two, six) = (try #require(IPAddress("127.0.0.1")), try #require(IPAddress("127.0.0.2")), try #require(IPAddress("::1")))
        let sockets = try ReachabilitySockets(addresses: [six, one, two])
        for number in 0..<UInt8(40) { sockets.add([number], to: node.endpoint, avoiding: number % 2 == 0 ? one : two) }
        sockets.flush()
        #expect(node.received == (0..<40).map { [$0, $0 % 2 == 0 ? 2 : 1] })
        // With one address of the family alone it is from that.
        let single = try ReachabilitySockets(addresses: [six, one])
        single.add([7], to: node.endpoint, avoiding: one)
        #expect(node.received == [])
        single.flush()
        #expect(node.received == [[7, 1]])
        // One socket for all addresses.
        let any = try ReachabilitySockets(addresses: [])
        any.add([8], to: node.endpoint, avoiding: one)
        any.flush()
        #expect(node.received == [[8, 1]])
    }
}

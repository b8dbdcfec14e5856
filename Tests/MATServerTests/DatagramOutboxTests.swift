import Glibc
import MATRuntime
import MATSignal
import Testing

@testable import MATServer

@Suite("Datagrams that leave together")
struct DatagramOutboxTests {
    private let here = address("127.0.0.1")

    private func socket(at address: IPAddress?) throws -> BoundSocket { try BoundSocket(port: 0, address: address, options: BoundSocket.Options()) }

    private func endpoint(_ socket: BoundSocket, _ address: IPAddress) throws -> Endpoint {
        var name = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let found = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket.descriptor, $0, &length) }
        }
        try #require(found == 0)
        return Endpoint(address, port: UInt16(bigEndian: name.sin6_port))
    }

    /// What has come by now: over loopback a datagram is there when the call that sent it returns.
    private func received(_ socket: BoundSocket) -> [[UInt8]] {
        var all: [[UInt8]] = []
        var buffer = [UInt8](repeating: 0, count: 2048)
        while true {
            let count = recv(socket.descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            guard count >= 0 else { return all }
            all.append(Array(buffer.prefix(count)))
        }
    }

    @Test("All arrive in their order, whatever the kernel refuses among them, and that is told alone")
    func refusals() throws {
        let (sender, one, two) = (try socket(at: nil), try socket(at: here), try socket(at: here))
        let (first, second) = (try endpoint(one, here), try endpoint(two, here))
        var refused: [([UInt8], IPAddress?, Endpoint)] = []
        let outbox = DatagramOutbox(refused: { refused.append(($0, $1, $2)) })
        for number in 0..<UInt8(150) {
            // No address of this host, in the middle of a call's worth.
            if number == 20 || number == 21 { outbox.add([number], from: address("203.0.113.9"), to: first, by: sender) }
            outbox.add([number, 1], from: number % 3 == 0 ? nil : here, to: first, by: sender)
            outbox.add([number, 2], from: here, to: second, by: sender)
        }
        outbox.add([UInt8](repeating: 0, count: DatagramBatch.octetsPerDatagram + 1), from: nil, to: first, by: sender)
        outbox.send()
        #expect(received(one) == (0..<150).map { [$0, 1] })
        #expect(received(two) == (0..<150).map { [$0, 2] })
        #expect(refused.map(\.0.count) == [1, 1, DatagramBatch.octetsPerDatagram + 1])
        #expect(refused.prefix(2).map(\.0) == [[20], [21]] && refused[0].1 == address("203.0.113.9") && refused[0].2 == first)
        // Nothing goes twice.
        outbox.send()
        #expect(received(one).isEmpty && received(two).isEmpty && refused.count == 3)
    }

    @Test("Each goes by its own socket; what was dropped or may not be sent never goes")
    func sockets() throws {
        let (left, right, receiver) = (try socket(at: here), try socket(at: here), try socket(at: here))
        let target = try endpoint(receiver, here)
        var maySend = true
        let outbox = DatagramOutbox(max: 4, maySend: { _ in maySend })
        for number in 0..<UInt8(9) { outbox.add([number], from: nil, to: target, by: number % 2 == 0 ? left : right) }
        outbox.send()
        #expect(received(receiver) == (0..<9).map { [$0] })
        outbox.add([100], from: nil, to: target, by: left)
        outbox.drop()
        maySend = false
        for number in 101..<UInt8(110) { outbox.add([number], from: nil, to: target, by: left) }
        outbox.send()
        maySend = true
        outbox.add([200], from: nil, to: target, by: left)
        outbox.send()
        #expect(received(receiver) == [[200]])
    }
}

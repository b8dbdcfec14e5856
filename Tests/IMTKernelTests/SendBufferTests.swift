import MATRuntime
import MATSignal
import Namespaces
import Testing

/// What is for neighbours that are not there stays in the sender's buffer while the kernel looks for them.
///
/// ```
///   netns a: a0 192.0.2.1/24, 2001:db8::1/64 ---- netns b: 192.0.2.2, 2001:db8::2, and nobody else
/// ```
@Suite("Send buffers", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct SendBufferTests {
    @Test("Datagrams for a thousand neighbours that are not there leave room for others, if they are sent as a stranger's", arguments: [true, false])
    func room(isIPv4: Bool) throws {
        let (a, b) = (try Namespace.host("a"), try Namespace.host("b"))
        try shell("ip -n \(a.name) link add a0 type veth peer name b0 netns \(b.name)")
        for (host, link, number) in [(a, "a0", 1), (b, "b0", 2)] {
            try shell("ip -n \(host.name) link set \(link) up")
            try shell("ip -n \(host.name) address add 192.0.2.\(number)/24 dev \(link)")
            try shell("ip -n \(host.name) address add 2001:db8::\(number)/64 dev \(link) nodad")
        }
        func address(_ number: Int) throws -> IPAddress {
            try #require(IPAddress(isIPv4 ? "192.0.2.\(number % 250 + 3)" : "2001:db8::1:\(String(number, radix: 16))"))
        }
        let there = Endpoint(try #require(IPAddress(isIPv4 ? "192.0.2.2" : "2001:db8::2")), port: 6289)
        for isStranger in [true, false] {
            let socket = try a.inside { try BoundSocket(port: isStranger ? 6289 : 6290, address: nil, options: BoundSocket.Options()) }
            let receiver = try TestSocket(b, type: TestSocket.datagram, isIPv4: isIPv4)
            try receiver.bind(there.address, port: 6289)
            var refused = 0
            for number in 0..<1000 {
                let target = Endpoint(try address(number), port: 6289)
                let octets = [UInt8](repeating: 7, count: 40)
                if (isStranger ? socket.sendIfRoom(octets, to: target) : socket.send(octets, to: target)) != nil { refused += 1 }
            }
            // Either way not all had room; the question is for whom some is left.
            #expect(refused > 0)
            let error = socket.send([1, 2, 3], to: there)
            #expect((error == nil) == isStranger, "\(error.map(\.description) ?? "sent")")
            if isStranger { #expect(try receiver.receiveFrom().octets == [1, 2, 3]) }
        }
    }
}

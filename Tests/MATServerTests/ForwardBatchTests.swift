import CLinux
import Glibc
import MATRuntime
import MATSignal
import Testing

@testable import MATServer

@Suite("Batches that are passed on")
struct ForwardBatchTests {
    private let here = address("127.0.0.1")
    private let hereIPv6 = address("::1")

    private func socket(at address: IPAddress?, forwards: Bool = false) throws -> (socket: BoundSocket, port: UInt16) {
        var options = BoundSocket.Options()
        options.forwards = forwards
        let socket = try BoundSocket(port: 0, address: address, options: options)
        var name = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let isKnown = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket.descriptor, $0, &length) == 0 }
        }
        try #require(isKnown)
        return (socket, UInt16(bigEndian: name.sin6_port))
    }

    /// Datagrams of this socket, until so many came or ten seconds have passed without one.
    private func receive(_ descriptor: Int32, _ count: Int) -> [[UInt8]] {
        var all: [[UInt8]] = []
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while all.count < count, poll(&waiting, 1, 10_000) > 0 {
            let octets = recv(descriptor, &buffer, buffer.count, 0)
            if octets >= 0 { all.append(Array(buffer.prefix(octets))) }
        }
        return all
    }

    @Test("Datagrams arrive whole and in order, whatever their sizes, and each where it is to go, over either family")
    func passedOn() throws {
        let (relay, relayPort) = try socket(at: nil, forwards: true)
        let (sender, _) = try socket(at: here)
        let targets = [(try socket(at: here), here), (try socket(at: hereIPv6), hereIPv6)]
        var batch = ForwardBatch(socketsCount: 1)
        defer { batch.deallocate() }
        var random = SystemRandomNumberGenerator()
        // Runs of equal sizes, which leave as one; shorter ones at their ends; longer ones behind; empty ones.
        for round in 0..<60 {
            var sizes = [Int](repeating: 1400, count: 64)
            // Not more at once than a receive buffer takes.
            if round > 0 { sizes = (0..<16).map { _ in [0, 1, 60, 60, 60, 1400, 1400, 9000].randomElement(using: &random) ?? 0 } }
            var expected: [[[UInt8]]] = [[], []]
            for (number, size) in sizes.enumerated() {
                let target = round == 0 ? 0 : number / 7 % 2
                // Not to be recognised by its content: the batch may not look at it.
                let payload = (0..<size).map { UInt8(truncatingIfNeeded: $0 + number + round) }
                expected[target].append(payload)
                try #require(sender.send(payload, to: Endpoint(here, port: relayPort)) == nil)
            }
            var index = 0
            while index < sizes.count {
                let count = batch.receive(relay.descriptor)
                for place in 0..<count {
                    let target = round == 0 ? 0 : (index + place) / 7 % 2
                    #expect(batch.datagram(place).local == here)
                    batch.forward(place, from: targets[target].1, to: Endpoint(targets[target].1, port: targets[target].0.port), by: 0)
                }
                let failures = batch.send([relay.descriptor])
                #expect(failures.count == 0)
                index += count
            }
            for (target, payloads) in expected.enumerated() {
                let received = receive(targets[target].0.socket.descriptor, payloads.count)
                try #require(received == payloads, "round \(round)")
            }
        }
    }

    @Test("The traffic class that a datagram came with is the one that it leaves with", arguments: [0, 3, 0xB8])
    func trafficClass(class number: Int32) throws {
        let (relay, relayPort) = try socket(at: nil, forwards: true)
        let (sender, _) = try socket(at: here)
        var batch = ForwardBatch(socketsCount: 1)
        let observer = ForwardBatch(socketsCount: 1)
        defer {
            batch.deallocate()
            observer.deallocate()
        }
        var value = number
        try #require(setsockopt(sender.descriptor, Int32(IPPROTO_IP), IP_TOS, &value, 4) == 0)
        for target in [here, hereIPv6] {
            let (end, port) = try socket(at: target, forwards: true)
            for _ in 0..<3 { try #require(sender.send([1, 2, 3], to: Endpoint(here, port: relayPort)) == nil) }
            let received = batch.receive(relay.descriptor)
            try #require(received == 3)
            for place in 0..<3 { batch.forward(place, from: target, to: Endpoint(target, port: port), by: 0) }
            #expect(batch.send([relay.descriptor]).count == 0)
            var waiting = pollfd(fd: end.descriptor, events: Int16(POLLIN), revents: 0)
            try #require(poll(&waiting, 1, 10_000) > 0)
            try #require(observer.receive(end.descriptor) == 3)
            for place in 0..<3 { #expect(observer.trafficClass(place) == number) }
        }
    }

    @Test("What is too large for the link, or goes nowhere, is counted and costs no other datagram")
    func failures() throws {
        let (relay, relayPort) = try socket(at: nil, forwards: true)
        let (sender, _) = try socket(at: here)
        let (end, port) = try socket(at: here)
        var batch = ForwardBatch(socketsCount: 1)
        defer { batch.deallocate() }
        for number in UInt8(0)..<6 { try #require(sender.send([number, 0, 0], to: Endpoint(here, port: relayPort)) == nil) }
        try #require(batch.receive(relay.descriptor) == 6)
        for place in 0..<6 {
            // Port 0 can't be sent to.
            batch.forward(place, from: here, to: Endpoint(here, port: place % 3 == 1 ? 0 : port), by: 0)
        }
        #expect(batch.send([relay.descriptor]).count == 2)
        #expect(receive(end.descriptor, 4).map { $0[0] } == [0, 2, 3, 5])
    }
}

import Foundation
import Glibc
import IMSCore
import MATCore
import MATRuntime
import MATServer
import MATSignal
import MATTesting
import Testing

@testable import IMS

/// Two sockets of this host, of which one has the kernel run a filter.
private struct FilteredPair {
    let server: BoundSocket
    let client: BoundSocket
    let place: Endpoint

    init(_ local: IPAddress, to filter: MessageFilter? = nil) throws {
        var options = BoundSocket.Options()
        options.receiveBufferBytes = 8 << 20
        // The server's hears both families, as imsd's does.
        server = try BoundSocket(port: 0, address: nil, options: options)
        client = try BoundSocket(port: 0, address: local, options: options)
        place = Endpoint(local, port: try Self.port(of: server.descriptor))
        if let filter { try filter.program.attach(to: server.descriptor) }
    }

    private static func port(of descriptor: Int32) throws -> UInt16 {
        var name = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let result = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        try #require(result == 0)
        return UInt16(bigEndian: name.sin6_port)
    }

    /// What comes of these.
    func arriving(of datagrams: [[UInt8]]) throws -> [[UInt8]] {
        var arrived: [[UInt8]] = []
        for part in stride(from: 0, to: datagrams.count, by: 100) {
            for datagram in datagrams[part..<min(part + 100, datagrams.count)] { #expect(client.send(datagram, to: place) == nil) }
            // Over loopback what was sent has been put into the queue, or refused, when the call returns.
            var buffer = [UInt8](repeating: 0, count: 2048)
            while true {
                let count = recv(server.descriptor, &buffer, buffer.count, 0)
                guard count >= 0 else { break }
                arrived.append(Array(buffer.prefix(count)))
            }
        }
        return arrived
    }
}

/// Datagrams as the published vectors have them, and what becomes of them when octets are changed, cut off or added.
private enum Datagrams {
    static func vectors() throws -> [[UInt8]] {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../MATSignalTests/Vectors/protocol-vectors.json")
        let root = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
        let vectors = try #require(root["vectors"] as? [String: String])
        return vectors.keys.sorted().compactMap { name in
            guard ["v4.", "v6.", "path4.", "path6.", "draft."].contains(where: { name.hasPrefix($0) }), !name.hasSuffix(".value") else { return nil }
            let hex = Array(vectors[name] ?? "")
            return stride(from: 0, to: hex.count - 1, by: 2).compactMap { UInt8(String(hex[$0...$0 + 1]), radix: 16) }
        }
    }

    static func mutated(_ count: Int, seed: UInt64) throws -> [[UInt8]] {
        let vectors = try vectors()
        var random = SeededGenerator(seed: seed)
        return (0..<count).map { _ in
            var datagram = vectors.randomElement(using: &random) ?? []
            if Int.random(in: 0..<4, using: &random) == 0 { datagram += vectors.randomElement(using: &random) ?? [] }
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                switch Int.random(in: 0..<4, using: &random) {
                case 0: datagram.removeLast(min(datagram.count, Int.random(in: 1...datagram.count + 1, using: &random)))
                case 1: datagram += (0..<Int.random(in: 1...12, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                default:
                    // Type, flags, length or the first options' heads, which steer the filter and the parser most.
                    let place = [0, 0, 2, 3, 8, 9, 10, 11, 11, 36, 39].randomElement(using: &random) ?? 0
                    if place < datagram.count { datagram[place] = UInt8.random(in: 0...70, using: &random) }
                }
            }
            if Int.random(in: 0..<50, using: &random) == 0 {
                // As long as one may be, or an octet longer.
                let room = max(0, SignalDatagram.octetsMax - datagram.count)
                datagram += [UInt8](repeating: 0, count: room + Int.random(in: 0...1, using: &random))
            }
            return datagram
        }
    }
}

@Suite("What the kernel refuses at the workers' sockets")
struct FloodFilterTests {
    private let here = ["127.0.0.1", "::1"]
    private let keys: (UInt32, UInt32) = (0x9E37_79B9, 0x85EB_CA6B)
    private let limits = AdmissionLimits(perSourcePerSecond: 1000, strangersPerSecond: nil, draftsPerSecond: 1000, oddPerSecond: 100)

    private func verdict(_ datagram: [UInt8]) -> MessageFilter.Verdict { datagram.withUnsafeBytes { MessageFilter.verdict($0) } }

    @Test("All sixteen messages and the draft's come through, over both families; what is no message does not reach the process, and is counted")
    func messages() throws {
        let vectors = try Datagrams.vectors()
        let types = Set(vectors.compactMap { $0[2] & 1 == 1 ? MessageType(rawValue: $0[0]) : nil })
        #expect(types == Set(MessageType.allCases))
        let message = try #require(vectors.first { $0[2] & 1 == 1 })
        var noise = [[], [1], Array(message.prefix(7)), Array(message.prefix(11)), [UInt8](repeating: 0x45, count: 60)]
        noise.append(message + [UInt8](repeating: 0, count: 1233 - message.count))
        // Length of one word; an option that runs out of the datagram; the draft's form and an unknown type that are cut.
        noise += [[1, 0, 1, 1] + message.dropFirst(4), Array(message.prefix(10)) + [4, 255] + message.dropFirst(12)]
        noise += [[1, 0, 0, 9] + [UInt8](repeating: 0, count: 31), [17, 0, 1, 9] + [UInt8](repeating: 0, count: 31)]
        for text in here {
            let pair = try FilteredPair(address(text), to: MessageFilter(keys: keys))
            #expect(try pair.arriving(of: vectors) == vectors, "\(text)")
            let before = SocketFilter.drops(of: pair.server.descriptor)
            #expect(try pair.arriving(of: noise).isEmpty, "\(text)")
            #expect(SocketFilter.drops(of: pair.server.descriptor) &- before == UInt32(noise.count))
        }
    }

    @Test("Whatever can be read, or would get an answer, is not refused", arguments: 0..<4)
    func nothingOfUseIsRefused(seed: Int) throws {
        var refused = 0
        for datagram in try Datagrams.mutated(5000, seed: UInt64(seed)) where verdict(datagram) == .refused {
            refused += 1
            for part in SignalDatagram.decode(datagram) {
                switch part {
                case .message, .draft: Issue.record("\(datagram) can be read")
                case .rejected(let rejection): #expect(rejection.answerCode == nil, "\(datagram) gets an answer")
                }
            }
        }
        #expect(refused > 200)
    }

    @Test("The kernel takes each datagram for what the count in Swift takes it for, whichever kind a flood consists of, over both families")
    func twins() throws {
        let datagrams = try Datagrams.mutated(1200, seed: 99)
        for text in here {
            for kind in [nil] + MessageFilter.Kind.allCases {
                var filter = MessageFilter(keys: keys)
                if let kind { filter.samples[kind.rawValue] = MessageFilter.Sample(lines: .max, part: 0) }
                let expected = datagrams.filter { datagram in
                    switch verdict(datagram) {
                    case .refused: false
                    case .accepted: true
                    case .sampled(let other): other != kind
                    }
                }
                #expect(expected.count < datagrams.count)
                let arrived = try FilteredPair(address(text), to: filter).arriving(of: datagrams)
                #expect(arrived == expected, "\(text), \(kind.map { "\($0)" } ?? "no flood")")
            }
        }
    }

    @Test("Sources fall into the same line in the kernel and here, so that a node beside a flood's sources is heard as ever")
    func lines() throws {
        let notify = SignalMessage(
            sequence: 1, .haNotify(HANotify(cookie: Cookie(client: 1), hoa: home("192.0.2.1"), peerHoA: home("192.0.2.2")))
        ).octets
        #expect(verdict(notify) == .sampled(.unproven))
        let sources = (1...40).map { address("127.0.0.\($0)") } + [address("::1")]
        for keys in [keys, (0x1234_5677, 0xFFFF_FFFF)] as [(UInt32, UInt32)] {
            var filter = MessageFilter(keys: keys)
            let flooding = sources.prefix(10).map { filter.line(of: $0) }
            filter.samples[MessageFilter.Kind.unproven.rawValue].lines = flooding.reduce(0) { $0 | 1 << UInt32($1) }
            filter.samples[MessageFilter.Kind.unproven.rawValue].part = 0
            for source in sources {
                let isHeard = !flooding.contains(filter.line(of: source))
                #expect(try FilteredPair(source, to: filter).arriving(of: [notify]).isEmpty != isHeard, "\(source)")
            }
            #expect(Set(sources.map { filter.line(of: $0) }).count > 8)
        }
    }

    @Test("Of a flood as much comes as is of use; queries and who has a cookie do not notice; after it all are heard, though nothing came meanwhile")
    func flood() throws {
        let pair = try FilteredPair(address("127.0.0.1"))
        var filter = FloodFilter(descriptors: [pair.server.descriptor], limits: limits, threads: 1, keys: keys)
        try filter.attach()
        let cookie = Cookie(client: 7)
        let proven = Cookie(client: 7, server: ServerCookie(head: 1 << 56, hash: 7))
        func notify(_ cookie: Cookie) -> [UInt8] {
            SignalMessage(sequence: 1, .haNotify(HANotify(cookie: cookie, hoa: home("192.0.2.1"), peerHoA: home("192.0.2.2")))).octets
        }
        let query = SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.1")))).octets
        var now = MonotonicTime.zero
        var came: [Int] = []
        var isSampling = filter.turn(at: now)
        // Two seconds of 20,000 a second, of thousands of sources: the kernel sees one, the count many, and so it is for all lines.
        for window in 0..<20 {
            let arrived = try pair.arriving(of: [[UInt8]](repeating: notify(cookie), count: 2000))
            came.append(arrived.count)
            for (number, datagram) in arrived.enumerated() {
                datagram.withUnsafeBytes { filter.came($0, from: address("198.51.\(window).\(number % 250)")) }
            }
            #expect(try pair.arriving(of: [query, notify(proven)]).count == 2)
            now = now + .milliseconds(100)
            isSampling = filter.turn(at: now)
        }
        #expect(isSampling && came.first == 2000)
        let steady = came.dropFirst(4).reduce(0, +) / 16
        #expect(steady > 60 && steady < 500, "200 of 2000 are of use: \(came)")
        // It ends. Nothing comes, and nothing must have to come.
        for _ in 0..<10 {
            now = now + .milliseconds(100)
            isSampling = filter.turn(at: now)
        }
        #expect(!isSampling)
        #expect(try pair.arriving(of: [[UInt8]](repeating: notify(cookie), count: 50)).count == 50)
    }

    @Test("Of a flood of answers that nobody asked for a part comes; the most acks that were asked for are no flood")
    func unasked() throws {
        let pair = try FilteredPair(address("127.0.0.1"))
        var filter = FloodFilter(descriptors: [pair.server.descriptor], limits: limits, threads: 1, keys: keys)
        try filter.attach()
        let ack = SignalMessage(sequence: 1, .maNotifyAck(MANotifyAck(code: .ok, cookie: Cookie(client: 7), hoa: home("192.0.2.1")))).octets
        var now = MonotonicTime.zero
        func window(areAsked: Bool) throws -> Int {
            let arrived = try pair.arriving(of: [[UInt8]](repeating: ack, count: 2000))
            for (number, datagram) in arrived.enumerated() {
                let source = address("198.51.100.\(number % 250)")
                datagram.withUnsafeBytes { filter.came($0, from: source) }
                if !areAsked { filter.cameUnasked(from: source) }
            }
            now = now + .milliseconds(100)
            _ = filter.turn(at: now)
            return arrived.count
        }
        _ = filter.turn(at: now)
        for _ in 0..<5 { #expect(try window(areAsked: true) == 2000) }
        let came = try (0..<12).map { _ in try window(areAsked: false) }
        #expect(came.dropFirst(4).allSatisfy { $0 < 500 }, "\(came)")
    }
}

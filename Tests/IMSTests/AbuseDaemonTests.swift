import Glibc
import MATRuntime
import MATSignal
import Testing

/// protocol.md section 6 measured at a running imsd: octets on the wire, questions at its resolver, and what it says of itself.
@Suite(
    "Abuse of imsd as a process", .serialized,
    .enabled(if: Daemon.program != nil, "imsd is not beside the test bundle; build it with swift build --product imsd"))
struct AbuseDaemonTests {
    private let directory: TemporaryDirectory
    private let port: UInt16
    /// Counts questions and answers none.
    private let resolver: LoopbackSocket
    private let nodeKey: SigningKey
    private let hoa = home("192.0.2.20")

    init() throws {
        directory = try TemporaryDirectory()
        resolver = try LoopbackSocket(peer: 0)
        nodeKey = try key(1)
        // The kernel knows a port that is free.
        port = try LoopbackSocket(peer: 0).port
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(try key(200)), mode: 0o600)
        let text = """
            control: \(directory.path)/control.sock
            store: \(directory.path)/ims.db
            signing-key: \(directory.path)/ims.key
            listen: {port: \(port), addresses: []}
            prefixes:
              - prefix: 192.0.2.0/24
                mobile-prefixes: [198.51.100.0/24]
            dns: {resolvers: ["127.0.0.1:\(resolver.port)"], timeout: 500ms}
            """
        try TextFile.replace("\(directory.path)/imsd.yaml", with: text, mode: 0o600)
    }

    private func control(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(ControlError) -> JSONValue {
        try ControlClient.request(JSONValue.self, path: "\(directory.path)/control.sock", command: command, arguments: arguments, daemon: "imsd")
    }

    private func start() throws -> Daemon {
        let daemon = try Daemon(["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log")
        for _ in 0..<400 {
            if (try? control("status"))?["store"]?["isLoading"]?.bool == false { return daemon }
            usleep(25_000)
        }
        Issue.record("imsd did not start: \((try? TextFile.read("\(directory.path)/log")) ?? "")")
        return daemon
    }

    /// A cookie for this socket, as any client gets it.
    private func cookie(_ socket: LoopbackSocket) throws -> Cookie {
        for sequence in UInt32(1)...20 {
            let query = MAQuery(cookie: Cookie(client: 7), hoa: home("192.0.2.99"), padding: 64)
            socket.send(SignalMessage(sequence: sequence, .maQuery(query)).octets)
            guard let octets = socket.next(within: 500), case .message(let answer, _)? = SignalDatagram.decode(octets).first else { continue }
            if answer.cookie.server != nil { return answer.cookie }
        }
        throw ControlError("imsd gave no cookie")
    }

    private func certificate() throws -> Certificate {
        let result = try control(
            "enrol", ["hoa": "192.0.2.16", "prefixLength": 28, "publicKey": .string(KeyFile.write(nodeKey.publicKey))])
        return try Certificate(octets: try #require(result["certificate"]?.string.flatMap { Base64.parse($0.utf8) }))
    }

    /// Loopback can't be a locator, so it is a mobile network that registers.
    private func record(_ certificate: Certificate, _ sequence: UInt64) throws -> EnclosedRecord {
        let record = MappingRecord(
            hoa: home("192.0.2.16"), prefixLength: 124, sequence: sequence, lifetime: 600, issued: sequence,
            locators: [Locator(MobileAddress(address("198.51.100.32")), prefixLength: 124)])
        return EnclosedRecord(mapping: try #require(record.signed(with: nodeKey)), certificate: .whole(certificate))
    }

    private func requests(_ cookie: Cookie, _ certificate: Certificate) throws -> [SignalMessage.Body] {
        let enclosed = try record(certificate, SystemClock.now().wallMilliseconds + 1000)
        return [
            .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed)),
            .maQuery(MAQuery(cookie: cookie, hoa: hoa, subscribe: 300)),
            .maQuery(MAQuery(cookie: cookie, hoa: hoa, subscribe: 300, padding: 348)),
            .maQuery(MAQuery(cookie: cookie, hoa: home("10.9.9.9"))),
            .haNotify(HANotify(cookie: cookie, hoa: home("10.1.0.1"), peerHoA: hoa)),
            .haQuery(HAQuery(cookie: cookie, moa: MobileAddress(address("198.51.100.33")))),
            .maNotify(MANotify(cookie: cookie, record: enclosed)),
        ]
    }

    private func variants(_ octets: [UInt8]) -> [[UInt8]] {
        var result = [octets]
        for count in stride(from: 0, to: octets.count, by: 12) { result.append(Array(octets.prefix(count))) }
        for place in 0..<min(octets.count, 44) {
            for value: UInt8 in [0, 0x80, 0xFF] {
                var changed = octets
                changed[place] = value
                result.append(changed)
            }
        }
        var critical = octets + [0x80, 1, 0, 0]
        critical[3] += 1
        result.append(critical)
        result.append(Array(repeating: octets, count: max(1, min(16, SignalDatagram.octetsMax / octets.count))).flatMap { $0 })
        result.append(octets + octets.prefix(21))
        return result
    }

    /// What must not change by what strangers send.
    private func state() throws -> [Int64] {
        let status = try control("status")
        return ["mappings", "remembered", "subscriptions", "notifiesPending", "pushesPending"].map { status[$0]?.int ?? -1 }
            + [status["counters"]?["verifications"]?.int ?? -1]
    }

    private func residentKilobytes(_ daemon: Daemon) throws -> Int {
        let text = try TextFile.read("/proc/\(daemon.processID)/status")
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
        return try #require(line.split(separator: " ").compactMap { Int($0) }.first)
    }

    @Test("Without a cookie: octets out never exceed octets in, and no DNS question, check or write comes of it; with one all do")
    func strangersAndClients() throws {
        let daemon = try start()
        let certificate = try certificate()
        let client = try LoopbackSocket(peer: port)
        let update = IMSUpdate(cookie: try cookie(client), record: try record(certificate, SystemClock.now().wallMilliseconds))
        client.send(SignalMessage(sequence: 1, .imsUpdate(update)).octets)
        #expect(client.next(within: 3000)?[1] == ResponseCode.ok.rawValue)

        let before = try state()
        var datagrams = 0
        for cookie in [Cookie(client: 5), try cookie(client)] {
            for body in try requests(cookie, certificate) {
                // Each in the name of a source of its own, so that what comes back belongs to what went out.
                let stranger = try LoopbackSocket(peer: port)
                for variant in variants(SignalMessage(sequence: 77, body).octets) {
                    stranger.send(variant)
                    datagrams += 1
                    // A fence of a packed few keeps the server's queue short on a slow machine.
                    if datagrams % 64 == 0 { _ = try control("status") }
                    stranger.drain()
                    if stranger.octetsReceived > stranger.octetsSent { break }
                }
                _ = try control("status")
                while stranger.next(within: 30) != nil {}
                #expect(
                    stranger.octetsReceived <= stranger.octetsSent,
                    "\(SignalMessage(sequence: 1, body).type): \(stranger.octetsReceived) octets for \(stranger.octetsSent)")
            }
        }
        resolver.drain()
        #expect(datagrams > 1500 && resolver.received.isEmpty)
        #expect(try state() == before)

        // The same from a source that has shown that it is there, once the gate has forgotten the strangers at its address.
        usleep(1_100_000)
        let own = try cookie(client)
        for body in try requests(own, certificate) {
            client.send(SignalMessage(sequence: 78, body).octets)
            _ = client.next(within: 300)
        }
        #expect(resolver.next(within: 3000) != nil, "a HA Notify with a cookie is looked up")
        let after = try state()
        #expect(after != before && after[5] > before[5])
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("Floods of HA Notifies about made-up HoAs and of garbage: bounded questions and memory, and queries are answered meanwhile")
    func floods() throws {
        let daemon = try start()
        let certificate = try certificate()
        let client = try LoopbackSocket(peer: port)
        let own = try cookie(client)
        let update = IMSUpdate(cookie: own, record: try record(certificate, SystemClock.now().wallMilliseconds))
        client.send(SignalMessage(sequence: 1, .imsUpdate(update)).octets)
        #expect(client.next(within: 3000)?[1] == ResponseCode.ok.rawValue)
        let memory = try residentKilobytes(daemon)

        let attackers = try (0..<4).map { _ in try LoopbackSocket(peer: port) }
        let cookies = try attackers.map { try cookie($0) }
        var garbage = SignalMessage(sequence: 9, .maQuery(MAQuery(cookie: Cookie(client: 5), hoa: hoa, padding: 200))).octets
        garbage[40] ^= 0xFF
        var answered = 0
        for round in 0..<50 {
            for (attacker, cookie) in zip(attackers, cookies) {
                for number in 0..<40 {
                    let made = HomeAddress(IPAddress(ipv4: 0x0A00_0000 + UInt32(round * 64 + number)))
                    attacker.send(SignalMessage(sequence: UInt32(number), .haNotify(HANotify(cookie: cookie, hoa: made, peerHoA: hoa))).octets)
                    attacker.send(garbage)
                    attacker.send([UInt8](repeating: 0xFF, count: 1200))
                }
                attacker.drain()
            }
            // A client repeats what the kernel had no room for, as every node does.
            for sequence in UInt32(0)..<5 {
                client.send(SignalMessage(sequence: sequence + 100, .maQuery(MAQuery(cookie: own, hoa: hoa))).octets)
                if let answer = client.next(within: 1000), answer[1] == ResponseCode.ok.rawValue {
                    answered += 1
                    break
                }
            }
        }
        #expect(answered == 50)
        resolver.drain()
        // One source (an IPv4 address) has 10 notifies a second and 8 inquiries at a time, each two questions of a few tries.
        let asked = Set(resolver.received.map { Array($0.dropFirst(12)) }).count
        let seconds = Int(try control("status")["uptimeMilliseconds"]?.int ?? 0) / 1000 + 1
        #expect(asked <= 2 * 10 * (seconds + 1), "\(asked) different questions in \(seconds) s")
        // Eight HoAs at a time, and for each of them the notifies of several ports may wait: the source's rate bounds those.
        #expect(try control("status")["notifiesPending"]?.int ?? .max <= 10 * (seconds + 1))
        #expect(try residentKilobytes(daemon) - memory < 32 * 1024)
        let log = try TextFile.read("\(directory.path)/log").split(separator: "\n").count
        #expect(log < 40 * (seconds + 2), "\(log) log lines")
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("Of answers and acks that nobody asked for the core sees a hundred a second, beside queries too; acks of its own pushes come through")
    func unaskedAnswers() throws {
        let daemon = try start()
        let certificate = try certificate()
        let (node, subscriber) = (try LoopbackSocket(peer: port), try LoopbackSocket(peer: port))
        let own = try cookie(node)
        func register(_ sequence: UInt32) throws {
            let record = try record(certificate, SystemClock.now().wallMilliseconds + UInt64(sequence))
            node.send(SignalMessage(sequence: sequence, .imsUpdate(IMSUpdate(cookie: own, record: record))).octets)
            #expect(node.next(within: 3000)?[1] == ResponseCode.ok.rawValue)
        }
        try register(1)
        subscriber.send(SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: try cookie(subscriber), hoa: hoa, subscribe: 300))).octets)
        #expect(subscriber.next(within: 3000)?[1] == ResponseCode.ok.rawValue)
        // Before the flood, which uses up the share of its address.
        try register(2)
        let push = try #require(subscriber.next(within: 3000), "nothing was pushed")

        func passedToCore() throws -> Int64 { try control("status")["datagrams"]?["passedToCore"]?.int ?? -1 }
        let attackers = try (0..<8).map { _ in try LoopbackSocket(peer: port) }
        let cookie = Cookie(client: 5)
        let query = SignalMessage(sequence: 9, .maQuery(MAQuery(cookie: cookie, hoa: hoa, padding: 200))).octets
        let answers = [
            SignalMessage(sequence: 9, .maAnswer(MAAnswer(code: .notFound, cookie: cookie, hoa: hoa))).octets,
            SignalMessage(sequence: 9, .maNotifyAck(MANotifyAck(code: .ok, cookie: cookie, hoa: hoa))).octets,
            SignalMessage(sequence: 9, .haNotifyAck(HANotifyAck(code: .ok, cookie: cookie, hoa: hoa))).octets,
        ]
        let (before, began) = (try passedToCore(), SystemClock.now().monotonic)
        for round in 0..<100 {
            for attacker in attackers {
                for answer in answers {
                    attacker.send(answer)
                    attacker.send(round.isMultiple(of: 2) ? query + answer : answer + query)
                }
            }
            // A fence keeps the server's queue short.
            if round.isMultiple(of: 4) { _ = try control("status") }
            guard round == 50 else { continue }
            guard case .message(let message, _)? = SignalDatagram.decode(push).first, case .maNotify(let notify) = message.body else {
                Issue.record("\(push) is no push")
                continue
            }
            // A loaded server may lose the ack, and pushes again.
            for _ in 0..<20 where try control("status")["pushesPending"]?.int != 0 {
                let ack = MANotifyAck(code: .ok, cookie: Cookie(client: notify.cookie.client), hoa: home("192.0.2.16"))
                subscriber.send(SignalMessage(sequence: message.sequence, .maNotifyAck(ack)).octets)
                usleep(20_000)
            }
            #expect(try control("status")["pushesPending"]?.int == 0, "the ack did not come through")
        }
        let seconds = Int64((SystemClock.now().monotonic - began).components.seconds) + 1
        let passed = try passedToCore() - before
        // The registration and the acks are among them.
        #expect(passed <= 110 * seconds + 30, "\(passed) of 4800 in \(seconds) s")
        #expect(daemon.kill(SIGTERM) == 0)
    }
}

import Glibc
import MATControl
import MATRuntime
import MATSignal
import MATTesting
import Namespaces
import Testing

@testable import MATRelay

@Suite("A running relay", .serialized, .enabled(if: relayTestsImpossible == nil, "skipped: \(relayTestsImpossible ?? "")"), .timeLimit(.minutes(3)))
struct RelayTests {
    private func clients(_ relay: Relay) throws -> (a: Client, b: Client) {
        let a = try Client(enrol(relay, "10.0.0.1", seed: 11), at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4)
        let b = try Client(enrol(relay, "10.0.0.2", seed: 12), at: ip("2001:db8:9::2"), in: relay.b, relay: Relay.ipv6)
        return (a, b)
    }

    @Test("Clients of both families bind and talk; who is unbound, or speaks in another's name, is not heard; a move takes the traffic along")
    func talk() throws {
        let relay = try Relay()
        let (a, b) = try clients(relay)
        let ack = try a.bind()
        #expect(ack.code == .ok && ack.observed == Endpoint(a.address, port: SignalPort.node))
        #expect(ack.granted == BindAck.Grant(a.hoa, lifetime: 120, role: .relay))
        #expect(try b.bind().observed == Endpoint(b.address, port: SignalPort.node))
        // Over IPv6 48 octets are added.
        for octets in [20, 100, 1280, 1452] {
            let (there, back) = (packet(a.hoa, b.hoa, octets: octets), packet(b.hoa, a.hoa, octets: octets))
            let (isThere, isBack) = (a.sends(there, to: b), b.sends(back, to: a))
            #expect(isThere && isBack, "\(octets) octets")
        }
        try b.sendsWithoutSum()
        #expect(b.sends(packet(b.hoa, a.hoa), to: a), "a datagram over IPv6 without a sum")
        // The marker comes after what must not arrive.
        let stranger = try Client(a.node, at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4, port: 7000)
        let forged = packet(a.hoa, b.hoa, filledWith: 0x66)
        stranger.send(forged)
        a.send(packet(home("10.0.0.9"), b.hoa, filledWith: 0x66))
        a.send(packet(a.hoa, home("10.0.0.9"), filledWith: 0x66))
        a.send(Array(forged.dropLast()))
        try eventually("the relay has seen all four") {
            try ["malformed", "unbound source", "foreign source", "unknown destination"].allSatisfy { try relay.dropped($0) >= 1 }
        }
        a.send(packet(a.hoa, b.hoa, filledWith: 0x77))
        var received: [[UInt8]] = []
        while let datagram = b.receive(), datagram.last != 0x77 { received.append(datagram) }
        #expect(!received.contains { $0.last == 0x66 })
        #expect(try relay.dropped("unbound source") == 1 && relay.dropped("foreign source") == 1 && relay.dropped("unknown destination") == 1)
        // a moves: its packets reach it at its new address, from the first one on.
        usleep(1_100_000)
        let moved = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        #expect(try moved.bind().code == .ok)
        #expect(b.sends(packet(b.hoa, a.hoa, octets: 200), to: moved) && moved.sends(packet(a.hoa, b.hoa, octets: 200), to: b))
        #expect(a.receive(within: 0).map { $0.count != 200 } ?? true)
    }

    @Test("A captured Bind is refused from elsewhere at once, and from where it was made when its node has moved; a victim's address gets no packet")
    func replay() throws {
        let relay = try Relay()
        let (a, b) = try clients(relay)
        #expect(try b.bind().code == .ok)
        _ = a.ask(.padded(cookie: Cookie(client: 3), .ask))
        let captured = try a.signed()
        #expect(a.ask(captured)?.ack.code == .ok)
        // Another endpoint, which wants the traffic for itself or for a victim.
        let victim = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4, port: 9999)
        let refused = try #require(victim.ask(captured))
        #expect(refused.ack.code == .cookieRequired && refused.ack.granted == nil && refused.octets == 60)
        #expect(b.sends(packet(b.hoa, a.hoa), to: a))
        #expect(victim.receive(within: 0) == nil)
        usleep(1_100_000)
        let moved = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        #expect(try moved.bind().code == .ok)
        #expect(a.ask(captured)?.ack.code == .cookieRequired)
        #expect(b.sends(packet(b.hoa, a.hoa), to: moved))
        // Somebody else's cookie, and a signature that does not fit.
        var wrong = try moved.signed()
        wrong.cookie = captured.cookie
        #expect(moved.ask(wrong)?.ack.code == .cookieRequired)
        let liar = try Client(enrol(relay, "10.0.0.1", seed: 66), at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4, port: 6666)
        let other = TestIdentity(hoa: a.hoa, key: liar.node.key, certificate: a.node.certificate)
        let thief = try Client(other, at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4, port: 6667)
        #expect(try thief.bind().code == .authenticationFailed)
    }

    @Test("Whoever has not shown that it receives there gets no more octets than it sent, and none of the packets")
    func amplification() throws {
        let relay = try Relay()
        let (a, b) = try clients(relay)
        try a.bind()
        _ = b.ask(.padded(cookie: Cookie(client: 3), .ask))
        let signed = SignalMessage(sequence: 1, .bind(try b.signed())).octets
        let prober = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4, port: 5555)
        let ask = SignalMessage(sequence: 1, .bind(.padded(cookie: Cookie(client: 1), .ask))).octets
        var sent = 0
        for datagram in [ask, ask + ask, signed, signed + ask, [11], Array(ask.prefix(40)), packet(a.hoa, b.hoa), packet(b.hoa, a.hoa, octets: 1400)]
        {
            prober.send(datagram)
            sent += datagram.count
        }
        try eventually("the relay has seen all") { try relay.metric("mat_relay_datagrams_received_total") >= 11 }
        var received = 0
        while let datagram = prober.receive(within: 300) { received += datagram.count }
        #expect(received > 0 && received <= sent)
        #expect(try relay.metric("mat_relay_packets_forwarded_total") == 0)
    }

    @Test("A restart, even by SIGKILL after bindings were written down, keeps bindings and cookies; without them nodes bind anew")
    func restart() throws {
        let relay = try Relay()
        let (a, b) = try clients(relay)
        try a.bind()
        try b.bind()
        #expect(relay.stop() == 0)
        try relay.start()
        #expect(a.sends(packet(a.hoa, b.hoa), to: b) && b.sends(packet(b.hoa, a.hoa), to: a))
        #expect(a.refresh()?.granted?.hoa == a.hoa)
        #expect(relay.stop(SIGKILL) == -SIGKILL)
        try relay.start()
        #expect(b.sends(packet(b.hoa, a.hoa), to: a))
        _ = relay.stop()
        #expect(unlink(relay.directory + "/state") == 0)
        try relay.start()
        // The relay knows neither the node nor its cookie.
        #expect(a.refresh()?.code == .cookieRequired)
        #expect(a.refresh()?.code == .notFound)
        try a.bind()
        try b.bind()
        #expect(a.sends(packet(a.hoa, b.hoa), to: b))
    }

    @Test("A relay that drains puts nodes off while it forwards on, and ends in time; a new configuration counts at once")
    func life() throws {
        let relay = try Relay(["drain: 4s"])
        let (a, b) = try clients(relay)
        try a.bind()
        try b.bind()
        let path = relay.directory + "/configuration"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        try (text + "\nlimits:\n  burst: 1B\n").write(toFile: path, atomically: true, encoding: .utf8)
        relay.signal(SIGHUP)
        try eventually("the mistake is told") { relay.log.contains("configuration:14: limits.burst: no packet of full size would ever pass") }
        try text.replacing("10.0.0.0/24", with: "10.0.0.2").write(toFile: path, atomically: true, encoding: .utf8)
        relay.signal(SIGHUP)
        try eventually("it is reloaded") { relay.log.contains("the configuration is reloaded") }
        // a is no resident any more, and visitors are not served.
        #expect(a.refresh()?.code == .notFound && b.refresh()?.code == .ok)
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        relay.signal(SIGHUP)
        try eventually("it is reloaded again") { relay.log.split(separator: "\n").count { $0.contains("the configuration is reloaded") } == 2 }
        usleep(1_100_000)
        #expect(try a.bind().code == .ok)
        relay.signal(SIGTERM)
        try eventually("it drains") { relay.log.contains("stopping: nodes are told to go elsewhere") }
        #expect(relay.log.contains("2 are bound"))
        #expect(a.refresh()?.code == .tryLater)
        #expect(try relay.metric("mat_relay_draining") == 1 && relay.metric("mat_relay_bindings_max") == 100_000)
        relay.signal(SIGHUP)
        try eventually("a reload is refused") { relay.log.contains("is not reloaded: the relay is being stopped") }
        #expect(a.sends(packet(a.hoa, b.hoa), to: b))
        #expect(relay.stop(SIGCONT) == 0)
        #expect(relay.log.contains("mat-relay has ended"))
    }

    @Test("The page's search looks through all bindings, however many, lists some and counts the rest")
    func search() throws {
        let relay = try Relay(["view: {listen: \"127.0.0.1:8290\"}"])
        #expect(relay.stop() == 0)
        let now = SystemClock.now().wallMilliseconds
        let bindings = (1...7000).map { number in
            "binding 2001:db8:5::\(String(number, radix: 16))/128 203.0.113.\(number % 250 + 1):\(10_000 + number) 198.51.100.1:6290 "
                + "\(now + 600_000) \(now) \(now + 86_400_000) 600 \(now / 1000) 1 -"
        }
        try (["mat-relay 1"] + bindings).joined(separator: "\n").write(toFile: relay.directory + "/state", atomically: true, encoding: .utf8)
        try #require(chmod(relay.directory + "/state", 0o600) == 0)
        try relay.start()
        #expect(relay.log.contains("bindings of the run before that are still good: 7000 of 7000"))
        func find(_ text: String) throws -> ViewReport.Found {
            let request = "GET /nodes.json?find=\(text) HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n"
            let page = try relay.host.run(#"bash -c 'exec 3<>/dev/tcp/127.0.0.1/8290; printf "\#(request)" >&3; cat <&3'"#, within: 20)
            return try ControlJSON.decode(ViewReport.Found.self, from: Array(try #require(page.split(separator: "\r\n\r\n").last).utf8))
        }
        // The last of them.
        let last = try find("2001:db8:5::1b58")
        #expect(last.nodes.map(\.places) == [["203.0.113.1:17000"]] && last.foundCount == 1 && last.isComplete && last.lookedAtCount == 7000)
        let many = try find("203.0.113")
        #expect(many.nodes.count == ViewReport.nodesMax && many.foundCount == 7000)
        #expect(try find("no-such-place").foundCount == 0)
    }

    @Test("What is wrong in a configuration is told with line and remedy, and ends the program with status 78")
    func check() throws {
        let program = try #require(Relay.program)
        let path = "/tmp/relay-check-\(getpid())"
        defer { unlink(path) }
        try "residents: []\nlimits:\n  rate: fast\nstate: /nowhere/at/all/state\n".write(toFile: path, atomically: true, encoding: .utf8)
        let wrong = shellStatus("\(program) --check --config \(path)")
        #expect(wrong.status == 78 && wrong.output.contains("\(path):3: limits.rate: \"fast\" is not a rate; write bits a second"))
        try "residents: [{prefix: 10.0.0.0/24}]\nstate: /nowhere/at/all/state\n".write(toFile: path, atomically: true, encoding: .utf8)
        let state = shellStatus("\(program) --check --config \(path)")
        #expect(state.status == 78 && state.output.contains("state: directory /nowhere/at/all can't be written"))
        try "residents: [{prefix: 10.0.0.0/24}]\nlisten: {addresses: [203.0.113.250]}\nstate: /nowhere/at/all/state\n".write(
            toFile: path, atomically: true, encoding: .utf8)
        let both = shellStatus("\(program) --check --config \(path)")
        #expect(both.status == 78 && both.output.contains("203.0.113.250 is no address of this host") && both.output.contains("state: directory"))
        try "residents: [{prefix: 10.0.0.0/24}]\n".write(toFile: path, atomically: true, encoding: .utf8)
        #expect(shellStatus("\(program) --check --config \(path)") == (0, "\(path) is fine.\n"))
    }
}

import Foundation
import Glibc
import MATRuntime
import MATSignal
import MATTesting
import Namespaces
import Testing

@testable import MATRelay

/// What somebody who means harm can make a running relay do (protocol.md sections 11.3, 11.5 and 11.6), with and without forwarding in the kernel.
@Suite(
    "Attacks on a relay", .serialized, .enabled(if: relayTestsImpossible == nil, "skipped: \(relayTestsImpossible ?? "")"), .timeLimit(.minutes(3)))
struct AttackTests {
    private static let ways = ["forwarding: agent", "forwarding: auto"]

    private func clients(_ relay: Relay) throws -> (a: Client, b: Client) {
        let a = try Client(enrol(relay, "10.0.0.1", seed: 11), at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4)
        let b = try Client(enrol(relay, "10.0.0.2", seed: 12), at: ip("192.0.2.2"), in: relay.b, relay: Relay.ipv4AtB)
        return (a, b)
    }

    @Test("A challenge of one relay that another passes on to a node binds nobody at the first: the node signs whom it talks to")
    func challengePassedOn() throws {
        let relay = try Relay()
        let (a, b) = try clients(relay)
        // A relay of the attacker's gets the cookie of ours for the victim's endpoint, from where it sits in the path, and lets a node sign it.
        _ = a.ask(.padded(cookie: Cookie(client: 3), .ask))
        let foreign = Endpoint(ip("203.0.113.66"), port: SignalPort.relay)
        let signed = try a.signed(for: foreign)
        #expect(a.ask(signed)?.ack.code == .authenticationFailed)
        // Nor is what was signed for another HoA, or with a probe's words, a Bind.
        let other = TestIdentity(hoa: b.hoa, key: a.node.key, certificate: a.node.certificate)
        let thief = try Client(other, at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4, port: 6666)
        #expect(try thief.bind().code == .authenticationFailed)
        let probe = try a.signed(as: .pathProbe)
        #expect(a.ask(probe)?.ack.code == .authenticationFailed)
        #expect(try relay.metric("mat_relay_bindings") == 0)
    }

    @Test("A relay is no open one: between two visitors nothing passes, nor to an address at which nobody is bound", arguments: ways)
    func openProxy(way: String) throws {
        let relay = try Relay([way])
        let (a, b) = try clients(relay)
        #expect(try a.bind().code == .ok && b.bind().code == .ok)
        // By reloading they are no residents any more, and served as visitors.
        let path = relay.directory + "/configuration"
        let text = try String(contentsOfFile: path, encoding: .utf8).replacing("10.0.0.0/24", with: "10.0.9.0/24")
            .replacing("visitors: false", with: "visitors: true")
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        relay.signal(SIGHUP)
        try eventually("it is reloaded") { relay.log.contains("the configuration is reloaded") }
        a.send(packet(a.hoa, b.hoa, filledWith: 0x66))
        try eventually("it is dropped") { try relay.dropped("no resident") == 1 }
        for target in ["203.0.113.9", "198.51.100.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.2", "169.254.169.254"] {
            a.send(packet(a.hoa, home(target), filledWith: 0x66))
        }
        try eventually("all are dropped") { try relay.dropped("unknown destination") == 7 }
        #expect(b.receive(within: 100) == nil)
        #expect(try relay.metric("mat_relay_packets_forwarded_total") == 0)
    }

    @Test("A scan through the relay finds nothing: whatever of a prefix is not bound is dropped without an answer", arguments: ways)
    func scan(way: String) throws {
        let relay = try Relay([way])
        let (a, b) = try clients(relay)
        #expect(try a.bind().code == .ok && b.bind().code == .ok)
        for host in 3..<250 { a.send(packet(a.hoa, home("10.0.0.\(host)"))) }
        try eventually("all are dropped") { try relay.dropped("unknown destination") == 247 }
        #expect(a.receive(within: 100) == nil && b.receive(within: 0) == nil)
    }

    @Test(
        "No endpoint of a victim is bound: who can't hear the relay there can't have its cookie, and a cookie is good from its own place only",
        arguments: ways)
    func flood(way: String) throws {
        let relay = try Relay([way])
        let (a, b) = try clients(relay)
        #expect(try b.bind().code == .ok)
        let victim = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4, port: 5353)
        // The attacker signs with its own cookie, and sends from the victim's address.
        _ = a.ask(.padded(cookie: Cookie(client: 3), .ask))
        let bind = try a.signed()
        for _ in 0..<20 { victim.send(SignalMessage(sequence: 77, .bind(bind)).octets) }
        try eventually("all are answered") { try relay.metric("mat_relay_answers_total{code=\"cookie required\"}") >= 20 }
        for _ in 0..<50 { b.send(packet(b.hoa, a.hoa, octets: 1000)) }
        try eventually("all are dropped") { try relay.dropped("unknown destination") == 50 }
        var octets = 0
        while let datagram = victim.receive(within: 200) { octets += datagram.count }
        let sent = 20 * SignalMessage(sequence: 77, .bind(bind)).octets.count
        print("the victim of 20 forged Binds, \(sent) octets, got \(octets): amplification \(Double(octets) / Double(sent))")
        #expect(octets <= sent)
    }

    @Test("Before proof nothing is answered with more than was sent, whatever is sent; printed")
    func amplification() throws {
        let relay = try Relay()
        let (a, b) = try clients(relay)
        try a.bind()
        _ = b.ask(.padded(cookie: Cookie(client: 3), .ask))
        let signed = SignalMessage(sequence: 1, .bind(try b.signed())).octets
        let ask = SignalMessage(sequence: 1, .bind(.padded(cookie: Cookie(client: 1), .ask))).octets
        let refresh = SignalMessage(sequence: 1, .bind(.padded(cookie: Cookie(client: 1), .refresh(a.hoa)))).octets
        let bare = SignalMessage(sequence: 1, .bind(Bind(cookie: Cookie(client: 1), .ask))).octets
        var worst = 0.0
        for (number, datagram) in [ask, ask + ask, refresh, bare, signed, signed + ask, ask + refresh + bare, [11], Array(ask.prefix(40))]
            .enumerated()
        {
            let prober = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4, port: 5500 + UInt16(number))
            prober.send(datagram)
            var received = 0
            while let answer = prober.receive(within: 150) { received += answer.count }
            worst = max(worst, Double(received) / Double(datagram.count))
            #expect(received <= datagram.count, "\(received) octets for \(datagram.count), datagram \(number)")
        }
        print("amplification of a relay before proof: \(worst) at most")
        #expect(worst > 0 && worst <= 1)
    }

    @Test("An own address, another relay's and a bound home address are no endpoints, though the cookie comes from there")
    func forbiddenEndpoints() throws {
        let relay = try Relay(["other-relays: [198.51.100.3]"])
        let (a, _) = try clients(relay)
        let own = try Client(a.node, at: ip("198.51.100.1"), in: relay.host, relay: Relay.ipv4)
        #expect(try own.bind().code == .refused)
        let other = try Client(a.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        #expect(try other.bind().code == .refused)
        #expect(try relay.metric("mat_relay_bindings") == 0)
        #expect(try a.bind().code == .ok)
    }

    @Test("A full table refuses who is new, puts it off, and keeps who is there")
    func full() throws {
        let relay = try Relay(["limits:", "  bindings: 2"])
        let (a, b) = try clients(relay)
        #expect(try a.bind().code == .ok && b.bind().code == .ok)
        let third = try Client(enrol(relay, "10.0.0.3", seed: 13), at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        let ack = try third.bind()
        #expect(ack.code == .tryLater && ack.lifetime == 60)
        #expect(a.refresh()?.code == .ok && a.sends(packet(a.hoa, b.hoa), to: b))
    }

    @Test("A flood of one node beyond its rate leaves another's stream whole", arguments: ways)
    func floodOfOne(way: String) throws {
        let relay = try Relay([way, "limits:", "  rate: 4Mbit", "  burst: 64KiB"])
        let (a, b) = try clients(relay)
        #expect(try a.bind().code == .ok && b.bind().code == .ok)
        let flooder = try Client(enrol(relay, "10.0.0.3", seed: 13), at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        #expect(try flooder.bind().code == .ok)
        var arrived: Set<UInt8> = []
        let mark = packet(a.hoa, b.hoa, octets: 200).count
        // 50 packets/s for two seconds, beside 8 Mbit/s to the same receiver.
        for number in 0..<100 {
            a.send(packet(a.hoa, b.hoa, octets: mark, filledWith: UInt8(number)))
            for _ in 0..<20 { flooder.send(packet(flooder.hoa, b.hoa, octets: 1000)) }
            usleep(20_000)
            while let datagram = b.receive(within: 0) { if datagram.count == mark, let last = datagram.last { arrived.insert(last) } }
        }
        while let datagram = b.receive(within: 300) { if datagram.count == mark, let last = datagram.last { arrived.insert(last) } }
        #expect(arrived.count == 100)
        #expect(try relay.dropped("rate of the source") + relay.dropped("rate of the destination") > 0)
    }
}

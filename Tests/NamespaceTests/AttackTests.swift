import Foundation
import Glibc
import MATSignal
import Testing

/// What a stranger gets out of running daemons (protocol.md section 11.6): measured from another host, without any key.
@Suite("Attacks from another host", .serialized, .lab("attack"))
struct AttackTests {
    private static let cn = "198.51.100.20"
    private static let mn = "192.0.2.10"

    /// Whoever sends this knows no key that anybody believes.
    private func messages() throws -> [(name: String, body: SignalMessage.Body)] {
        let key = try #require(SigningKey(seed: [UInt8](repeating: 7, count: 32)))
        let (hoa, peer) = (HomeAddress(try #require(IPAddress(Self.mn))), HomeAddress(try #require(IPAddress(Self.cn))))
        let now = UInt64(Date().timeIntervalSince1970 * 1000)
        let certificate = try #require(
            Certificate(issuing: hoa, nodeKey: key.publicKey, notBefore: now - 1000, notAfter: now + 86_400_000, with: key))
        let victim = try #require(IPAddress("203.0.113.132"))
        let record = MappingRecord(
            hoa: hoa, sequence: now, lifetime: 600, issued: now,
            places: (1...8).map { .endpoint(Endpoint(victim, port: 7000 + $0), preference: UInt8($0)) })
        let enclosed = EnclosedRecord(mapping: try #require(record.signed(with: key)), certificate: .whole(certificate))
        let cookie = Cookie(client: 0x1234)
        let challenge = Challenge(client: 5, server: ServerCookie(head: 1 << 56, hash: 9))
        let statement = PathStatement(.pathProbe, by: hoa, to: peer.address, at: Endpoint(victim, port: 1), cookie: challenge)
        let proof = PathProof(certificate: .whole(certificate), signature: try #require(statement.signed(with: key)))
        return [
            ("Bind that asks", .bind(.padded(cookie: cookie, .ask))),
            ("Bind that asks, 32 octets of padding fewer", .bind(Bind(cookie: cookie, .ask))),
            ("Bind, signed", .bind(Bind(cookie: cookie, .bind(hoa, proof, lifetime: 120)))),
            ("Bind that refreshes", .bind(.padded(cookie: cookie, .refresh(peer)))),
            ("Path Probe", .pathProbe(.padded(cookie: cookie, hoa: peer, peerHoA: hoa, challenge: challenge))),
            ("Path Probe, too short", .pathProbe(PathProbe(cookie: cookie, hoa: peer, peerHoA: hoa, challenge: challenge))),
            ("Path Probe, signed", .pathProbe(.padded(cookie: cookie, hoa: peer, peerHoA: hoa, challenge: challenge, proof: proof))),
            ("Path Answer", .pathAnswer(PathAnswer(code: .ok, cookie: cookie, hoa: hoa))),
            ("MA Query", .maQuery(MAQuery(cookie: cookie, hoa: peer))),
            ("MA Query, padded", .maQuery(MAQuery(cookie: cookie, hoa: peer, subscribe: 300, padding: 348))),
            ("HA Query", .haQuery(HAQuery(cookie: cookie, moa: MobileAddress(peer.address)))),
            ("HA Notify", .haNotify(HANotify(cookie: cookie, hoa: hoa, peerHoA: peer, record: enclosed))),
            ("MA Notify", .maNotify(MANotify(cookie: cookie, record: enclosed))),
            ("IMS Update", .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed))),
        ]
    }

    /// An IPv4 UDP packet between two HoAs, as it would travel encapsulated.
    private func packet(_ source: String, _ destination: String) throws -> [UInt8] {
        let ends = try [source, destination].flatMap { try #require(IPAddress($0)).packetOctets }
        var header: [UInt8] = [0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0] + ends
        var sum = stride(from: 0, to: 20, by: 2).reduce(UInt32(0)) { $0 + UInt32(header[$1]) << 8 + UInt32(header[$1 + 1]) }
        while sum >> 16 != 0 { sum = sum & 0xFFFF + sum >> 16 }
        (header[10], header[11]) = (UInt8(~sum >> 8 & 0xFF), UInt8(~sum & 0xFF))
        return header + [0x22, 0xB8, 0x22, 0xB8, 0, 108, 0, 0] + [UInt8](repeating: 0x5A, count: 100)
    }

    /// What comes back for what is sent so many times.
    private func echo(_ lab: Lab, _ octets: [UInt8], to target: String, _ port: UInt16, times: Int = 5) throws -> (sent: Int, received: Int) {
        let socket = try HostSocket(lab, "plain", SOCK_DGRAM, isIPv4: true)
        try socket.connect(target, port: port)
        socket.setTimeout(0.3)
        var (sent, received) = (0, 0)
        for _ in 0..<times {
            try? socket.send(octets)
            sent += octets.count
        }
        while let answer = try? socket.receive() { received += answer.count }
        return (sent, received)
    }

    @Test("No message of a stranger gets more octets out of an IMS or a node than it has, and no packet in a datagram comes in")
    func amplification() throws {
        let lab = try Lab.shared
        let ims = "203.0.113.132"
        print("Amplification at running daemons, without a cookie that they gave (octets back for octets sent):")
        for (name, body) in try messages() {
            let octets = SignalMessage(sequence: 77, body).octets
            for (who, address, port) in [("imsd", ims, SignalPort.ims), ("matd", Self.cn, SignalPort.node)] {
                let (sent, received) = try echo(lab, octets, to: address, port)
                print(String(format: "  %@  %@: %d octets, %.2f", who, name, octets.count, Double(received) / Double(sent)))
                #expect(received <= sent, "\(name) at \(who): \(received) octets for \(sent)")
            }
        }
        // In the name of a node that cn does not know by that endpoint; it listens, and would answer by a port unreachable if the packet came in.
        let inside = try HostSocket(lab, "cn", SOCK_DGRAM, isIPv4: true)
        try inside.bind(Self.cn, port: 8888)
        inside.setTimeout(0.5)
        for source in [Self.mn, "192.0.2.77", Self.cn, "203.0.113.200"] {
            let (one, back) = try echo(lab, try packet(source, Self.cn), to: Self.cn, SignalPort.node, times: 1)
            #expect(back <= one, "\(back) octets for one packet of \(one) in the name of \(source)")
            let (sent, received) = try echo(lab, try packet(source, Self.cn), to: Self.cn, SignalPort.node, times: 20)
            print(String(format: "  matd  a packet in the name of %@: %d octets, %.2f", source, sent / 20, Double(received) / Double(sent)))
            // Of many in a peer's name the place is asked three times who it is.
            #expect(received <= 3 * PathProbe.octetsMin, "in the name of \(source)")
        }
        #expect((try? inside.receive()) == nil)
    }

    @Test("A node that is under such fire goes on talking")
    func fire() throws {
        let lab = try Lab.shared
        let socket = try HostSocket(lab, "plain", SOCK_DGRAM, isIPv4: true)
        try socket.connect(Self.cn, port: SignalPort.node)
        let all = try messages().map { SignalMessage(sequence: 77, $0.body).octets } + [packet("192.0.2.77", Self.cn)]
        let ping = try lab.start("mn", "ping", "-c", "20", "-i", "0.05", "-W", "2", Self.cn)
        for round in 0..<4000 {
            try? socket.send(all[round % all.count])
            if round % 20 == 0 { usleep(5000) }
        }
        let output = try ping.wait(seconds: 20)
        #expect(output.text.contains(" 0% packet loss"), "\(output.text)")
    }
}

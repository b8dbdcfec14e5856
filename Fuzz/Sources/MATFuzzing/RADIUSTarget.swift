import MATSignal
import RADIUS
import SeededRandom

extension FuzzTarget {
    /// What comes to the port at which RADIUS servers are asked: from anybody who can forge a source.
    static let radius = FuzzTarget("radius", "answers of RADIUS servers", octetsMax: RADIUSPacket.octetsMax + 8) { octets throws(BrokenProperty) in
        if let packet = RADIUSPacket(decoding: octets) {
            let written = packet.octets
            try expect(octets.starts(with: written), "a packet is not written as it came")
            try expect(RADIUSPacket(decoding: written) == packet, "a packet does not come back as it was written")
            for attribute in packet.attributes {
                try expect(attribute.text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F }, "a text with control characters")
            }
        }
        guard let secret = RADIUSSecret([1, 2, 3]) else { throw BrokenProperty("no secret") }
        let server = Endpoint(IPAddress(ipv4: 0xC000_02FA), port: 1812)
        let accounting = Endpoint(IPAddress(ipv4: 0xC000_02FA), port: 1813)
        var random = SeededGenerator(seed: 1)
        var exchanges = RADIUSExchanges([RADIUSServer(access: server, accounting: accounting, secret: secret)], wait: .seconds(1), triesMax: 1)
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        _ = exchanges.ask(2, .access, [], &random, now)
        _ = exchanges.ask(3, .accounting, [], &random, now)
        for source in [server, accounting] {
            for case .answered(_, let answer) in exchanges.received(octets, from: source, now) {
                throw BrokenProperty("an answer without the secret is believed: \(answer)")
            }
        }
        try expect(exchanges.count == 2, "an exchange was ended by what is no answer")
    }
}

import MATCore
import MATSignal
import RelayCore

extension FuzzTarget {
    /// A relay at which the node of the vectors is bound, with another.
    private static let relay: RelayCore? = {
        guard let residents = IPPrefix("192.0.2.0/24") else { return nil }
        let configuration = RelayCoreConfiguration(residents: [ResidentPrefix(residents, publicKeys: [population.imsKey.publicKey])])
        guard var core = RelayCore(configuration, cookieSecret: population.cookieSecret) else { return nil }
        let bound = [(0xC000_0201, FuzzPopulation.source(0)), (0xC000_0202, FuzzPopulation.source(4))] as [(UInt32, Endpoint)]
        let saved = bound.map { hoa, endpoint in
            SavedBinding(
                prefix: IPPrefix(IPAddress(ipv4: hoa)), endpoint: endpoint, local: relayLocal, until: FuzzPopulation.start + 600_000,
                signedAt: FuzzPopulation.start, certificateNotAfter: .max, lifetimeSeconds: 600, cookieTime: 0, clientCookie: 1)
        }
        return core.restore(SavedRelay(month: "", octetsOfMonth: [], bindings: saved), now: relayNow) == 2 ? core : nil
    }()

    private static let relayLocal = Endpoint(FuzzPopulation.local, port: SignalPort.relay)
    private static let relayNow = Now(
        monotonic: MonotonicTime(nanoseconds: 1_000_000_000), wallMilliseconds: FuzzPopulation.start + 1000)

    /// Whoever has not shown that he receives at his address gets no more than he sent and causes nothing else; and a packet goes only between
    /// bound nodes, to where the one it is for is bound. `source 1 | datagram`.
    static let relays = FuzzTarget("relays", "a relay that hears from anybody", octetsMax: 1300) { octets throws(BrokenProperty) in
        guard var core = relay else { throw BrokenProperty("the relay of the fuzz targets can't be made") }
        let source = FuzzPopulation.source(octets.first ?? 0)
        let datagram = Array(octets.dropFirst())
        if InnerPacket.isSignalling(firstOctet: datagram.first ?? 0) {
            let before = (core.bindingsCount, core.checksPendingCount, core.counters.lookUps)
            let isValidated = SignalDatagram.decode(datagram).contains { part in
                switch part {
                case .message(let message, _): population.cookies.isValid(message.cookie, from: source, now: relayNow)
                case .rejected(let rejection): rejection.cookie.map { population.cookies.isValid($0, from: source, now: relayNow) } ?? false
                case .draft: false
                }
            }
            var sent = 0
            for action in core.received(datagram, from: source, to: relayLocal, now: relayNow) {
                guard case .send(let answer, let local, let peer) = action else { continue }
                try expect(peer == source && local == relayLocal, "an answer to \(source) went from \(local) to \(peer)")
                sent += answer.count
            }
            guard !isValidated else { return }
            let after = (core.bindingsCount, core.checksPendingCount, core.counters.lookUps)
            try expect(before == after, "a stranger changed what the relay holds: \(before) became \(after)")
            try expect(sent <= datagram.count, "\(datagram.count) octets from a stranger were answered with \(sent)")
            return
        }
        let forwarding = datagram.withUnsafeBytes { core.forward($0, from: source, now: relayNow.monotonic) }
        guard case .forward(let way) = forwarding else { return }
        let (local, peer) = (way.from, way.to)
        let bound = [FuzzPopulation.source(0), FuzzPopulation.source(4)]
        try expect(bound.contains(source), "a packet of \(source), which is not bound, was forwarded")
        try expect(bound.contains(peer) && peer != source && local == relayLocal, "a packet of \(source) went from \(local) to \(peer)")
    }
}

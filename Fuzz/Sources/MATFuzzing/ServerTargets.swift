import IMS
import IMSCore
import MATSignal

extension FuzzTarget {
    /// A server that has two nodes and hears from people whose cookies have run out.
    private static let server: FuzzServer? = {
        guard var server = population.makeServer() else { return nil }
        do throws(BrokenProperty) {
            try server.advance(.seconds(7200))
            try server.register(IPAddress(ipv4: 0xC000_0201), at: IPAddress(ipv4: 0xC633_6407))
            try server.register(
                IPAddress(high: 0x2001_0db8_0001_0000, low: 1), at: IPAddress(high: 0x2001_0db8_00aa_0000, low: 7))
            _ = server.takeOutcome()
            return server
        } catch {
            return nil
        }
    }()

    private static func preparedServer() throws(BrokenProperty) -> FuzzServer {
        guard let server else { throw BrokenProperty("the server of the fuzz targets can't be made") }
        return server
    }

    /// Section 6, the size rule: whoever has not shown that he receives at his address gets no more than he sent, and causes nothing
    /// else. `source 1 | datagram`.
    static let strangers = FuzzTarget("strangers", "an IMS that hears from sources without a valid cookie", octetsMax: 1300) {
        octets throws(BrokenProperty) in
        var server = try preparedServer()
        let before = (
            server.core.mappingsCount, server.core.rememberedCount, server.core.subscriptionsCount, server.core.notifiesPendingCount,
            server.core.pushesPendingCount, server.core.counters.verifications
        )
        let source = FuzzPopulation.source(octets.first ?? 0)
        let datagram = Array(octets.dropFirst())
        try server.receive(datagram, from: source)
        let outcome = server.takeOutcome()
        let after = (
            server.core.mappingsCount, server.core.rememberedCount, server.core.subscriptionsCount, server.core.notifiesPendingCount,
            server.core.pushesPendingCount, server.core.counters.verifications
        )
        try expect(before == after, "a stranger changed what the server holds: \(before) became \(after)")
        try expect(outcome.lookUps == 0, "a stranger caused \(outcome.lookUps) look-ups")
        try expect(outcome.commits == 0, "a stranger caused \(outcome.commits) writes")
        try expect(outcome.checks == 0, "a stranger caused \(outcome.checks) signature checks")
        for (_, peer) in outcome.sent { try expect(peer == source, "a stranger at \(source) made the server send to \(peer)") }
        // Operators vouch for the sources of draft queries, which have no cookies.
        let answersDraft = source.address == IPAddress(ipv4: 0xC633_6480)
        let sent = outcome.sent.filter { !answersDraft || $0.octets.count < 3 || $0.octets[2] & 1 == 1 }.reduce(0) { $0 + $1.octets.count }
        try expect(sent <= datagram.count, "\(datagram.count) octets from a stranger were answered with \(sent)")
    }

    /// A worker reads datagrams in place, by arithmetic on pointers, and what it answers itself the core would have answered in the same way.
    /// `source 1 | datagram`.
    static let workers = FuzzTarget("workers", "a thread that answers queries, beside the core", octetsMax: 1300) {
        octets throws(BrokenProperty) in
        let source = FuzzPopulation.source(octets.first ?? 0)
        let prepared = try preparedServer()
        let plain = Array(octets.dropFirst().prefix(SignalDatagram.octetsMax))
        for datagram in [plain, withCookies(plain, of: source, now: prepared.now)] where datagram.count >= SignalHeader.octetsCount {
            // In memory of exactly its size, for the address sanitizer.
            if QueryPathProbe.isRefusedByKernel(datagram) {
                for part in SignalDatagram.decode(datagram) {
                    guard case .rejected(let rejection) = part, rejection.answerCode == nil else {
                        throw BrokenProperty("the kernel is told to refuse what can be read or gets an answer")
                    }
                }
            }
            guard case .answered(let answers) = QueryPathProbe(prepared.core).take(datagram, from: source, now: prepared.now) else { continue }
            var server = prepared
            try server.receive(datagram, from: source)
            let expected = server.takeOutcome().sent.map(\.octets)
            try expect(answers == expected, "\(datagram) was answered \(answers), by the core \(expected)")
        }
    }

    /// What people with cookies can do: bounds hold, what is sent can be read, and time may pass in between.
    /// `{ source 1 | time 1 | choices 1 | length 2 | choices | datagram }`
    static let clients = FuzzTarget("clients", "an IMS that hears from sources with valid cookies", octetsMax: 4096) {
        octets throws(BrokenProperty) in
        var server = try preparedServer()
        var rest = octets[...]
        for _ in 0..<24 {
            guard let number = rest.popFirst(), let time = rest.popFirst(), let choicesCount = rest.popFirst(),
                let high = rest.popFirst(), let low = rest.popFirst()
            else { return }
            let choices = rest.prefix(Int(choicesCount & 0x0F))
            rest = rest.dropFirst(choices.count)
            let datagram = Array(rest.prefix(min(Int(high) << 8 | Int(low), 1300)))
            rest = rest.dropFirst(datagram.count)
            let source = FuzzPopulation.source(number)
            try server.receive(
                withCookies(datagram, of: source, now: server.now), from: source, choices: Array(choices))
            switch time & 3 {
            case 1: try server.advance(.milliseconds(Int(time)))
            case 2: try server.advance(.seconds(Int(time)))
            case 3 where time > 200: try server.advance(.seconds(4000))
            default: break
            }
        }
    }

    /// Puts a valid server cookie into each COOKIE option that has room for one.
    private static func withCookies(_ datagram: [UInt8], of source: Endpoint, now: Now) -> [UInt8] {
        var octets = datagram
        var start = 0
        while start + 8 <= octets.count {
            let end = start + Int(octets[start + 3]) * 4
            guard end >= start + 8, end <= octets.count else { break }
            var place = start + 8
            while place + 4 <= end {
                let length = Int(octets[place + 2]) << 8 | Int(octets[place + 3])
                if octets[place] == 0, octets[place + 1] == 2, length == 24, place + 28 <= end {
                    let client = octets[place + 4..<place + 12].reduce(0) { $0 << 8 | UInt64($1) }
                    let query = MAQuery(
                        cookie: Cookie(client: client, server: population.cookies.make(for: source, clientCookie: client, now: now)),
                        hoa: HomeAddress(source.address))
                    // COOKIE is the first option that we write.
                    octets.replaceSubrange(place..<place + 28, with: SignalMessage(sequence: 0, .maQuery(query)).octets[8..<36])
                }
                place += 4 + (length + 3) & ~3
            }
            start = end
        }
        return octets
    }
}

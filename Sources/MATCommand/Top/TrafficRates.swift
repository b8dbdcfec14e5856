import MATControl
import MATCore
import MATSignal

/// What goes to and from each peer per second, from counts that only grow.
struct TrafficRates: Sendable {
    struct Rate: Hashable, Sendable {
        var packetsOut = 0.0, packetsIn = 0.0
        var octetsOut = 0.0, octetsIn = 0.0

        static func + (a: Rate, b: Rate) -> Rate {
            Rate(
                packetsOut: a.packetsOut + b.packetsOut, packetsIn: a.packetsIn + b.packetsIn, octetsOut: a.octetsOut + b.octetsOut,
                octetsIn: a.octetsIn + b.octetsIn)
        }

        fileprivate var octets: Double { octetsOut + octetsIn }
        fileprivate var packets: Double { packetsOut + packetsIn }
    }

    struct Entry: Sendable {
        var peer: PeerReport
        /// `nil` until it has been seen twice.
        var rate: Rate?
    }

    private struct Pair: Hashable {
        let own: String
        let peer: String
    }

    private struct Sample {
        let peer: PeerReport
        let time: MonotonicTime
        var rate: Rate?
    }

    /// Two looks nearer to each other than this tell nothing.
    private static let intervalMin: Duration = .milliseconds(100)

    private var samples: [Pair: Sample] = [:]

    /// Who was counted now: the most traffic first, then who has had most.
    mutating func take(_ peers: [PeerReport], at now: MonotonicTime) -> [Entry] {
        var fresh: [Pair: Sample] = [:]
        for peer in peers {
            let pair = Pair(own: peer.ownHome, peer: peer.home)
            fresh[pair] = next(peer, after: samples[pair], now)
        }
        samples = fresh
        return peers.map { Entry(peer: $0, rate: fresh[Pair(own: $0.ownHome, peer: $0.home)]?.rate) }.sorted { a, b in
            let (x, y) = (a.rate ?? Rate(), b.rate ?? Rate())
            // More first, and then by name.
            return (y.octets, y.packets, Self.whole(b.peer), a.peer.home, a.peer.ownHome) < (
                x.octets, x.packets, Self.whole(a.peer), b.peer.home, b.peer.ownHome
            )
        }
    }

    private func next(_ peer: PeerReport, after last: Sample?, _ now: MonotonicTime) -> Sample {
        guard let last else { return Sample(peer: peer, time: now, rate: nil) }
        // A key that was pressed a moment after the last look.
        guard now - last.time >= Self.intervalMin else { return last }
        let seconds = Double((now - last.time).millisecondsSaturated) / 1000
        // It was forgotten and is back: its counts began anew.
        func perSecond(_ count: KeyPath<PeerReport, UInt64>) -> Double {
            let (new, old) = (peer[keyPath: count], last.peer[keyPath: count])
            return new >= old ? Double(new - old) / seconds : 0
        }
        return Sample(
            peer: peer, time: now,
            rate: Rate(
                packetsOut: perSecond(\.packetsOut), packetsIn: perSecond(\.packetsIn), octetsOut: perSecond(\.octetsOut),
                octetsIn: perSecond(\.octetsIn)))
    }

    private static func whole(_ peer: PeerReport) -> Double { Double(peer.octetsIn) + Double(peer.octetsOut) }
}

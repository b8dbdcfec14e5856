import BenchSupport
import Foundation
import Glibc
import IMTKernel
import IMTPlan
import MATSignal

/// One figure about changes of the tables, or about the agent: what, with how many peers, and the values of the rounds.
struct ChangeFigure: Codable {
    var name: String
    var unit: String
    var peers: Int
    var values: [Double]

    var median: Double { values.median }
}

/// How fast the tables change, through IMTKernel's public interface, on MN with the given number of peers.
struct Changes {
    /// A second MoA on the same link: where peers' traffic is switched to.
    static let secondMoA = "10.71.1.3"

    let network: BenchNetwork
    let cores: Cores

    func run(peers: [Int], rounds: Int, seconds: Double) throws -> [ChangeFigure] {
        try network.mn.ip("addr add \(Self.secondMoA)/24 dev eth0")
        defer { _ = try? network.mn.ip("addr del \(Self.secondMoA)/24 dev eth0") }
        var all: [ChangeFigure] = []
        for count in peers { all += try measure(peers: count, rounds: rounds, seconds: seconds) }
        return all
    }

    private func measure(peers: Int, rounds: Int, seconds: Double) throws -> [ChangeFigure] {
        let own = HomeAddress(Plan.mnHoA(true))
        let first = MobileAddress(Plan.mnMoA(true))
        let second = MobileAddress(Plan.address(Self.secondMoA))
        func pair(_ number: Int) -> HomePair { HomePair(own: own, peer: HomeAddress(Plan.peerHoA(true, number))) }
        func moa(_ number: Int) -> MobileAddress { MobileAddress(Plan.peerMoA(true, number)) }

        let host = try KernelHost(network.mn, cores, IMTConfiguration(homeAddresses: [own, HomeAddress(Plan.mnHoA(false))]))
        defer { host.stop() }
        return try host.ask { kernel in
            func time(_ changes: [IMTChange]) throws -> Double {
                let start = Ticks.wall()
                try kernel.commit(changes)
                return Double(Ticks.wall() - start)
            }
            let usable = try kernel.currentLinks().usable
            try kernel.setOwnLocators(usable.filter { [first.address, second.address].contains($0.address) })
            try kernel.commit([.setOwn(first, own), .setOwn(second, own)])

            let entries = (1...max(1, peers)).flatMap { number -> [IMTChange] in
                [.setOutbound(pair(number), .rewritten(MobilePair(own: first, peer: moa(number)))), .setInbound(peer: moa(number), pair(number))]
            }
            let fill = try time(entries) / 1e6

            // A peer that moved: where it is sent to, and where it is heard from. Each in a transaction of its own.
            let other = (1...max(1, peers)).map { MobileAddress(Plan.peerMoA(true, BenchNetwork.peersMax + $0)) }
            var rates: [Double] = []
            for round in 0..<rounds {
                let toOther = round % 2 == 0
                let end = Ticks.wall() + UInt64(seconds * 1e9)
                let start = Ticks.wall()
                var done = 0
                while Ticks.wall() < end && done < peers {
                    let number = done + 1
                    let (from, to) = toOther ? (moa(number), other[done]) : (other[done], moa(number))
                    try kernel.commit([
                        .setOutbound(pair(number), .rewritten(MobilePair(own: first, peer: to))), .setInbound(peer: to, pair(number)),
                        .removeInbound(peer: from, own: own),
                    ])
                    done += 1
                }
                rates.append(Double(done) * 1e9 / Double(Ticks.wall() - start))
                // Back to where all of them were.
                if toOther { rates[rates.count - 1] = try Self.back(done, of: rates[rates.count - 1], kernel, pair, first, moa, other, own) }
            }

            var moves: [Double] = []
            for round in 0..<rounds * 2 {
                let (from, to) = round % 2 == 0 ? (first, second) : (second, first)
                moves.append(try time([.moveOutbound(from: from, to: to)]) / 1e6)
            }
            var singly: [Double] = []
            for round in 0..<rounds {
                let to = round % 2 == 0 ? second : first
                singly.append(
                    try time((1...max(1, peers)).map { .setOutbound(pair($0), .rewritten(MobilePair(own: to, peer: moa($0)))) }) / 1e6)
            }
            return [
                ChangeFigure(name: "fill the tables, one transaction", unit: "ms", peers: peers, values: [fill]),
                ChangeFigure(name: "peers that move, a transaction each", unit: "1/s", peers: peers, values: rates),
                ChangeFigure(name: "switch all peers to another own MoA (moveOutbound)", unit: "ms", peers: peers, values: moves),
                ChangeFigure(name: "the same, entry by entry in one transaction", unit: "ms", peers: peers, values: singly),
            ]
        }
    }

    /// Undoes a round of moves in one transaction, outside of the time.
    private static func back(
        _ done: Int, of rate: Double, _ kernel: IMTKernel, _ pair: (Int) -> HomePair, _ own: MobileAddress,
        _ moa: (Int) -> MobileAddress, _ other: [MobileAddress], _ home: HomeAddress
    ) throws -> Double {
        try kernel.commit(
            (0..<done).flatMap { index -> [IMTChange] in
                [
                    .setOutbound(pair(index + 1), .rewritten(MobilePair(own: own, peer: moa(index + 1)))),
                    .setInbound(peer: moa(index + 1), pair(index + 1)), .removeInbound(peer: other[index], own: home),
                ]
            })
        return rate
    }
}

import MATSignal
import MATTesting
import NodeCore
import Testing

/// Several nodes of two IMSs that all talk with each other, and move among the same addresses: an address that one leaves is soon
/// another's. A record that is a moment old then does not only lead nowhere: it leads to the wrong node.
@Suite("A crowd that shares addresses") struct CrowdTests {
    private final class Crowd {
        let seed: UInt64
        let network: SimulatedNetwork
        let servers: [SimulatedIMS]
        let nodes: [SimulatedNode]
        private var free: [IPAddress]
        private var sent = 0

        init(seed: UInt64) {
            self.seed = seed
            let network = SimulatedNetwork(seed: seed, conditions: World.weather(seed))
            self.network = network
            let dns = SimulatedDNS(network)
            let authorities = [TestAuthority(seed: 201), TestAuthority(seed: 202)]
            servers = [
                SimulatedIMS(network, dns, addresses: [ip("192.88.1.1")], serving: prefix("198.51.100.0/24"), authority: authorities[0]),
                SimulatedIMS(network, dns, addresses: [ip("192.88.2.1")], serving: prefix("203.0.113.0/24"), authority: authorities[1]),
            ]
            nodes = (0..<4).map { index in
                let hoa = home(index % 2 == 0 ? "198.51.100.\(index + 1)" : "203.0.113.\(index + 1)")
                return SimulatedNode(network, dns, authorities[index % 2].enrol(hoa, seed: UInt8(11 + index))) { $0.inbound = .open }
            }
            free = (10..<30).map { ip("192.0.2.\($0)") }
            for node in nodes { move(node) }
        }

        /// To an address that nobody has, or with overlap to two.
        func move(_ node: SimulatedNode) {
            let old = node.locators.map(\.moa.address)
            let next = free.remove(at: Int.random(in: 0..<free.count, using: &network.random))
            let hasOverlap = network.random.chance(0.3) && !old.isEmpty
            node.move(to: hasOverlap ? [next] + old.prefix(1) : [next])
            if !hasOverlap {
                release(old)
            } else {
                release(old.dropFirst())
                network.after(.milliseconds(800)) { [weak self] in
                    guard let self, node.locators.first?.moa.address == next, node.locators.count > 1 else { return }
                    release(node.locators.dropFirst().map(\.moa.address))
                    node.move(to: [next])
                }
            }
        }

        /// A network gives an address to another host only after a while: until everybody knows, its packets would be taken for those
        /// of the host before, which nothing short of encryption could tell.
        private func release(_ addresses: some Collection<IPAddress>) {
            let addresses = Array(addresses)
            network.after(.seconds(8)) { [weak self] in self?.free += addresses }
        }

        /// Every node to every other; the packet's number says between whom it is.
        func talk() {
            for (a, from) in nodes.enumerated() {
                for (b, to) in nodes.enumerated() where a != b {
                    sent += 1
                    let hasHeard = from.delivered.contains { $0.from == to.hoa }
                    from.send(UserPacket(sent * 100 + a * 10 + b, hasHeard ? .segment : .opening), to: to.hoa.address)
                }
            }
            network.after(.milliseconds(100)) { [weak self] in self?.talk() }
        }

        /// Packets that came to a node to which they were not sent.
        func strayPackets() -> [String] {
            nodes.enumerated().flatMap { index, node in
                node.delivered.compactMap { delivery in
                    let (from, to) = (delivery.packet.number / 10 % 10, delivery.packet.number % 10)
                    guard to != index || nodes[from].hoa != delivery.from else { return nil }
                    return
                        "\(delivery.at.nanoseconds / 1_000_000) ms: \(node.hoa) took a packet from \(nodes[from].hoa) to \(nodes[to].hoa) for one from \(delivery.from)"
                }
            }
        }

        var differences: [String] {
            var result: [String] = []
            for node in nodes {
                var outbound: [HomePair: MobilePair] = [:]
                var inbound: [MobilePair: HomePair] = [:]
                for peer in nodes where peer !== node {
                    let pair = HomePair(own: node.hoa, peer: peer.hoa)
                    if let own = node.locators.first?.moa, let moa = peer.locators.first?.moa { outbound[pair] = MobilePair(own: own, peer: moa) }
                    for own in node.locators { for moa in peer.locators { inbound[MobilePair(own: own.moa, peer: moa.moa)] = pair } }
                }
                if node.imt.outbound != outbound { result.append("\(node.hoa) sends by \(node.imt.outbound), should by \(outbound)") }
                if node.imt.inbound != inbound { result.append("\(node.hoa) accepts \(node.imt.inbound), should \(inbound)") }
            }
            return result
        }
    }

    @Test("Everybody's IMT becomes true, and nobody gets another's packets")
    func converges() {
        var times: [Duration] = []
        for seed in World.seeds.prefix(max(1, World.seeds.count / 2)) {
            let crowd = Crowd(seed: seed)
            crowd.network.run(for: .seconds(20))
            crowd.talk()
            crowd.network.run(for: .seconds(10))
            for _ in 0..<12 {
                let node = crowd.nodes[Int.random(in: 0..<crowd.nodes.count, using: &crowd.network.random)]
                crowd.move(node)
                crowd.network.run(for: .milliseconds(Int.random(in: 0...3000, using: &crowd.network.random)))
            }
            let start = crowd.network.time
            if !crowd.network.drive(max: .seconds(240), until: { crowd.differences.isEmpty }) {
                Issue.record("seed \(seed) (\(crowd.network.conditions)): \(crowd.differences.joined(separator: "; "))")
                if World.isVerbose {
                    for node in crowd.nodes { print("---- \(node.hoa)\n\(node.logs.joined(separator: "\n"))") }
                }
            }
            times.append(crowd.network.time - start)
            let strays = crowd.strayPackets()
            if !strays.isEmpty {
                Issue.record("seed \(seed) (\(crowd.network.conditions)): \(strays.count): \(strays.prefix(3))")
                if World.isVerbose { for node in crowd.nodes { print("---- \(node.hoa)\n\(node.logs.joined(separator: "\n"))") } }
            }
        }
        times.sort()
        print("crowd: median \(times[times.count / 2]), longest \(times.last ?? .zero)")
    }
}

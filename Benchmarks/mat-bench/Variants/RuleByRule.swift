import IMTKernel
import IMTPlan
import MATSignal
import Namespaces

/// What each rule costs that a plain packet meets: the product's own tables on both hosts, of which each step has a few rules more than the one
/// before; the last has all. A chain that a step leaves without rules lets packets pass.
final class RuleByRule: Installed {
    /// The rules from which a step takes more than the step before: so many of a chain, all with `nil`.
    struct Step {
        var title: String
        var more: [(chain: String, rules: Int?)]
    }

    /// In the order in which a datagram meets them: out of one host, into the other.
    static func steps(_ own: IPAddress) -> [Step] {
        func chain(_ name: String) -> String { TranslationRuleset.name(name, own) }
        return [
            Step(title: "two hooks without rules", more: []),
            Step(title: "out: from a HoA?", more: [("translate", nil)]),
            Step(title: "out: released? from which own MoA?", more: [("unmapped", nil)]),
            Step(title: "out: begins or ends a connection? our own port?", more: [(chain("begun"), 2)]),
            Step(title: "out: to a peer's MoA?", more: [(chain("begun"), 3)]),
            Step(title: "out: the flow is noted", more: [(chain("begun"), nil), ("our_port", nil), (chain("to_peer"), nil), ("started", nil)]),
            Step(title: "in: for which own MoA?", more: [("deliver", nil)]),
            Step(title: "in: signalling? an error?", more: [(chain("arrived"), 2)]),
            Step(title: "in: from a peer's MoA?", more: [(chain("arrived"), 3)]),
            Step(title: "in: translated already? TCP? the agent's port?", more: [(chain("arrived"), 6)]),
            Step(title: "in: of a flow that is noted? All rules", more: [(chain("arrived"), nil)]),
        ]
    }

    let ends: Ends
    private let network: BenchNetwork
    private let isIPv4: Bool

    /// - Parameter step: the last that is taken.
    init(_ network: BenchNetwork, step: Int, isIPv4: Bool) throws {
        self.network = network
        self.isIPv4 = isIPv4
        ends = .moas(isIPv4)
        do {
            for (host, home, own, other) in [
                (network.mn, Plan.mnHoA(isIPv4), Plan.mnMoA(isIPv4), Plan.cnMoA(isIPv4)),
                (network.cn, Plan.cnHoA(isIPv4), Plan.cnMoA(isIPv4), Plan.mnMoA(isIPv4)),
            ] {
                try onThread {
                    try host.enter()
                    try Self.install(Self.steps(own).prefix(step + 1), home: home, own: own, other: other)
                }
            }
        } catch {
            remove()
            throw error
        }
    }

    func remove() {
        for host in [network.mn, network.cn] { _ = try? host.run("nft delete table \(isIPv4 ? "ip" : "ip6") \(TranslationRuleset.tableName)") }
    }

    private static func install(_ steps: some Sequence<Step>, home: IPAddress, own: IPAddress, other: IPAddress) throws {
        var plan = TranslationPlan(IMTConfiguration(homeAddresses: [HomeAddress(home)]))
        plan.needs = TranslationNeeds(asksRouting: true, isUntracked: true)
        let peer = HomePair(own: HomeAddress(home), peer: HomeAddress(Plan.peerHoA(own.isIPv4, 1)))
        let peerMoA = MobileAddress(Plan.peerMoA(own.isIPv4, 1))
        var model = TranslationModel()
        try model.apply([
            .setOwn(MobileAddress(own), HomeAddress(home)), .setOutbound(peer, .rewritten(MobilePair(own: MobileAddress(own), peer: peerMoA))),
            .setInbound(peer: peerMoA, peer), .setPlain(other, lifetime: .seconds(3600)),
        ])
        model.homes = [home]
        model.addresses = [home, own]
        var counts: [String: Int] = [:]
        for part in steps.flatMap(\.more) { counts[part.chain] = part.rules ?? .max }
        let isWhole = steps.reduce(0) { count, _ in count + 1 } == Self.steps(own).count
        let socket = try NetlinkSocket.nftables()
        var batch = NFTBatch(firstSequence: socket.nextSequence)
        for var change in plan.installation(of: model, replacing: [], flags: 0) where change.table.family == own.family {
            change.steps.removeAll { step in
                guard case .addRule(_, let chain) = step, !isWhole else { return false }
                counts[chain, default: 0] -= 1
                return counts[chain, default: 0] < 0
            }
            batch.append(change)
        }
        try batch.seal().commit(on: socket, operation: "install rules")
    }
}

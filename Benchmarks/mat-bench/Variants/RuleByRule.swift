import IMTKernel
import IMTPlan
import MATSignal
import Namespaces

/// What each rule costs that a plain packet meets: the product's own tables on both hosts, of which each step has a few rules more than the one
/// before; the last has all. A chain that a step leaves without rules lets packets pass.
final class RuleByRule: Installed {
    /// The rules from which a step takes more than the step before.
    struct Step {
        var title: String
        var more: [Part]
    }

    /// So many rules of a chain, all with `nil`; and of the last of them only what comes before a kind of expression, after which it lets packets pass.
    struct Part {
        var chain: String
        var rules: Int?
        var before: ((Expression) -> Bool)?
    }

    /// In the order in which a datagram meets them: out of one host, into the other. Two rules decide about it, and those behind them see none of its
    /// kind.
    static func steps(_ own: IPAddress) -> [Step] {
        func isMark(_ step: Expression) -> Bool { if case .meta(.mark, _) = step { true } else { false } }
        func isNote(_ step: Expression) -> Bool { if case .update = step { true } else { false } }
        func isLookup(_ step: Expression) -> Bool { if case .lookup = step { true } else { false } }
        return [
            Step(title: "two hooks without rules", more: []),
            Step(title: "out: from which own MoA? a datagram? our port? a peer's MoA?", more: [Part(chain: "translate", rules: 1, before: isMark)]),
            Step(title: "out: released? and all of the note but the note", more: [Part(chain: "translate", rules: 1, before: isNote)]),
            Step(title: "out: the flow is noted", more: [Part(chain: "translate", rules: 1)]),
            Step(title: "in: for which own MoA? a datagram? from a peer's MoA?", more: [Part(chain: "deliver", rules: 1, before: isLookup)]),
            Step(title: "in: of a flow that is noted?", more: [Part(chain: "deliver", rules: 1)]),
            Step(title: "all rules", more: []),
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
        var parts: [String: Part] = [:]
        for part in steps.flatMap(\.more) { parts[part.chain] = part }
        let isWhole = steps.reduce(0) { count, _ in count + 1 } == Self.steps(own).count
        let socket = try NetlinkSocket.nftables()
        var batch = NFTBatch(firstSequence: socket.nextSequence)
        for var change in plan.installation(of: model, replacing: [], flags: 0) where change.table.family == own.family {
            var taken: [String: Int] = [:]
            change.steps = change.steps.compactMap { step in
                guard case .addRule(let rule, let chain) = step, !isWhole else { return step }
                guard let part = parts[chain] else { return nil }
                taken[chain, default: 0] += 1
                guard let place = taken[chain], place <= part.rules ?? .max else { return nil }
                guard let before = part.before, place == part.rules else { return step }
                return .addRule(rule.prefix { !before($0) } + [.verdict(.accept)], to: chain)
            }
            batch.append(change)
        }
        try batch.seal().commit(on: socket, operation: "install rules")
    }
}

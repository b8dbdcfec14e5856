import MATSignal

/// A host's firewall as a value: chains of rules, and what becomes of a packet that meets them. Read from nftables (`NFTablesListing`) and
/// iptables (`IPTablesListing`); MAT's own tables are left out.
///
/// ```
///   hook (input) ─► base chain of the lowest priority ─┬─ accepted, or its end with policy accept ─► the next base chain ─► ... ─► passes
///                        └─ jump, goto ─► other chains └─ dropped, or its end with policy drop ──────────────────────────────────► dropped
/// ```
/// What a rule asks for and this can't judge (limits, sets of addresses that the kernel fills, other extensions) makes it neither match nor not: where
/// such a rule would have accepted, a later drop is not certain.
struct HostFirewall: Hashable, Sendable {
    enum Tool: String, Hashable, Sendable {
        case nftables
        case iptables
        case iptablesLegacy = "iptables-legacy"
    }

    enum Hook: String, Hashable, Sendable {
        case prerouting, input, output, postrouting
    }

    struct Table: Hashable, Sendable {
        var tool: Tool
        /// ip, ip6 or inet.
        var family: String
        var name: String

        func sees(_ family: AddressFamily) -> Bool {
            switch self.family {
            case "inet": true
            case "ip": family == .ipv4
            case "ip6": family == .ipv6
            default: false
            }
        }
    }

    struct Base: Hashable, Sendable {
        var hook: Hook
        var priority: Int
        var dropsAtEnd: Bool
    }

    struct Chain: Hashable, Sendable {
        var table: Table
        var name: String
        /// `nil` for chains that others jump to.
        var base: Base?
        var rules: [Rule] = []
    }

    struct Rule: Hashable, Sendable {
        enum Verdict: Hashable, Sendable {
            case accept, drop, goBack
            case jump(String)
            case goTo(String)
        }

        var matches: [Match]
        /// `nil` for what only counts, logs or changes a packet.
        var verdict: Verdict?
        /// As its tool writes it.
        var text: String
    }

    /// What a rule asks of a packet.
    struct Match: Hashable, Sendable {
        enum Field: Hashable, Sendable {
            case family, networkProtocol, sourcePort, destinationPort, source, destination, inInterface, outInterface, state
        }

        enum Value: Hashable, Sendable {
            case word(String)
            case numbers(ClosedRange<Int>)
            case prefix(IPPrefix)
        }

        /// `nil`: something that can't be judged here.
        var field: Field?
        var values: [Value] = []
        var isNegated = false

        static let unknown = Match(field: nil)
    }

    struct Packet: Hashable, Sendable {
        var family: AddressFamily
        var networkProtocol: String
        var sourcePort: Int?
        var destinationPort: Int?
        /// `nil`: any.
        var source: IPAddress?
        var destination: IPAddress?
        /// Empty at hooks where there is none.
        var inInterface = ""
        var outInterface = ""
        /// Of the connection: new, established.
        var state: String
    }

    /// Where a packet ends.
    struct Place: Hashable, Sendable {
        var table: Table
        var chain: String
        /// The rule, or the policy.
        var text: String
        /// Nothing that can't be judged here could have accepted it before.
        var isCertain: Bool
    }

    private(set) var chains: [Chain] = []

    mutating func add(_ chain: Chain) { chains.append(chain) }

    /// Takes a table out, of which another listing says more.
    mutating func remove(_ table: Table) { chains.removeAll { $0.table == table } }

    var isEmpty: Bool { chains.isEmpty }

    /// Programs that write the rules, as their tables and chains give them away.
    var managers: [String] {
        var found: [String] = []
        if chains.contains(where: { $0.table.name.hasPrefix("firewalld") || $0.name.hasPrefix("IN_public") }) { found.append("firewalld") }
        if chains.contains(where: { $0.name.hasPrefix("ufw-") || $0.name.hasPrefix("ufw6-") }) { found.append("ufw") }
        return found
    }

    // MARK: What becomes of a packet

    /// - Returns: where it is dropped; `nil` if it passes.
    func drop(of packet: Packet, at hooks: [Hook]) -> Place? {
        for hook in hooks {
            let bases = chains.filter { $0.base?.hook == hook && $0.table.sees(packet.family) }
            for chain in bases.sorted(by: { ($0.base?.priority ?? 0) < ($1.base?.priority ?? 0) }) {
                var walk = Walk(self, packet)
                switch walk.follow(chain, depth: 0) {
                case .accepted: continue
                case .dropped(let place): return place
                case .ended:
                    if chain.base?.dropsAtEnd == true {
                        return Place(table: chain.table, chain: chain.name, text: "policy drop", isCertain: !walk.mayAccept)
                    }
                }
            }
        }
        return nil
    }

    /// One packet on its way through one base chain.
    private struct Walk {
        enum End {
            case accepted
            case dropped(Place)
            /// Of the chain, without a verdict.
            case ended
        }

        /// What the kernel allows (NFT_JUMP_STACK_SIZE), and far more rules than anybody has in the way of one packet.
        static let depthMax = 16
        static let rulesMax = 20_000

        let firewall: HostFirewall
        let packet: Packet
        /// A rule that can't be judged may have accepted it.
        var mayAccept = false
        private var rulesLeft = Self.rulesMax

        init(_ firewall: HostFirewall, _ packet: Packet) {
            self.firewall = firewall
            self.packet = packet
        }

        mutating func follow(_ chain: Chain, depth: Int) -> End {
            for rule in chain.rules {
                rulesLeft -= 1
                guard rulesLeft > 0 else {
                    mayAccept = true
                    return .ended
                }
                let isMatched = rule.isMatched(by: packet)
                switch rule.verdict {
                case nil: continue
                case _ where isMatched == false: continue
                case .accept?:
                    if isMatched == true { return .accepted }
                    mayAccept = true
                case .drop?:
                    if isMatched == true {
                        return .dropped(Place(table: chain.table, chain: chain.name, text: rule.text, isCertain: !mayAccept))
                    }
                case .goBack?:
                    if isMatched == true { return .ended }
                case .jump(let name)?, .goTo(let name)?:
                    let end = jump(to: name, from: chain, depth: depth)
                    guard isMatched == true else {
                        if case .accepted = end { mayAccept = true }
                        continue
                    }
                    if case .ended = end, case .jump? = rule.verdict { continue }
                    return end
                }
            }
            return .ended
        }

        private mutating func jump(to name: String, from chain: Chain, depth: Int) -> End {
            guard depth < Self.depthMax, let next = firewall.chains.first(where: { $0.table == chain.table && $0.name == name }) else {
                return .ended
            }
            return follow(next, depth: depth + 1)
        }
    }
}

extension HostFirewall.Rule {
    /// - Returns: `nil` if that can't be judged.
    func isMatched(by packet: HostFirewall.Packet) -> Bool? {
        var result: Bool? = true
        for match in matches {
            switch match.isMet(by: packet) {
            case false?: return false
            case nil: result = nil
            case true?: break
            }
        }
        return result
    }
}

extension HostFirewall.Match {
    fileprivate func isMet(by packet: HostFirewall.Packet) -> Bool? {
        guard let met = has(packet) else { return nil }
        return met != isNegated
    }

    private func has(_ packet: HostFirewall.Packet) -> Bool? {
        switch field {
        case nil: nil
        case .family?: has(word: packet.family == .ipv4 ? "ipv4" : "ipv6")
        case .networkProtocol?: has(word: packet.networkProtocol)
        case .state?: has(word: packet.state)
        case .inInterface?: has(interface: packet.inInterface)
        case .outInterface?: has(interface: packet.outInterface)
        case .sourcePort?: has(port: packet.sourcePort)
        case .destinationPort?: has(port: packet.destinationPort)
        case .source?: has(address: packet.source)
        case .destination?: has(address: packet.destination)
        }
    }

    private func has(word: String) -> Bool { values.contains(.word(word)) }

    /// Names may end in a wildcard: `*` of nftables, `+` of iptables.
    private func has(interface: String) -> Bool {
        values.contains { value in
            guard case .word(let name) = value else { return false }
            guard let last = name.last, last == "*" || last == "+" else { return name == interface }
            return !interface.isEmpty && interface.hasPrefix(name.dropLast())
        }
    }

    private func has(port: Int?) -> Bool? {
        guard let port else { return nil }
        return values.contains { if case .numbers(let range) = $0 { range.contains(port) } else { false } }
    }

    private func has(address: IPAddress?) -> Bool? {
        let prefixes = values.compactMap { if case .prefix(let prefix) = $0 { prefix } else { nil } }
        guard let address else { return prefixes.contains { $0.familyLength == 0 } ? true : nil }
        return prefixes.contains { $0.contains(address) }
    }
}

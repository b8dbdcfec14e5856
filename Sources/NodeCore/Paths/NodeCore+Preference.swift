import MATSignal

// Which own address to send from: the node's order, what was said about single peers, and what was found not to work.

extension NodeCore {
    /// The addresses in the order in which they are to be used: what works first, then the chosen interface, then what is not about to
    /// be taken away (RFC 6724 5, rule 3), then the configured order, then the system's.
    func ordered(_ locators: [OwnLocator]) -> [OwnLocator] {
        func rank(_ locator: OwnLocator) -> (isOther: Int, isDeprecated: Int, place: Int) {
            (
                locator.interface == chosenInterface ? 0 : 1, locator.isDeprecated ? 1 : 0,
                configuration.preferredInterfaces.firstIndex(of: locator.interface) ?? configuration.preferredInterfaces.count
            )
        }
        return locators.enumerated().sorted { a, b in
            let (x, y) = (rank(a.element), rank(b.element))
            return (order(a.element.moa), x.isOther, x.isDeprecated, x.place, a.offset) < (order(b.element.moa), y.isOther, y.isDeprecated, y.place, b.offset)
        }.map(\.element)
    }

    private func order(_ own: MobileAddress) -> Uplink.Order { (ways.uplinks[own] ?? Uplink()).order }

    /// The addresses that a record has room for, by family: the best of each link, then second ones and so on, so that no link's
    /// many addresses leave another without a place.
    static func places(_ ordered: [OwnLocator]) -> [Bool: [MobileAddress]] {
        var result: [Bool: [MobileAddress]] = [:]
        for isIPv4 in [true, false] {
            let family = ordered.filter { $0.moa.isIPv4 == isIPv4 }
            var earlier: [String: Int] = [:]
            let rounds = family.map { locator in
                defer { earlier[locator.interface, default: 0] += 1 }
                return earlier[locator.interface] ?? 0
            }
            let chosen = family.indices.sorted { (rounds[$0], $0) < (rounds[$1], $1) }.prefix(MappingRecord.locatorsMax).sorted()
            result[isIPv4] = chosen.map { family[$0].moa }
        }
        return result
    }

    /// A person wants this interface to be used first towards one peer; `nil` goes back to what is configured.
    public mutating func prefer(interface: String?, for peer: HomeAddress, now: Now) -> [NodeAction] {
        if let interface, ways.chosen[peer] != nil || ways.chosen.count < PathKnowledge.chosenMax {
            ways.chosen[peer] = interface
            log(.notice, "traffic to \(peer) is to use \(interface)")
        } else {
            ways.chosen[peer] = nil
            log(.notice, "traffic to \(peer) uses the configured order of interfaces again")
        }
        ways.detours[peer] = nil
        switchPeer(peer, now)
        runPaths(now)
        return endEvent()
    }

    /// What was said about this peer: by a person now, else by the configuration's longest prefix.
    func interfaces(for peer: HomeAddress) -> [String] {
        if let chosen = ways.chosen[peer] { return [chosen] }
        let fitting = configuration.peerPreferences.filter { $0.prefix.contains(peer.address) }
        return fitting.max { $0.prefix.length < $1.prefix.length }?.interfaces ?? []
    }

    var hasPreferences: Bool { !ways.chosen.isEmpty || !configuration.peerPreferences.isEmpty }

    /// The own addresses for a peer, the best first: the node's order, with the interfaces said for this peer before the others.
    /// What does not work comes last all the same, and only what our record lists is a choice: others the peer does not accept.
    func ownMoAs(for peer: HomeAddress) -> [MobileAddress] {
        guard let own = home(for: peer) else { return [] }
        let all = desiredLocators(of: own)
        let wanted = hasPreferences ? interfaces(for: peer) : []
        guard !wanted.isEmpty, all.count > 1 else { return all }
        let record = homes[own]?.mapping?.record
        let choice = all.filter { $0 == all.first || record?.lists($0) ?? false }
        func rank(_ moa: MobileAddress) -> Int {
            ownLocators.first { $0.moa == moa }.flatMap { wanted.firstIndex(of: $0.interface) } ?? wanted.count
        }
        return choice.enumerated().sorted { a, b in
            (order(a.element), rank(a.element), a.offset) < (order(b.element), rank(b.element), b.offset)
        }.map(\.element)
    }

    func preferredOwnMoA(for peer: HomeAddress) -> MobileAddress? { ownMoAs(for: peer).first }

}

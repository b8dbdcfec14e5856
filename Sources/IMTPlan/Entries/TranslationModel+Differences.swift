import MATSignal

/// The elements that one set must lose and gain, of one family.
package struct SetDifference {
    package var set: String
    package var removed: [SetElement] = []
    package var added: [SetElement] = []

    package init(set: String, removed: [SetElement] = [], added: [SetElement] = []) {
        self.set = set
        self.removed = removed
        self.added = added
    }
}

/// The keys that a list of changes concerns: a commit of one entry must not compare thousands.
package struct TouchedKeys {
    /// In the order of the changes, each once.
    package private(set) var homes: [HomePair] = []
    package private(set) var arrivals: [Arrival] = []
    package var addresses: Set<IPAddress> = []
    /// Own MoAs that entries leave from were exchanged.
    package var moves = false

    package init(_ changes: [IMTChange]) {
        var (knownHomes, knownArrivals): (Set<HomePair>, Set<Arrival>) = ([], [])
        func insert(_ home: HomePair) { if knownHomes.insert(home).inserted { homes.append(home) } }
        func insert(_ arrival: Arrival) { if knownArrivals.insert(arrival).inserted { arrivals.append(arrival) } }
        for change in changes {
            switch change {
            case .setOutbound(let home, _), .removeOutbound(let home):
                insert(home)
                addresses.insert(home.peer.address)
            case .moveOutbound: moves = true
            case .setOwn, .removeOwn: break
            case .setInbound(let moa, let home): insert(Arrival(peer: moa, own: home.own))
            case .removeInbound(let moa, let own): insert(Arrival(peer: moa, own: own))
            case .setPlain(let address, _), .removePlain(let address): addresses.insert(address)
            case .accept, .acceptGateways, .letOpen, .holdOpeners, .askAgain, .holdConnections, .letConnections, .setAlwaysPlain: break
            }
        }
    }
}

extension TranslationModel {
    /// Which elements bring a kernel that holds `old` to this model. A changed entry is removed and added in one transaction: the
    /// kernel has no other way, and no packet sees it missing.
    ///
    /// - Parameter touched: the only peers and plain addresses that may differ; `nil` if any may.
    package func differences(from old: TranslationModel, family: AddressFamily, touched: TouchedKeys? = nil) -> [SetDifference] {
        var out: [UInt32: SetDifference] = [:]
        var numbers = SetDifference(set: TranslationRuleset.paths)
        var owned = SetDifference(set: TranslationRuleset.own)
        var into: [HomeAddress: SetDifference] = [:]
        var mapped = SetDifference(set: TranslationRuleset.mapped)
        var inDatagrams = SetDifference(set: TranslationRuleset.encapsulated)
        for home in touched?.homes ?? allHomes(old) where home.own.family == family {
            let (before, after) = (old.entries[home], entries[home])
            let key = home.peer.address.packetOctets
            let (was, isNow) = (old.encapsulated[home] != nil, encapsulated[home] != nil)
            if was != isNow { inDatagrams.change(key: home.own.address.packetOctets + key, old: was ? [] : nil, new: isNow ? [] : nil) }
            guard before != after else { continue }
            mapped.change(key: home.own.address.packetOctets + key, old: before.map { _ in [] }, new: after.map { _ in [] })
            if let before { out[before.path, default: SetDifference(out: before.path)].removed.append(SetElement(key: key)) }
            if let after {
                out[after.path, default: SetDifference(out: after.path)].added.append(SetElement(key: key, data: after.peer.address.packetOctets))
            }
        }
        for number in Set(paths.keys).union(old.paths.keys).sorted() {
            let (before, after) = (old.paths[number], paths[number])
            numbers.change(
                key: Self.octets(number), old: before.flatMap { $0.moa.family == family ? $0.data : nil },
                new: after.flatMap { $0.moa.family == family ? $0.data : nil })
        }
        for moa in Set(own.keys).union(old.own.keys).sorted() where moa.family == family {
            owned.change(key: moa.address.packetOctets, old: old.own[moa]?.address.packetOctets, new: own[moa]?.address.packetOctets)
        }
        var returning = SetDifference(set: TranslationRuleset.retired)
        let (away, wereAway) = (retiredByAddress, old.retiredByAddress)
        for moa in Set(away.keys).union(wereAway.keys).sorted() where moa.family == family {
            returning.change(key: moa.address.packetOctets, old: wereAway[moa]?.address.packetOctets, new: away[moa]?.address.packetOctets)
        }
        for arrival in touched?.arrivals ?? allArrivals(old) where arrival.own.family == family {
            into[arrival.own, default: SetDifference(into: arrival.own)].change(
                key: arrival.peer.address.packetOctets, old: old.entries[arrival]?.address.packetOctets,
                new: entries[arrival]?.address.packetOctets)
        }
        return out.sorted { $0.key < $1.key }.map(\.value) + into.sorted { $0.key < $1.key }.map(\.value) + [
            numbers, owned, mapped, inDatagrams, returning,
            SetDifference(TranslationRuleset.known, old.addresses, addresses, family, nil),
            SetDifference(
                TranslationRuleset.forgotten, { old.forgotten[$0] != nil }, { forgotten[$0] != nil }, family,
                touched?.addresses ?? Set(forgotten.keys).union(old.forgotten.keys)),
            SetDifference(TranslationRuleset.plainSources, old.plain, plain, family, touched?.addresses),
            SetDifference(TranslationRuleset.homes, old.homes, self.homes, family, nil),
        ]
    }

    /// Of this model and the other one, each once: in an order that is the same each time, without sorting the many.
    private func allHomes(_ old: TranslationModel) -> [HomePair] {
        let now = entries.departures.map(\.key) + old.entries.departures.lazy.map(\.key).filter { entries[$0] == nil }
        guard !encapsulated.isEmpty || !old.encapsulated.isEmpty else { return now }
        let others = Set(encapsulated.keys).union(old.encapsulated.keys).filter { entries[$0] == nil && old.entries[$0] == nil }
        return now + others.sorted()
    }

    private func allArrivals(_ old: TranslationModel) -> [Arrival] {
        entries.arrivals.map(\.key) + old.entries.arrivals.lazy.map(\.key).filter { entries[$0] == nil }
    }
}

extension SetDifference {
    fileprivate mutating func change(key: [UInt8], old: [UInt8]?, new: [UInt8]?) {
        guard old != new else { return }
        if old != nil { removed.append(SetElement(key: key)) }
        if let new { added.append(SetElement(key: key, data: new)) }
    }

    fileprivate init(out path: UInt32) { set = TranslationRuleset.out(path) }
    fileprivate init(into own: HomeAddress) { set = TranslationRuleset.into(own) }

    fileprivate init(_ name: String, _ old: Set<IPAddress>, _ new: Set<IPAddress>, _ family: AddressFamily, _ touched: Set<IPAddress>?) {
        self.init(name, old.contains, new.contains, family, touched ?? (old == new ? [] : old.symmetricDifference(new)))
    }

    fileprivate init(
        _ name: String, _ wasIn: (IPAddress) -> Bool, _ isIn: (IPAddress) -> Bool, _ family: AddressFamily, _ addresses: Set<IPAddress>
    ) {
        set = name
        for address in addresses.filter({ $0.family == family }).sorted() {
            change(key: address.packetOctets, old: wasIn(address) ? [] : nil, new: isIn(address) ? [] : nil)
        }
    }
}

import MATSignal

/// A way out that many peers may share: packets from this HoA leave from this own MoA.
package struct DeparturePath: Hashable {
    package var own: HomeAddress
    package var moa: MobileAddress

    package init(own: HomeAddress, moa: MobileAddress) {
        self.own = own
        self.moa = moa
    }
}

/// How packets to a peer leave: by the path of this number, to this MoA.
package struct Departure: Hashable {
    package var path: UInt32
    package var peer: MobileAddress

    package init(path: UInt32, peer: MobileAddress) {
        self.path = path
        self.peer = peer
    }
}

/// An own MoA that went away, and may come back before the agent hears of it.
package struct RetiredLocator: Hashable {
    package var moa: MobileAddress
    package var hoa: HomeAddress

    package init(moa: MobileAddress, hoa: HomeAddress) {
        self.moa = moa
        self.hoa = hoa
    }
}

/// What the maps and sets of both families hold, as far as the agent decides it.
package struct TranslationModel: Equatable {
    /// How packets to each peer leave, and whom arriving packets are from.
    package private(set) var entries = EntryTable()
    /// To move every peer from one own MoA to another, one path changes its MoA.
    package private(set) var paths: [UInt32: DeparturePath] = [:]
    /// How packets leave that are not rewritten. The kernel gets only the pairs: their packets are let into our device as they are.
    package private(set) var encapsulated: [HomePair: Carriage] = [:]
    package private(set) var own: [MobileAddress: HomeAddress] = [:]
    /// Own MoAs that went away, the latest last. Peers go on sending there until they have heard, and what comes when the address is
    /// back is theirs.
    package private(set) var retired: [RetiredLocator] = []
    /// HoAs that had an entry and have none now: what leaves for them otherwise than into our device is on a wrong way. By the order in
    /// which they were forgotten.
    package private(set) var forgotten: [IPAddress: UInt64] = [:]
    private var lastForgotten: UInt64 = 0
    /// All addresses that this host has, on whatever link.
    package var addresses: Set<IPAddress> = []
    package var plain: Set<IPAddress> = []
    /// HoAs that are on no real link: from these, plain traffic needs source NAT.
    package var homes: Set<IPAddress> = []
    /// Those of them that are no MoA either, and lately were none. What a node at home sends to plain hosts has a HoA for a source and is nobody's to
    /// rewrite; when its address goes, peers still send to it until they have heard, and it stays a MoA for so long.
    package var homesAway: Set<IPAddress> { homesAway(among: homes) }

    /// The same if these were the homes.
    package func homesAway(among homes: Set<IPAddress>) -> Set<IPAddress> {
        homes.subtracting(own.keys.map(\.address)).subtracting(retired.map(\.moa.address))
    }
    /// HoAs whose peers are being told of a move. The agent's alone: its successor knows of none.
    package private(set) var announcing: Set<HomeAddress> = []
    /// Of an excerpt: `fewArrivals` of the whole.
    private var wholeArrivals: Set<IPAddress>??
    /// Entries of each path; one without any is given up.
    package private(set) var uses: [UInt32: Int] = [:]

    package init() {}

    // MARK: Questions

    package func outbound(_ home: HomePair) -> MobilePair? {
        guard let departure = entries[home], let path = paths[departure.path] else { return nil }
        return MobilePair(own: path.moa, peer: departure.peer)
    }

    /// How packets of an entry get to the peer.
    package func carriage(_ home: HomePair) -> Carriage? { encapsulated[home] ?? outbound(home).map { .rewritten($0) } }

    package func hasEntry(_ home: HomePair) -> Bool { entries[home] != nil || encapsulated[home] != nil }

    /// All pairs that have an entry of either kind, each once, in no order that means anything.
    package var pairs: [HomePair] { entries.departures.map(\.key) + encapsulated.keys }

    package func inbound(_ arrival: Arrival) -> HomeAddress? { entries[arrival] }

    /// Where peers' packets come from, of both families, if these are no more places than rules name one by one.
    package var fewArrivals: Set<IPAddress>? {
        if let wholeArrivals { return wholeArrivals }
        guard entries.arrivalsCount <= TranslationRuleset.peerConstantsMax else { return nil }
        return Set(entries.arrivals.map(\.key.peer.address))
    }

    package var retiredByAddress: [MobileAddress: HomeAddress] { Dictionary(retired.map { ($0.moa, $0.hoa) }, uniquingKeysWith: { $1 }) }

    /// All entries in the agent's terms. A copy of the whole table: not for what happens often.
    package var outbound: [HomePair: MobilePair] {
        var result: [HomePair: MobilePair] = [:]
        for (home, departure) in entries.departures {
            if let path = paths[departure.path] { result[home] = MobilePair(own: path.moa, peer: departure.peer) }
        }
        return result
    }
    package var inbound: [Arrival: HomeAddress] { Dictionary(uniqueKeysWithValues: entries.arrivals.map { ($0.key, $0.value) }) }

    /// How many entries leave from each own MoA.
    package var departuresCount: [MobileAddress: Int] {
        var result: [MobileAddress: Int] = [:]
        for (number, count) in uses { if let path = paths[number] { result[path.moa, default: 0] += count } }
        return result
    }

    // MARK: Changes

    /// Applies the changes in order; a later one wins. If it throws, the model is of no use any more: see `excerpt`.
    package mutating func apply(_ changes: [IMTChange]) throws(PlanError) {
        for change in changes {
            switch change {
            case .setOutbound(let home, let carriage):
                switch carriage.way {
                case .rewritten(let mobile):
                    try Self.check([home.own.family, home.peer.family, mobile.own.family, mobile.peer.family], "\(home) over \(mobile)")
                    try set(home, mobile)
                    encapsulated[home] = nil
                case .encapsulated(let own, let far), .relayed(let own, let far):
                    try Self.check([home.own.family, home.peer.family], "\(home)")
                    try Self.check([own.address.family, far.address.family], "\(home) over \(carriage.way)")
                    removeEntry(home)
                    encapsulated[home] = carriage
                    forgotten[home.peer.address] = nil
                }
            case .removeOutbound(let home):
                if hasEntry(home) { forget(home.peer.address) }
                removeEntry(home)
                encapsulated[home] = nil
            case .moveOutbound(let from, let to):
                try Self.check([from.family, to.family], "\(from) to \(to)")
                for (number, path) in paths where path.moa == from { paths[number]?.moa = to }
                for (home, carriage) in encapsulated where carriage.way.own == from {
                    encapsulated[home]?.way = carriage.way.leaving(from: to)
                }
            case .setOwn(let moa, let hoa):
                try Self.check([moa.family, hoa.family], "\(moa) of \(hoa)")
                own[moa] = hoa
                retired.removeAll { $0.moa == moa }
            case .removeOwn(let moa): if let hoa = own.removeValue(forKey: moa) { retire(moa, hoa) }
            case .setInbound(let moa, let home):
                try Self.check([moa.family, home.own.family, home.peer.family], "\(home) from \(moa)")
                entries[Arrival(peer: moa, own: home.own)] = home.peer
            case .removeInbound(let moa, let own): entries[Arrival(peer: moa, own: own)] = nil
            case .setPlain(let address, _):
                plain.insert(address)
                forgotten[address] = nil
            case .removePlain(let address): plain.remove(address)
            // No rule or route: what comes in datagrams is looked at by `EncapsulationTable` alone.
            case .accept(let home, let endpoints): try EncapsulationTable.check(home, endpoints)
            case .acceptGateways: break
            // They pass by themselves, and the kernel alone keeps them.
            case .letOpen, .holdOpeners, .askAgain: break
            case .holdConnections(let home, _): announcing.insert(home)
            case .letConnections(let home): announcing.remove(home)
            // They stand in the rules, by the configuration.
            case .setAlwaysPlain(let prefixes):
                guard prefixes.count <= IMTConfiguration.alwaysPlainMax else {
                    throw PlanError(
                        "commit the address mapping table", "more than \(IMTConfiguration.alwaysPlainMax) addresses that are always plain")
                }
            }
        }
        for (number, count) in uses where count <= 0 {
            uses[number] = nil
            paths[number] = nil
        }
        // A great many at once: what an earlier run left, and no peer claims.
        dropForgotten(forgottenTooMany(adding: 0))
        let limits: [(Int, UInt32, String)] = [
            (entries.departuresCount, TranslationRuleset.peersMax, "outbound entries"),
            (encapsulated.count, TranslationRuleset.encapsulatedMax, "encapsulated peers"),
            (entries.arrivalsCount, TranslationRuleset.arrivalsMax, "inbound entries"),
            (plain.count, TranslationRuleset.plainSourcesMax, "plain addresses"), (own.count, TranslationRuleset.locatorsMax, "own MoAs"),
        ]
        for (count, most, what) in limits where count > most {
            throw PlanError("commit the address mapping table", "more than \(most) \(what)")
        }
    }

    private mutating func set(_ home: HomePair, _ mobile: MobilePair) throws(PlanError) {
        let path = DeparturePath(own: home.own, moa: mobile.own)
        let number: UInt32
        let old = entries[home]
        if let known = old?.path, paths[known] == path {
            number = known
        } else {
            // The lowest, so that paths which came to mean the same run empty.
            let same = paths.filter { $0.value == path }.keys.min()
            guard let found = same ?? (1...TranslationRuleset.pathsMax).first(where: { paths[$0] == nil }) else {
                throw PlanError("commit the address mapping table", "more than \(TranslationRuleset.pathsMax) own MoAs in use at a time")
            }
            number = found
        }
        paths[number] = path
        entries[home] = Departure(path: number, peer: mobile.peer)
        forgotten[home.peer.address] = nil
        if let old { uses[old.path, default: 0] -= 1 }
        uses[number, default: 0] += 1
    }

    private mutating func removeEntry(_ home: HomePair) {
        if let old = entries[home] { uses[old.path, default: 0] -= 1 }
        entries[home] = nil
    }

    private mutating func retire(_ moa: MobileAddress, _ hoa: HomeAddress) {
        retired.removeAll { $0.moa == moa }
        retired.append(RetiredLocator(moa: moa, hoa: hoa))
        retired.removeFirst(max(0, retired.count - Int(TranslationRuleset.retiredMax)))
    }

    /// Gives up retired MoAs.
    package mutating func release(_ moas: Set<MobileAddress>) { retired.removeAll { moas.contains($0.moa) } }

    /// Gives up what is of an earlier configuration's HoAs: nothing of theirs comes back.
    package mutating func keepOwn(of homes: Set<HomeAddress>) {
        own = own.filter { homes.contains($0.value) }
        retired.removeAll { !homes.contains($0.hoa) }
    }

    private mutating func forget(_ peer: IPAddress) {
        lastForgotten += 1
        forgotten[peer] = lastForgotten
    }

    /// HoAs whose place others need, those forgotten first; a sixteenth more at once, so that a full set does not sort at each addition.
    package func forgottenTooMany(adding count: Int) -> Set<IPAddress> {
        let most = Int(TranslationRuleset.forgottenMax)
        guard forgotten.count + count > most else { return [] }
        return Set(forgotten.sorted { $0.value < $1.value }.prefix(forgotten.count + count - most + most / 16).map(\.key))
    }

    package mutating func dropForgotten(_ addresses: Set<IPAddress>) { for address in addresses { forgotten[address] = nil } }

    /// One header has one family: a HoA of one and a MoA of the other can't be translated into each other.
    private static func check(_ families: [AddressFamily], _ what: @autoclosure () -> String) throws(PlanError) {
        if families.contains(.ipv4), families.contains(.ipv6) {
            throw PlanError("commit the address mapping table", "\(what()) mixes IPv4 and IPv6")
        }
    }
}

// MARK: - As read from the kernel

extension TranslationModel {
    package mutating func insert(_ home: HomePair, _ departure: Departure) {
        if let old = entries[home] { uses[old.path, default: 0] -= 1 }
        entries[home] = departure
        uses[departure.path, default: 0] += 1
    }
    package mutating func insert(path: UInt32, _ way: DeparturePath) { paths[path] = way }
    package mutating func insert(_ arrival: Arrival, _ peer: HomeAddress) { entries[arrival] = peer }
    package mutating func insert(own moa: MobileAddress, _ hoa: HomeAddress) { own[moa] = hoa }
    package mutating func insert(retired moa: MobileAddress, _ hoa: HomeAddress) { retire(moa, hoa) }
    package mutating func insert(forgotten peer: IPAddress) { forget(peer) }
    /// - Parameter carriage: as this process knows it; `nil` if it does not, and then no packet finds a way.
    package mutating func insert(encapsulated home: HomePair, _ carriage: Carriage?) {
        let nowhere = Endpoint(.unspecifiedIPv6, port: 0)
        encapsulated[home] = carriage ?? Carriage(.encapsulated(own: nowhere, peer: nowhere))
    }

    /// Where an earlier run sent encapsulated packets, nobody knows any more: what leaves for these peers is held until their way is found anew.
    /// - Parameter known: peers of which the kernel itself knows it.
    /// - Returns: all pairs that there were.
    package mutating func forgetEncapsulated(but known: [HomePair: Carriage] = [:]) -> Set<HomePair> {
        for home in encapsulated.keys where known[home] == nil { forget(home.peer.address) }
        let all = Set(encapsulated.keys)
        encapsulated = known.filter { all.contains($0.key) }
        return all
    }

    /// Gives up entries that nothing can leave by and paths that nothing uses: an earlier version's, or somebody's mistake.
    package mutating func dropIncomplete() {
        for home in entries.departures.compactMap({ paths[$0.value.path] == nil ? $0.key : nil }) { entries[home] = nil }
        uses = entries.departures.reduce(into: [:]) { $0[$1.value.path, default: 0] += 1 }
        paths = paths.filter { uses[$0.key] != nil }
    }

    /// Replaces what an agent decides about peers, and keeps the rest.
    package mutating func replace(outbound: [HomePair: MobilePair], inbound: [Arrival: HomeAddress]) throws(PlanError) {
        for arrival in entries.arrivals.compactMap({ inbound[$0.key] == nil ? $0.key : nil }) { entries[arrival] = nil }
        for (arrival, peer) in inbound { entries[arrival] = peer }
        let gone = entries.departures.compactMap { outbound[$0.key] == nil ? $0.key : nil }
        try apply(gone.map { .removeOutbound($0) } + outbound.map { .setOutbound($0.key, .rewritten($0.value)) })
    }
}

// MARK: - Parts

extension TranslationModel {
    /// What the model holds of these keys, and all that is small anyway. To change a large model in place and still know, or go
    /// back to, what it was.
    package func excerpt(_ touched: TouchedKeys) -> TranslationModel {
        var part = TranslationModel()
        for home in touched.homes { part.entries[home] = entries[home] }
        for arrival in touched.arrivals { part.entries[arrival] = entries[arrival] }
        // An exchanged own MoA may be any of theirs.
        part.encapsulated = touched.moves ? encapsulated : encapsulated.isEmpty ? [:] : encapsulated(of: touched.homes)
        part.plain = plain.intersection(touched.addresses)
        part.forgotten = touched.addresses.reduce(into: [:]) { $0[$1] = forgotten[$1] }
        (part.paths, part.uses, part.own, part.homes) = (paths, uses, own, homes)
        (part.retired, part.addresses, part.announcing) = (retired, addresses, announcing)
        part.wholeArrivals = .some(fewArrivals)
        return part
    }

    private func encapsulated(of homes: [HomePair]) -> [HomePair: Carriage] {
        homes.reduce(into: [:]) { $0[$1] = encapsulated[$1] }
    }

    package mutating func restore(_ part: TranslationModel, _ touched: TouchedKeys) {
        for home in touched.homes { entries[home] = part.entries[home] }
        for arrival in touched.arrivals { entries[arrival] = part.entries[arrival] }
        if touched.moves { encapsulated = part.encapsulated } else { for home in touched.homes { encapsulated[home] = part.encapsulated[home] } }
        plain = plain.subtracting(touched.addresses).union(part.plain)
        for address in touched.addresses { forgotten[address] = part.forgotten[address] }
        (paths, uses, own, homes) = (part.paths, part.uses, part.own, part.homes)
        (retired, addresses, announcing) = (part.retired, part.addresses, part.announcing)
    }
}

import IMTPlan
import MATSignal

/// A way out that many peers may share: packets from this HoA leave from this own MoA.
struct DeparturePath: Hashable {
    var own: HomeAddress
    var moa: MobileAddress
}

/// How packets to a peer leave: by the path of this number, to this MoA.
struct Departure: Hashable {
    var path: UInt32
    var peer: MobileAddress
}

/// An own MoA that went away, and may come back before the agent hears of it.
struct RetiredLocator: Hashable {
    var moa: MobileAddress
    var hoa: HomeAddress
}

/// What the maps and sets of both families hold, as far as the agent decides it.
struct TranslationModel: Equatable {
    /// How packets to each peer leave, and whom arriving packets are from.
    private(set) var entries = EntryTable()
    /// To move every peer from one own MoA to another, one path changes its MoA.
    private(set) var paths: [UInt32: DeparturePath] = [:]
    private(set) var own: [MobileAddress: HomeAddress] = [:]
    /// Own MoAs that went away, the latest last. Peers go on sending there until they have heard, and what comes when the address is
    /// back is theirs.
    private(set) var retired: [RetiredLocator] = []
    /// HoAs that had an entry and have none now: what leaves for them otherwise than into our device is on a wrong way. By the order in
    /// which they were forgotten.
    private(set) var forgotten: [IPAddress: UInt64] = [:]
    private var lastForgotten: UInt64 = 0
    /// All addresses that this host has, on whatever link.
    var addresses: Set<IPAddress> = []
    var plain: Set<IPAddress> = []
    /// HoAs that are on no real link: from these, plain traffic needs source NAT.
    var homes: Set<IPAddress> = []
    /// Entries of each path; one without any is given up.
    private(set) var uses: [UInt32: Int] = [:]

    // MARK: Questions

    func outbound(_ home: HomePair) -> MobilePair? {
        guard let departure = entries[home], let path = paths[departure.path] else { return nil }
        return MobilePair(own: path.moa, peer: departure.peer)
    }

    func inbound(_ arrival: Arrival) -> HomeAddress? { entries[arrival] }

    var retiredByAddress: [MobileAddress: HomeAddress] { Dictionary(retired.map { ($0.moa, $0.hoa) }, uniquingKeysWith: { $1 }) }

    /// All entries in the agent's terms. A copy of the whole table: not for what happens often.
    var outbound: [HomePair: MobilePair] {
        var result: [HomePair: MobilePair] = [:]
        for (home, departure) in entries.departures {
            if let path = paths[departure.path] { result[home] = MobilePair(own: path.moa, peer: departure.peer) }
        }
        return result
    }
    var inbound: [Arrival: HomeAddress] { Dictionary(uniqueKeysWithValues: entries.arrivals.map { ($0.key, $0.value) }) }

    /// How many entries leave from each own MoA.
    var departuresCount: [MobileAddress: Int] {
        var result: [MobileAddress: Int] = [:]
        for (number, count) in uses { if let path = paths[number] { result[path.moa, default: 0] += count } }
        return result
    }

    // MARK: Changes

    /// Applies the changes in order; a later one wins. If it throws, the model is of no use any more: see `excerpt`.
    mutating func apply(_ changes: [IMTChange]) throws(KernelError) {
        for change in changes {
            switch change {
            case .setOutbound(let home, let mobile):
                try Self.check([home.own.isIPv4, home.peer.isIPv4, mobile.own.isIPv4, mobile.peer.isIPv4], "\(home) over \(mobile)")
                try set(home, mobile)
            case .removeOutbound(let home):
                if let old = entries[home] {
                    uses[old.path, default: 0] -= 1
                    forget(home.peer.address)
                }
                entries[home] = nil
            case .moveOutbound(let from, let to):
                try Self.check([from.isIPv4, to.isIPv4], "\(from) to \(to)")
                for (number, path) in paths where path.moa == from { paths[number]?.moa = to }
            case .setOwn(let moa, let hoa):
                try Self.check([moa.isIPv4, hoa.isIPv4], "\(moa) of \(hoa)")
                own[moa] = hoa
                retired.removeAll { $0.moa == moa }
            case .removeOwn(let moa): if let hoa = own.removeValue(forKey: moa) { retire(moa, hoa) }
            case .setInbound(let moa, let home):
                try Self.check([moa.isIPv4, home.own.isIPv4, home.peer.isIPv4], "\(home) from \(moa)")
                entries[Arrival(peer: moa, own: home.own)] = home.peer
            case .removeInbound(let moa, let own): entries[Arrival(peer: moa, own: own)] = nil
            case .setPlain(let address, _):
                plain.insert(address)
                forgotten[address] = nil
            case .removePlain(let address): plain.remove(address)
            // They pass by themselves, and the kernel alone keeps them.
            case .letOpen, .holdOpeners, .askAgain: break
            }
        }
        for (number, count) in uses where count <= 0 {
            uses[number] = nil
            paths[number] = nil
        }
        // A great many at once: what an earlier run left, and no peer claims.
        dropForgotten(forgottenTooMany(adding: 0))
        let limits: [(Int, UInt32, String)] = [
            (entries.departuresCount, TranslationRuleset.peersMax, "outbound entries"), (entries.arrivalsCount, TranslationRuleset.arrivalsMax, "inbound entries"),
            (plain.count, TranslationRuleset.plainSourcesMax, "plain addresses"), (own.count, TranslationRuleset.locatorsMax, "own MoAs"),
        ]
        for (count, most, what) in limits where count > most {
            throw .invalid("commit the address mapping table", "more than \(most) \(what)")
        }
    }

    private mutating func set(_ home: HomePair, _ mobile: MobilePair) throws(KernelError) {
        let path = DeparturePath(own: home.own, moa: mobile.own)
        let number: UInt32
        let old = entries[home]
        if let known = old?.path, paths[known] == path {
            number = known
        } else {
            // The lowest, so that paths which came to mean the same run empty.
            let same = paths.filter { $0.value == path }.keys.min()
            guard let found = same ?? (1...TranslationRuleset.pathsMax).first(where: { paths[$0] == nil }) else {
                throw .invalid("commit the address mapping table", "more than \(TranslationRuleset.pathsMax) own MoAs in use at a time")
            }
            number = found
        }
        paths[number] = path
        entries[home] = Departure(path: number, peer: mobile.peer)
        forgotten[home.peer.address] = nil
        if let old { uses[old.path, default: 0] -= 1 }
        uses[number, default: 0] += 1
    }

    private mutating func retire(_ moa: MobileAddress, _ hoa: HomeAddress) {
        retired.removeAll { $0.moa == moa }
        retired.append(RetiredLocator(moa: moa, hoa: hoa))
        retired.removeFirst(max(0, retired.count - Int(TranslationRuleset.retiredMax)))
    }

    /// Gives up retired MoAs.
    mutating func release(_ moas: Set<MobileAddress>) { retired.removeAll { moas.contains($0.moa) } }

    /// Gives up what is of an earlier configuration's HoAs: nothing of theirs comes back.
    mutating func keepOwn(of homes: Set<HomeAddress>) {
        own = own.filter { homes.contains($0.value) }
        retired.removeAll { !homes.contains($0.hoa) }
    }

    private mutating func forget(_ peer: IPAddress) {
        lastForgotten += 1
        forgotten[peer] = lastForgotten
    }

    /// HoAs whose place others need, those forgotten first; a sixteenth more at once, so that a full set does not sort at each addition.
    func forgottenTooMany(adding count: Int) -> Set<IPAddress> {
        let most = Int(TranslationRuleset.forgottenMax)
        guard forgotten.count + count > most else { return [] }
        return Set(forgotten.sorted { $0.value < $1.value }.prefix(forgotten.count + count - most + most / 16).map(\.key))
    }

    mutating func dropForgotten(_ addresses: Set<IPAddress>) { for address in addresses { forgotten[address] = nil } }

    /// One header has one family: a HoA of one and a MoA of the other can't be translated into each other.
    private static func check(_ isIPv4: [Bool], _ what: @autoclosure () -> String) throws(KernelError) {
        if isIPv4.contains(true), isIPv4.contains(false) {
            throw .invalid("commit the address mapping table", "\(what()) mixes IPv4 and IPv6")
        }
    }
}

// MARK: - As read from the kernel

extension TranslationModel {
    mutating func note(_ home: HomePair, _ departure: Departure) {
        if let old = entries[home] { uses[old.path, default: 0] -= 1 }
        entries[home] = departure
        uses[departure.path, default: 0] += 1
    }
    mutating func note(path: UInt32, _ way: DeparturePath) { paths[path] = way }
    mutating func note(_ arrival: Arrival, _ peer: HomeAddress) { entries[arrival] = peer }
    mutating func note(own moa: MobileAddress, _ hoa: HomeAddress) { own[moa] = hoa }
    mutating func note(retired moa: MobileAddress, _ hoa: HomeAddress) { retire(moa, hoa) }
    mutating func note(forgotten peer: IPAddress) { forget(peer) }

    /// Gives up entries that nothing can leave by and paths that nothing uses: an earlier version's, or somebody's mistake.
    mutating func dropIncomplete() {
        for home in entries.departures.compactMap({ paths[$0.value.path] == nil ? $0.key : nil }) { entries[home] = nil }
        uses = entries.departures.reduce(into: [:]) { $0[$1.value.path, default: 0] += 1 }
        paths = paths.filter { uses[$0.key] != nil }
    }

    /// Replaces what an agent decides about peers, and keeps the rest.
    mutating func replace(outbound: [HomePair: MobilePair], inbound: [Arrival: HomeAddress]) throws(KernelError) {
        for arrival in entries.arrivals.compactMap({ inbound[$0.key] == nil ? $0.key : nil }) { entries[arrival] = nil }
        for (arrival, peer) in inbound { entries[arrival] = peer }
        let gone = entries.departures.compactMap { outbound[$0.key] == nil ? $0.key : nil }
        try apply(gone.map { .removeOutbound($0) } + outbound.map { .setOutbound($0.key, $0.value) })
    }
}

// MARK: - Parts

extension TranslationModel {
    /// What the model holds of these keys, and all that is small anyway. To change a large model in place and still know, or go
    /// back to, what it was.
    func excerpt(_ touched: TouchedKeys) -> TranslationModel {
        var part = TranslationModel()
        for home in touched.homes { part.entries[home] = entries[home] }
        for arrival in touched.arrivals { part.entries[arrival] = entries[arrival] }
        part.plain = plain.intersection(touched.addresses)
        part.forgotten = touched.addresses.reduce(into: [:]) { $0[$1] = forgotten[$1] }
        (part.paths, part.uses, part.own, part.homes) = (paths, uses, own, homes)
        (part.retired, part.addresses) = (retired, addresses)
        return part
    }

    mutating func restore(_ part: TranslationModel, _ touched: TouchedKeys) {
        for home in touched.homes { entries[home] = part.entries[home] }
        for arrival in touched.arrivals { entries[arrival] = part.entries[arrival] }
        plain = plain.subtracting(touched.addresses).union(part.plain)
        for address in touched.addresses { forgotten[address] = part.forgotten[address] }
        (paths, uses, own, homes) = (part.paths, part.uses, part.own, part.homes)
        (retired, addresses) = (part.retired, part.addresses)
    }
}

// MARK: - Differences

/// The elements that one set must lose and gain, of one family.
struct SetDifference {
    var set: String
    var removed: [SetElement] = []
    var added: [SetElement] = []
}

/// The keys that a list of changes concerns: a commit of one entry must not compare thousands.
struct TouchedKeys {
    var homes: Set<HomePair> = []
    var arrivals: Set<Arrival> = []
    var addresses: Set<IPAddress> = []
    /// Own MoAs that entries leave from were exchanged.
    var moves = false

    init(_ changes: [IMTChange]) {
        for change in changes {
            switch change {
            case .setOutbound(let home, _), .removeOutbound(let home):
                homes.insert(home)
                addresses.insert(home.peer.address)
            case .moveOutbound: moves = true
            case .setOwn, .removeOwn: break
            case .setInbound(let moa, let home): arrivals.insert(Arrival(peer: moa, own: home.own))
            case .removeInbound(let moa, let own): arrivals.insert(Arrival(peer: moa, own: own))
            case .setPlain(let address, _), .removePlain(let address): addresses.insert(address)
            case .letOpen, .holdOpeners, .askAgain: break
            }
        }
    }
}

extension TranslationModel {
    /// Which elements bring a kernel that holds `old` to this model. A changed entry is removed and added in one transaction: the
    /// kernel has no other way, and no packet sees it missing.
    ///
    /// - Parameter touched: the only peers and plain addresses that may differ; `nil` if any may.
    func differences(from old: TranslationModel, isIPv4: Bool, touched: TouchedKeys? = nil) -> [SetDifference] {
        var out: [UInt32: SetDifference] = [:]
        var numbers = SetDifference(set: TranslationRuleset.paths)
        var owned = SetDifference(set: TranslationRuleset.own)
        var into: [HomeAddress: SetDifference] = [:]
        var mapped = SetDifference(set: TranslationRuleset.mapped)
        for home in touched?.homes ?? Set(entries.departures.map(\.key)).union(old.entries.departures.map(\.key)) where home.own.isIPv4 == isIPv4 {
            let (before, after) = (old.entries[home], entries[home])
            guard before != after else { continue }
            let key = home.peer.address.packetOctets
            mapped.note(key: home.own.address.packetOctets + key, old: before.map { _ in [] }, new: after.map { _ in [] })
            if let before { out[before.path, default: SetDifference(out: before.path)].removed.append(SetElement(key: key)) }
            if let after {
                out[after.path, default: SetDifference(out: after.path)].added.append(SetElement(key: key, data: after.peer.address.packetOctets))
            }
        }
        for number in Set(paths.keys).union(old.paths.keys) {
            let (before, after) = (old.paths[number], paths[number])
            numbers.note(
                key: Self.octets(number), old: before.flatMap { $0.moa.isIPv4 == isIPv4 ? $0.data : nil },
                new: after.flatMap { $0.moa.isIPv4 == isIPv4 ? $0.data : nil })
        }
        for moa in Set(own.keys).union(old.own.keys) where moa.isIPv4 == isIPv4 {
            owned.note(key: moa.address.packetOctets, old: old.own[moa]?.address.packetOctets, new: own[moa]?.address.packetOctets)
        }
        var returning = SetDifference(set: TranslationRuleset.retired)
        let (away, wereAway) = (retiredByAddress, old.retiredByAddress)
        for moa in Set(away.keys).union(wereAway.keys) where moa.isIPv4 == isIPv4 {
            returning.note(key: moa.address.packetOctets, old: wereAway[moa]?.address.packetOctets, new: away[moa]?.address.packetOctets)
        }
        for arrival in touched?.arrivals ?? Set(entries.arrivals.map(\.key)).union(old.entries.arrivals.map(\.key)) where arrival.own.isIPv4 == isIPv4 {
            into[arrival.own, default: SetDifference(into: arrival.own)].note(
                key: arrival.peer.address.packetOctets, old: old.entries[arrival]?.address.packetOctets,
                new: entries[arrival]?.address.packetOctets)
        }
        return out.sorted { $0.key < $1.key }.map(\.value) + into.sorted { $0.key < $1.key }.map(\.value) + [
            numbers, owned, mapped, returning,
            SetDifference(TranslationRuleset.known, old.addresses, addresses, isIPv4, nil),
            SetDifference(
                TranslationRuleset.forgotten, { old.forgotten[$0] != nil }, { forgotten[$0] != nil }, isIPv4,
                touched?.addresses ?? Set(forgotten.keys).union(old.forgotten.keys)),
            SetDifference(TranslationRuleset.plainSources, old.plain, plain, isIPv4, touched?.addresses),
            SetDifference(TranslationRuleset.homes, old.homes, self.homes, isIPv4, nil),
        ]
    }
}

extension SetDifference {
    fileprivate mutating func note(key: [UInt8], old: [UInt8]?, new: [UInt8]?) {
        guard old != new else { return }
        if old != nil { removed.append(SetElement(key: key)) }
        if let new { added.append(SetElement(key: key, data: new)) }
    }

    fileprivate init(out path: UInt32) { set = TranslationRuleset.out(path) }
    fileprivate init(into own: HomeAddress) { set = TranslationRuleset.into(own) }

    fileprivate init(_ name: String, _ old: Set<IPAddress>, _ new: Set<IPAddress>, _ isIPv4: Bool, _ touched: Set<IPAddress>?) {
        self.init(name, old.contains, new.contains, isIPv4, touched ?? (old == new ? [] : old.symmetricDifference(new)))
    }

    fileprivate init(
        _ name: String, _ wasIn: (IPAddress) -> Bool, _ isIn: (IPAddress) -> Bool, _ isIPv4: Bool, _ addresses: Set<IPAddress>
    ) {
        set = name
        for address in addresses where address.isIPv4 == isIPv4 {
            note(key: address.packetOctets, old: wasIn(address) ? [] : nil, new: isIn(address) ? [] : nil)
        }
    }
}

// MARK: - Elements' octets

extension DeparturePath {
    var data: [UInt8] { own.address.packetOctets + moa.address.packetOctets }

    init?(data: [UInt8]) {
        guard let own = IPAddress(octets: data.prefix(data.count / 2)), let moa = IPAddress(octets: data.suffix(data.count / 2)) else { return nil }
        self.init(own: HomeAddress(own), moa: MobileAddress(moa))
    }
}

extension TranslationModel {
    /// A path's number as a map's key. In this order nft, which takes it for a mark, shows it as people count.
    static func octets(_ number: UInt32) -> [UInt8] { nativeOctets(number.bigEndian) }

    static func number(_ octets: [UInt8]) -> UInt32? {
        guard octets.count == 4 else { return nil }
        return octets.reduce(0) { $0 << 8 | UInt32($1) }
    }
}

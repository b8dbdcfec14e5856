import MATSignal

/// What the maps and sets of both families hold, as far as the agent decides it.
struct TranslationModel: Equatable {
    var outbound: [HomePair: MobilePair] = [:]
    var inbound: [MobilePair: HomePair] = [:]
    /// The keys of `outbound`, as source NAT's set has them.
    var mapped: Set<HomePair> = []
    var plain: Set<IPAddress> = []
    var locators: Set<IPAddress> = []
    /// HoAs that are on no real link: from these, plain traffic needs source NAT.
    var homes: Set<IPAddress> = []

    /// Applies the changes in order; a later one wins.
    mutating func apply(_ changes: [IMTChange]) throws(KernelError) {
        for change in changes {
            switch change {
            case .setOutbound(let home, let mobile):
                try Self.check(home, mobile)
                outbound[home] = mobile
                mapped.insert(home)
            case .removeOutbound(let home):
                outbound[home] = nil
                mapped.remove(home)
            case .setInbound(let mobile, let home):
                try Self.check(home, mobile)
                inbound[mobile] = home
            case .removeInbound(let mobile): inbound[mobile] = nil
            case .setPlain(let address, _): plain.insert(address)
            case .removePlain(let address): plain.remove(address)
            }
        }
        guard outbound.count <= TranslationRuleset.peersMax, inbound.count <= TranslationRuleset.peersMax else {
            throw .invalid("commit the address mapping table", "more than \(TranslationRuleset.peersMax) entries")
        }
        guard plain.count <= TranslationRuleset.plainSourcesMax else {
            throw .invalid("commit the address mapping table", "more than \(TranslationRuleset.plainSourcesMax) plain addresses")
        }
    }

    /// One header has one family: a HoA of one and a MoA of the other can't be translated into each other.
    private static func check(_ home: HomePair, _ mobile: MobilePair) throws(KernelError) {
        let family = home.own.isIPv4
        guard home.peer.isIPv4 == family, mobile.own.isIPv4 == family, mobile.peer.isIPv4 == family else {
            throw .invalid("commit the address mapping table", "\(home) over \(mobile) mixes IPv4 and IPv6")
        }
    }
}

/// The elements that one set must lose and gain, of one family.
struct SetDifference {
    var set: String
    var removed: [SetElement] = []
    var added: [SetElement] = []
}

extension TranslationModel {
    /// Which elements bring a kernel that holds `old` to this model. A changed entry is removed and added in one transaction: the
    /// kernel has no other way, and no packet sees it missing.
    func differences(from old: TranslationModel, isIPv4: Bool) -> [SetDifference] {
        [
            Self.compare(
                TranslationRuleset.out, old.outbound, outbound, isIPv4, family: \.own.isIPv4, key: \.key, data: { $0.data }),
            Self.compare(
                TranslationRuleset.into, old.inbound, inbound, isIPv4, family: \.own.isIPv4, key: \.key, data: { $0.data }),
            SetDifference(
                set: TranslationRuleset.mapped,
                removed: old.mapped.subtracting(mapped).filter { $0.own.isIPv4 == isIPv4 }.map { SetElement(key: $0.key) },
                added: mapped.subtracting(old.mapped).filter { $0.own.isIPv4 == isIPv4 }.map { SetElement(key: $0.key) }),
            Self.compare(TranslationRuleset.plainSources, old.plain, plain, isIPv4),
            Self.compare(TranslationRuleset.moas, old.locators, locators, isIPv4),
            Self.compare(TranslationRuleset.homes, old.homes, homes, isIPv4),
        ]
    }

    private static func compare<Key: Hashable, Value: Equatable>(
        _ name: String, _ old: [Key: Value], _ new: [Key: Value], _ isIPv4: Bool, family: (Key) -> Bool, key: (Key) -> [UInt8],
        data: (Value) -> [UInt8]
    ) -> SetDifference {
        var difference = SetDifference(set: name)
        for (entry, value) in old where family(entry) == isIPv4 && new[entry] != value {
            difference.removed.append(SetElement(key: key(entry)))
        }
        for (entry, value) in new where family(entry) == isIPv4 && old[entry] != value {
            difference.added.append(SetElement(key: key(entry), data: data(value)))
        }
        return difference
    }

    private static func compare(_ name: String, _ old: Set<IPAddress>, _ new: Set<IPAddress>, _ isIPv4: Bool) -> SetDifference {
        SetDifference(
            set: name,
            removed: old.subtracting(new).filter { $0.isIPv4 == isIPv4 }.map { SetElement(key: $0.packetOctets) },
            added: new.subtracting(old).filter { $0.isIPv4 == isIPv4 }.map { SetElement(key: $0.packetOctets) })
    }
}

// The order of addresses within an element is that of the header it is matched against: source, destination.
extension HomePair {
    var key: [UInt8] { own.address.packetOctets + peer.address.packetOctets }
    /// As `in`'s data: the packet comes from the peer.
    var data: [UInt8] { peer.address.packetOctets + own.address.packetOctets }

    init?(key: [UInt8]) {
        guard let (own, peer) = splitPair(key) else { return nil }
        self.init(own: HomeAddress(own), peer: HomeAddress(peer))
    }

    init?(data: [UInt8]) {
        guard let (peer, own) = splitPair(data) else { return nil }
        self.init(own: HomeAddress(own), peer: HomeAddress(peer))
    }
}

extension MobilePair {
    var key: [UInt8] { peer.address.packetOctets + own.address.packetOctets }
    /// As `out`'s data: the packet goes to the peer.
    var data: [UInt8] { own.address.packetOctets + peer.address.packetOctets }

    init?(key: [UInt8]) {
        guard let (peer, own) = splitPair(key) else { return nil }
        self.init(own: MobileAddress(own), peer: MobileAddress(peer))
    }

    init?(data: [UInt8]) {
        guard let (own, peer) = splitPair(data) else { return nil }
        self.init(own: MobileAddress(own), peer: MobileAddress(peer))
    }
}

private func splitPair(_ octets: [UInt8]) -> (IPAddress, IPAddress)? {
    guard let first = IPAddress(octets: octets.prefix(octets.count / 2)), let second = IPAddress(octets: octets.suffix(octets.count / 2))
    else { return nil }
    return (first, second)
}

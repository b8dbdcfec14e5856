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

/// The keys that a list of changes concerns: a commit of one entry must not compare thousands.
struct TouchedKeys {
    var homes: Set<HomePair> = []
    var mobiles: Set<MobilePair> = []
    var addresses: Set<IPAddress> = []

    init(_ changes: [IMTChange]) {
        for change in changes {
            switch change {
            case .setOutbound(let home, _), .removeOutbound(let home):
                homes.insert(home)
                addresses.insert(home.peer.address)
            case .setInbound(let mobile, _), .removeInbound(let mobile): mobiles.insert(mobile)
            case .setPlain(let address, _), .removePlain(let address): addresses.insert(address)
            }
        }
    }
}

extension TranslationModel {
    /// Which elements bring a kernel that holds `old` to this model. A changed entry is removed and added in one transaction: the
    /// kernel has no other way, and no packet sees it missing.
    ///
    /// - Parameter touched: the only keys that may differ; `nil` if any may.
    func differences(from old: TranslationModel, isIPv4: Bool, touched: TouchedKeys? = nil) -> [SetDifference] {
        let homes = touched?.homes ?? Set(outbound.keys).union(old.outbound.keys).union(mapped).union(old.mapped)
        let mobiles = touched?.mobiles ?? Set(inbound.keys).union(old.inbound.keys)
        var out = SetDifference(set: TranslationRuleset.out)
        var keys = SetDifference(set: TranslationRuleset.mapped)
        var into = SetDifference(set: TranslationRuleset.into)
        for home in homes where home.own.isIPv4 == isIPv4 {
            out.note(key: home.key, old: old.outbound[home]?.data, new: outbound[home]?.data)
            keys.note(key: home.key, old: old.mapped.contains(home) ? [] : nil, new: mapped.contains(home) ? [] : nil)
        }
        for mobile in mobiles where mobile.own.isIPv4 == isIPv4 {
            into.note(key: mobile.key, old: old.inbound[mobile]?.data, new: inbound[mobile]?.data)
        }
        return [
            out, keys, into,
            SetDifference(TranslationRuleset.plainSources, old.plain, plain, isIPv4, touched?.addresses),
            SetDifference(TranslationRuleset.moas, old.locators, locators, isIPv4, nil),
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

    fileprivate init(_ name: String, _ old: Set<IPAddress>, _ new: Set<IPAddress>, _ isIPv4: Bool, _ touched: Set<IPAddress>?) {
        set = name
        for address in touched ?? old.union(new) where address.isIPv4 == isIPv4 {
            note(key: address.packetOctets, old: old.contains(address) ? [] : nil, new: new.contains(address) ? [] : nil)
        }
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
    guard let first = IPAddress(octets: octets.prefix(octets.count / 2)),
        let second = IPAddress(octets: octets.suffix(octets.count / 2))
    else { return nil }
    return (first, second)
}

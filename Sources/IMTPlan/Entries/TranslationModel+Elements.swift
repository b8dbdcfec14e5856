import MATSignal

// The elements of the sets, as octets.

extension DeparturePath {
    package var data: [UInt8] { own.address.packetOctets + moa.address.packetOctets }

    package init?(data: [UInt8]) {
        guard let own = IPAddress(octets: data.prefix(data.count / 2)), let moa = IPAddress(octets: data.suffix(data.count / 2)) else { return nil }
        self.init(own: HomeAddress(own), moa: MobileAddress(moa))
    }
}

extension TranslationModel {
    /// A path's number as a map's key. In this order nft, which takes it for a mark, shows it as people count.
    package static func octets(_ number: UInt32) -> [UInt8] { nativeOctets(number.bigEndian) }

    package static func number(_ octets: [UInt8]) -> UInt32? {
        guard octets.count == 4 else { return nil }
        return octets.reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// The own HoA and the peer's that a key is made of.
    package static func pair(_ key: [UInt8]) -> HomePair? {
        guard let own = IPAddress(octets: key.prefix(key.count / 2)), let peer = IPAddress(octets: key.suffix(key.count / 2)) else { return nil }
        return HomePair(own: HomeAddress(own), peer: HomeAddress(peer))
    }
}

extension TranslationModel {
    /// The element that a set should have at this key.
    package func element(_ key: [UInt8], of set: String, family: AddressFamily, homes own: [HomeAddress]) -> SetElement? {
        if set == TranslationRuleset.paths {
            return Self.number(key).flatMap { paths[$0] }.flatMap { $0.moa.family == family ? SetElement(key: key, data: $0.data) : nil }
        }
        if set == TranslationRuleset.mapped { return Self.pair(key).flatMap { entries[$0] == nil ? nil : SetElement(key: key) } }
        if set == TranslationRuleset.encapsulated { return Self.pair(key).flatMap { encapsulated[$0] == nil ? nil : SetElement(key: key) } }
        guard let address = IPAddress(octets: key), address.family == family else { return nil }
        switch set {
        case TranslationRuleset.own: return self.own[MobileAddress(address)].map { SetElement(key: key, data: $0.address.packetOctets) }
        case TranslationRuleset.retired:
            return retiredByAddress[MobileAddress(address)].map { SetElement(key: key, data: $0.address.packetOctets) }
        case TranslationRuleset.known: return addresses.contains(address) ? SetElement(key: key) : nil
        case TranslationRuleset.forgotten: return forgotten[address] != nil ? SetElement(key: key) : nil
        case TranslationRuleset.homes: return homes.contains(address) ? SetElement(key: key) : nil
        case TranslationRuleset.plainSources: return plain.contains(address) ? SetElement(key: key) : nil
        default: break
        }
        if let home = own.first(where: { TranslationRuleset.into($0) == set }) {
            return entries[Arrival(peer: MobileAddress(address), own: home)].map { SetElement(key: key, data: $0.address.packetOctets) }
        }
        guard let (number, path) = paths.first(where: { TranslationRuleset.out($0.key) == set }),
            let departure = entries[HomePair(own: path.own, peer: HomeAddress(address))], departure.path == number
        else { return nil }
        return SetElement(key: key, data: departure.peer.address.packetOctets)
    }
}

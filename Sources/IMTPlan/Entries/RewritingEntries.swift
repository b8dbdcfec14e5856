import MATSignal

/// What the kernel's programs at the links know of peers whose packets are rewritten: the octets of Sources/KernelPrograms/Programs/rewriting.h.
/// Numbers in the machine's order, addresses as in packets of their family, an IPv4 one in front of twelve octets of room.
package enum RewritingEntries {
    /// Of each family; what is beyond is nftables'.
    package static let homesMax = 8, ownMax = 8
    package static let addressOctets = 16

    // MARK: Settings

    /// HoAs whose packets nftables leaves to the programs, and what they are translated by.
    package struct Settings: Hashable {
        package var device: UInt32 = 0
        /// Of packets that were held and are on their way again.
        package var releaseMark: UInt32 = 0
        package var homes: Set<HomeAddress> = []
        package var own: [MobileAddress: HomeAddress] = [:]

        package init() {}

        /// Those of a family that there is room for.
        package func homes(_ family: AddressFamily) -> [HomeAddress] {
            Array(homes.filter { $0.family == family }.sorted { $0.address < $1.address }.prefix(RewritingEntries.homesMax))
        }

        /// Own MoAs of such HoAs, likewise.
        package func own(_ family: AddressFamily) -> [(moa: MobileAddress, home: HomeAddress)] {
            let guarded = Set(homes(family))
            let ours = own.filter { $0.key.family == family && guarded.contains($0.value) }
            return ours.sorted { $0.key.address < $1.key.address }.prefix(RewritingEntries.ownMax).map { ($0.key, $0.value) }
        }

        /// struct rewriting.
        package func encode() -> [UInt8] {
            let (homes4, homes6, own4, own6) = (homes(.ipv4), homes(.ipv6), own(.ipv4), own(.ipv6))
            var octets = nativeOctets(device) + nativeOctets(releaseMark)
            for count in [homes4.count, homes6.count, own4.count, own6.count] { octets += nativeOctets(UInt32(count)) }
            func add(_ addresses: [IPAddress], room: Int, width: Int) {
                for address in addresses { octets += address.packetOctets }
                octets += [UInt8](repeating: 0, count: (room - addresses.count) * width)
            }
            add(homes4.map(\.address), room: RewritingEntries.homesMax, width: 4)
            add(homes6.map(\.address), room: RewritingEntries.homesMax, width: 16)
            add(own4.flatMap { [$0.moa.address, $0.home.address] }, room: 2 * RewritingEntries.ownMax, width: 4)
            add(own6.flatMap { [$0.moa.address, $0.home.address] }, room: 2 * RewritingEntries.ownMax, width: 16)
            return octets
        }
    }

    package static let settingsOctets = 6 * 4 + (homesMax + 2 * ownMax) * (4 + 16)

    // MARK: Peers

    /// struct departure: number of the counters 4, path 4, the peer's MoA 16.
    package static let departureOctets = 24
    /// struct arrival: number of the counters 4, the peer's HoA 16.
    package static let arrivalOctets = 20

    package static func key(_ pair: HomePair) -> [UInt8] { pair.own.address.packetOctets + pair.peer.address.packetOctets }
    package static func key(_ arrival: Arrival) -> [UInt8] { arrival.peer.address.packetOctets + arrival.own.address.packetOctets }

    package static func departure(slot: UInt32, _ departure: Departure) -> [UInt8] {
        nativeOctets(slot) + nativeOctets(departure.path) + padded(departure.peer.address)
    }

    package static func arrival(slot: UInt32, _ peer: HomeAddress) -> [UInt8] { nativeOctets(slot) + padded(peer.address) }

    /// Two addresses of one family, as keys of both kinds have them.
    package static func addresses(_ key: UnsafeRawBufferPointer) -> (IPAddress, IPAddress)? {
        let half = key.count / 2
        guard let first = IPAddress(octets: key[..<half]), let second = IPAddress(octets: key[half...]) else { return nil }
        return (first, second)
    }

    package static func slot(_ value: UnsafeRawBufferPointer) -> UInt32? {
        value.count >= 4 ? value.loadUnaligned(fromByteOffset: 0, as: UInt32.self) : nil
    }

    /// The peer's HoA of `arrival`, of this family.
    package static func peer(ofArrival value: UnsafeRawBufferPointer, _ family: AddressFamily) -> HomeAddress? {
        guard value.count == arrivalOctets else { return nil }
        return IPAddress(octets: value[4..<(4 + family.addressOctets)]).map { HomeAddress($0) }
    }

    // MARK: Paths

    /// struct path: which of the two addresses counts 4, both 32.
    package static let pathOctets = 36
    package static let pathsMax = Int(TranslationRuleset.pathsMax) + 1

    package static func path(current: UInt32, _ addresses: [IPAddress]) -> [UInt8] { nativeOctets(current) + addresses.flatMap(padded) }

    private static func padded(_ address: IPAddress) -> [UInt8] {
        let octets = address.packetOctets
        return octets + [UInt8](repeating: 0, count: addressOctets - octets.count)
    }
}

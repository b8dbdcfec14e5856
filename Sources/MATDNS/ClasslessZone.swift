import MATCore
import MATSignal

/// A reverse zone for less than what a label of the reverse tree stands for (RFC 2317): whoever keeps the zone of the /24 delegates one of any name,
/// `64/26.2.0.192.in-addr.arpa.` or `rev.example.net.`, and makes the name of each address in it an alias of one there.
public struct ClasslessZone: Hashable, Sendable {
    /// The /24 of its addresses, or more of them, would have names that are longer than one label.
    public static let lengthMin: UInt8 = 24

    public var origin: DomainName

    public init(origin: DomainName) { self.origin = origin }

    /// What an address is called in it: its last octet. `nil` if the name gets too long.
    public func name(of address: IPAddress) -> DomainName? { origin.prefixed("\(address.octets.last ?? 0)") }

    /// Prefixes that such a zone can be for: of IPv4, and not of several /24, since in one zone their addresses would have the same names.
    public func canHold(_ prefixes: [IPPrefix]) -> Bool {
        prefixes.allSatisfy { $0.family == .ipv4 && $0.familyLength >= Self.lengthMin } && Set(prefixes.map(Self.network)).count == 1
    }

    /// Those of them that are in the /24 that the origin's own name is below; all if it is below none.
    public func own(_ prefixes: [IPPrefix]) -> [IPPrefix] {
        let below = prefixes.filter { origin.isWithin(Self.network($0)) }
        return below.isEmpty ? prefixes : below
    }

    /// The reverse name of the /24 that a prefix is in: its zone, or one above, has the aliases.
    private static func network(_ prefix: IPPrefix) -> DomainName { .reverse(IPPrefix(covering: prefix.address, length: 96 + lengthMin)) }

    /// All addresses of a prefix, the first and the last too: to MAT they are as good as any.
    static func addresses(of prefix: IPPrefix) -> [IPAddress] {
        let count = UInt64(1) << UInt64(min(128 - prefix.length, 128 - 96 - lengthMin))
        return (0..<count).map { IPAddress(high: prefix.address.high, low: prefix.address.low &+ $0) }
    }

    /// The lines that lead there, for the zone of the /24.
    public func aliases(of prefixes: [IPPrefix], ttl: UInt32) -> [String] {
        prefixes.flatMap(Self.addresses).compactMap { address in
            name(of: address).map { "\(DomainName.reverse(IPPrefix(address))) \(ttl) IN CNAME \($0)" }
        }
    }
}

extension ZoneWriter {
    /// The lines for prefixes in a zone of that kind. Each address has its own, so that it does not matter which of them have other records
    /// such as PTR, nor what else the zone is for: a wildcard would be for all that lead there.
    public func lines(prefixes: [IPPrefix], in zone: ClasslessZone) -> [String] {
        prefixes.flatMap(ClasslessZone.addresses).compactMap(zone.name).flatMap(lines(at:))
    }
}

import MATCore
import MATSignal

/// IPv4 addresses that the records of several HoAs name as endpoints: those of translators. Such an address has ten times of each budget that
/// others have (section 6), since many nodes share it. At which several are bound, the bindings tell.
///
/// ```
///   a record with endpoints is held ─► one HoA more at each of its endpoints' addresses, one less at those of the record before
/// ```
/// Not more entries than there are endpoints in the records that are held.
package struct SharedAddresses: Sendable {
    private var counts: [IPAddress: Int] = [:]

    /// How many times of a budget a shared address has.
    package static let times = 10

    /// How many times of each budget a source has (section 6).
    func budgetTimes(of source: IPAddress, _ bindings: BindingTable) -> Int {
        guard source.family == .ipv4 else { return 1 }
        return bindings.boundCount(at: source) > 1 || hasSeveral(source) ? Self.times : 1
    }

    func hasSeveral(_ address: IPAddress) -> Bool { counts[address] ?? 0 > 1 }

    /// A record is held in the place of another.
    mutating func held(_ record: MappingRecord, insteadOf before: MappingRecord?) {
        guard record.hasKinds || before?.hasKinds ?? false else { return }
        let (after, before) = (Self.addresses(record), before.map(Self.addresses) ?? [])
        guard after != before else { return }
        for address in after { counts[address, default: 0] += 1 }
        for address in before {
            guard let count = counts[address] else { continue }
            counts[address] = count > 1 ? count - 1 : nil
        }
    }

    /// IPv4 addresses of endpoints, each once.
    private static func addresses(_ record: MappingRecord) -> Set<IPAddress> {
        Set(record.endpoints.lazy.map(\.address).filter { $0.family == .ipv4 })
    }
}

import IMTPlan
import MATSignal

/// The own addresses that the kernel knows, each with the own HoA that packets to it are for.
struct EnteredAddresses: Sendable {
    private var homes: [MobileAddress: HomeAddress] = [:]

    /// What an earlier run has entered.
    mutating func adopt(_ homes: [MobileAddress: HomeAddress]) { self.homes = homes }

    /// - Returns: what makes the kernel know these, in order.
    mutating func replace(by wanted: [MobileAddress: HomeAddress]) -> [IMTChange] {
        defer { homes = wanted }
        return wanted.sorted { $0.key < $1.key }.filter { homes[$0.key] != $0.value }.map { .setOwn($0.key, $0.value) }
            + homes.keys.sorted().filter { wanted[$0] == nil }.map { .removeOwn($0) }
    }

    /// Whether packets to this address are taken for an own HoA's.
    ///
    /// - Parameter length: the length of an own HoA's prefix: behind a network's locator there are many.
    func covers(_ address: IPAddress, length: (HomeAddress) -> UInt8) -> Bool {
        homes.contains { IPPrefix(covering: $0.key.address, length: length($0.value)).contains(address) }
    }
}

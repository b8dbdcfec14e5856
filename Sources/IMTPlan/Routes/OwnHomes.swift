import MATSignal

/// Which of the configured HoAs (and MoPres' base addresses) the device carries.
///
/// Each is put on our device, also one that another link carries: the stack drops packets that a device without an address delivers wherever
/// reverse paths are filtered, and that would be every packet that was held (`fib_validate_source`). One whose family is switched off is
/// reported once and left out: the node then works in the other family.
package struct OwnHomes {
    /// HoAs that can be used.
    package private(set) var usable: Set<IPAddress> = []
    private var reported: Set<IPAddress> = []

    package init() {}

    /// What is to be done so that a device that has the addresses `present` has those of the configuration.
    ///
    /// - Parameter retire: whether addresses of an earlier configuration are taken off.
    package func changes(_ configuration: IMTConfiguration, present: Set<IPAddress>, device: UInt32, retire: Bool) -> [RoutingChange] {
        let homes = Self.all(configuration)
        let missing: [RoutingChange] = homes.subtracting(present).sorted().map { .addAddress($0, interfaceIndex: device) }
        guard retire else { return missing }
        return missing + present.subtracting(homes).filter { !$0.isLinkLocal }.sorted().map { .deleteAddress($0, interfaceIndex: device) }
    }

    /// The changes were made, but for these.
    ///
    /// - Returns: those refused that nobody was told of before, and those that somebody had taken off and that are back.
    package mutating func placed(
        _ configuration: IMTConfiguration, present: Set<IPAddress>, refused: [IPAddress]
    ) -> (newlyRefused: [IPAddress], putBack: [IPAddress]) {
        let homes = Self.all(configuration)
        let taken = homes.subtracting(present).intersection(usable)
        let newlyRefused = refused.filter { reported.insert($0).inserted }
        usable = homes.subtracting(refused)
        return (newlyRefused, taken.subtracting(refused).sorted())
    }

    /// Addresses go when a device goes down or is deleted, which is told as one repair.
    package mutating func deviceLost() { usable = [] }

    private static func all(_ configuration: IMTConfiguration) -> Set<IPAddress> {
        Set(configuration.allHomes.map(\.address) + configuration.mobilePrefixes.map(\.address))
    }
}

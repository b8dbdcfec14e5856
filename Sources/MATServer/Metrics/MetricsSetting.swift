import MATRuntime
import MATSignal

extension ConfigurationSection {
    /// Where the metrics may be read, in the section `metrics` of a daemon's configuration.
    ///
    /// - Parameter view: where the page for people is, whose port this can't be.
    package func metricsAddress(defaultPort: UInt16, besides view: Endpoint? = nil) -> Endpoint? {
        let given = value("listen", .endpoint(defaultPort: defaultPort))
        if let given, given.address.isMulticast || given.address.isBroadcast {
            reject("listen", "\(given.address) is no address to listen at", "give one of this host's, or 0.0.0.0 or :: for all")
        }
        if let given, let view, given.excludes(view) {
            reject("listen", "\(given) is where `view` listens", "give the two different ports, such as \(defaultPort) here")
        }
        return given
    }
}

extension Endpoint {
    /// Whether no two sockets can listen at both, since all addresses are each of them; at `::` those of IPv4 too.
    fileprivate func excludes(_ other: Endpoint) -> Bool {
        guard port == other.port else { return false }
        return address == other.address || address.covers(other.address) || other.address.covers(address)
    }
}

extension IPAddress {
    fileprivate func covers(_ other: IPAddress) -> Bool { isUnspecified && (ipv4 == nil || other.ipv4 != nil) }
}

import MATCore
import MATSignal
import MappingMemory

/// What machines may know of the rest of the server: values to be read, made for one call.
///
/// Never kept, and never in a variable of the wiring while one of its parts is changed: the parts are large, share their memory with those in
/// the core, and would be copied whole.
struct ServerView: Sendable {
    let configuration: IMSCoreConfiguration
    let store: StoreState
    let registrations: Registrations
    let remembered: RememberedTable
    let servers: KnownServers
    let bindings: BindingTable
    let leases: LeaseTable

    var limits: IMSLimits { configuration.limits }

    /// Whether the node of the HoA is bound at this endpoint: what comes from there is its own (section 11.3).
    func isBound(_ hoa: HomeAddress, at source: Endpoint, _ now: Now) -> Bool {
        bindings.slot(covering: hoa.address, acceptedFrom: source, now.monotonic) != nil
    }

    /// Where an own node is told of something, and the own address from which (section 11.1): over its binding, else where its last accepted
    /// IMS Update came from.
    ///
    /// - Returns: `nil` if it is not bound, and its record does not list that source.
    func way(to node: StoredMapping, _ now: Now) -> (endpoint: Endpoint, local: IPAddress)? {
        if let binding = bindings.binding(of: node.record.prefix, now.monotonic) { return (binding.endpoint, binding.local.address) }
        return node.record.listsSource(node.source) ? (node.source, node.local) : nil
    }

    /// How many times of each budget a source has (section 6).
    func budgetTimes(of source: IPAddress) -> Int { registrations.sharedAddresses.budgetTimes(of: source, bindings) }

    /// The keys that an own node's certificate has to be checked with; `nil` if it has been, as that of an accepted record.
    func issuersToCheck(_ certificate: Certificate) -> [PublicKey]? {
        // A key may have been taken from the configuration since.
        registrations.isBelieved(certificate) && configuration.issuerIDs.contains(certificate.issuerID)
            ? nil : configuration.publicKeys
    }
}

import MATSignal

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

    var limits: IMSLimits { configuration.limits }

    /// The keys that an own node's certificate has to be checked with; `nil` if it has been, as that of an accepted record.
    func issuersToCheck(_ certificate: Certificate) -> [PublicKey]? {
        // A key may have been taken from the configuration since.
        registrations.isBelieved(certificate) && configuration.issuerIDs.contains(certificate.issuerID)
            ? nil : configuration.publicKeys
    }
}

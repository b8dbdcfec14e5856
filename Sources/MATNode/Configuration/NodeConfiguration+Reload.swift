import NodeCore

// What a running agent can take from a changed file, and what it can't.

extension NodeConfiguration {
    /// What the core is told.
    var reconfiguration: NodeReconfiguration {
        NodeReconfiguration(
            preferredInterfaces: preferredInterfaces, peerPreferences: peerPreferences, namedPrefixes: namedPrefixes, relays: relays, plain: plain)
    }

    /// The keys of the file whose values differ from the running agent's and count only after a restart.
    func restartKeys(against fresh: NodeConfiguration) -> [String] {
        func key<Value: Equatable>(_ name: String, _ property: KeyPath<NodeConfiguration, Value>) -> String? {
            self[keyPath: property] == fresh[keyPath: property] ? nil : name
        }
        return [
            key("home-addresses", \.homes), key("traffic", \.traffic), key("except", \.exceptions), key("routed", \.routedPrefixes),
            key("site", \.site), key("mtu", \.mtu), key("paths", \.paths), key("inbound", \.inbound),
            resolvers == fresh.resolvers && requireDNSSEC == fresh.requireDNSSEC ? nil : "dns", key("nat64", \.nat64),
            key("visited", \.takesVisitedHomes), key("visited-linger", \.visitedLinger), key("control", \.controlPath),
            key("control-group", \.controlGroup), key("state", \.statePath), key("lifetime", \.lifetime), key("poll-interval", \.pollInterval),
            key("peer-idle", \.peerIdleMax), key("messages-per-second", \.messagesPerSecond), key("encapsulation", \.encapsulation),
            key("data-plane", \.dataPlane), key("connection-tracking", \.connectionTracking), key("reverse-path", \.reversePath),
            key("routing-rules", \.routingRules),
        ].compactMap(\.self)
    }

    /// This configuration with all that needs no restart taken from a fresh one.
    func taking(_ fresh: NodeConfiguration) -> NodeConfiguration {
        var taken = self
        taken.preferredInterfaces = fresh.preferredInterfaces
        taken.ignoredInterfaces = fresh.ignoredInterfaces
        taken.needsDefaultRoute = fresh.needsDefaultRoute
        taken.peerPreferences = fresh.peerPreferences
        taken.relays = fresh.relays
        taken.plain = fresh.plain
        taken.onStop = fresh.onStop
        taken.logLevel = fresh.logLevel
        taken.metricsAddress = fresh.metricsAddress
        return taken
    }
}

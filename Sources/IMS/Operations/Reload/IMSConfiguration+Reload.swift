import IMSCore
import MATSignal

// What a running server can take from a changed file, and what it can't.

extension IMSConfiguration {
    /// What the core is told.
    func coreConfiguration(signingKey: SigningKey?) -> IMSCoreConfiguration {
        var core = IMSCoreConfiguration(
            served: served, publicKeys: publicKeys, previousKeys: previousKeys, signingKey: signingKey,
            certificateLifetime: certificateLifetime, limits: limits, draftSources: draftSources)
        core.testsReachability = testsReachability
        core.relays = acceptedRelays
        core.visitors = visitors
        core.port = port
        core.publicAddresses = publicAddresses
        core.authorities = radius.map(\.authority)
        return core
    }

    /// The keys of the file whose values differ from the running server's and count only after a restart.
    func restartKeys(against fresh: IMSConfiguration) -> [String] {
        var keys: [String] = []
        if port != fresh.port || addresses != fresh.addresses { keys.append("listen") }
        if threads != fresh.threads { keys.append("threads") }
        if storePath != fresh.storePath || etcd != fresh.etcd { keys.append("store") }
        if verifiersCount != fresh.verifiersCount { keys.append("verifiers") }
        if controlPath != fresh.controlPath { keys.append("control") }
        if controlGroup != fresh.controlGroup { keys.append("control-group") }
        if bindingsPath != fresh.bindingsPath { keys.append("bindings-file") }
        if accountsPath != fresh.accountsPath { keys.append("accounts-file") }
        return keys
    }

    /// This configuration with all that needs no restart taken from a fresh one.
    func taking(_ fresh: IMSConfiguration) -> IMSConfiguration {
        var taken = fresh
        taken.port = port
        taken.addresses = addresses
        taken.threads = threads
        taken.storePath = storePath
        taken.etcd = etcd
        taken.verifiersCount = verifiersCount
        taken.controlPath = controlPath
        taken.controlGroup = controlGroup
        taken.bindingsPath = bindingsPath
        taken.accountsPath = accountsPath
        return taken
    }

    func hasSameDNS(as other: IMSConfiguration) -> Bool {
        resolvers == other.resolvers && dnsTimeout == other.dnsTimeout && requireDNSSEC == other.requireDNSSEC
    }
}

import MATRuntime
import MATServer
import MATSignal
import RelayCore

/// What `mat-relay` reads from its configuration file. Each property's text is also the file's documentation.
public struct RelayConfiguration: Sendable {
    /// UDP. Other ports must stand in the zone too.
    public var port = SignalPort.relay
    /// Addresses to listen on; all if empty.
    public var addresses: [IPAddress] = []
    /// Threads that receive and forward, each with a socket of its own; one for each core if `nil`. Changes need a restart.
    public var threads: Int?
    /// Whom the relay is for, whom it takes besides, and what it spends on whom.
    public var core = RelayCoreConfiguration(residents: [])
    /// What is needed of the kernel to forward to and from plain hosts; `nil` for a relay that is no gateway. For whom it does so, `core` says.
    public internal(set) var gateway: Gateway?
    /// Who forwards. Changes need a restart.
    public var forwarding = Forwarder.auto
    /// Where the kernel keeps forwarding for the next run: a directory in its file system of BPF objects. Changes need a restart.
    public var pinsPath = "/sys/fs/bpf/mat-relay"
    /// Where bindings are written down, so that the next run has them; nowhere if `nil`. Changes need a restart.
    public var statePath: String?
    /// Resolvers to ask, in order; the system's if empty.
    public var resolvers: [Endpoint] = []
    /// For one question in all.
    public var dnsTimeout: Duration = .seconds(5)
    /// Whether answers that DNSSEC did not validate count as failures.
    public var requireDNSSEC = false
    /// Threads that check signatures. Changes need a restart.
    public var verifiersCount = 1
    /// One of swift-log's words.
    public var logLevel = "info"
    public var logFormat = LogFormat.text
    /// Where Prometheus may read; nowhere if `nil`.
    public var metricsAddress: Endpoint?
    /// Where people may look at it with a browser, on loopback; nowhere unless it is given.
    public var viewAddress: Endpoint?
    /// How long packets are forwarded on after SIGTERM, while nodes that bind or refresh are told to go elsewhere.
    public var drain: Duration = .zero

    /// Who forwards packets.
    public enum Forwarder: String, CaseIterable, Sendable {
        /// The kernel, if it can and the relay may; what it can't, and everything else, the relay.
        case auto
        /// As `auto`, but the relay does not start without it.
        case kernel
        /// The relay alone.
        case agent
    }

    public init() {}

    /// Reads a configuration file.
    ///
    /// - Throws: everything that is wrong with it at once, each with file, line and remedy.
    public init(path: String) throws(ConfigurationError) {
        self.init()
        try read(try ConfigurationFile.read(path: path))
    }

    /// Parses text that is already at hand; `file` is the name used in messages.
    public init(parsing text: String, file: String) throws(ConfigurationError) {
        self.init()
        try read(try ConfigurationFile.parse(text, file: file))
    }

    /// The keys of the file whose values differ from the running relay's and count only after a restart.
    func restartKeys(against fresh: RelayConfiguration) -> [String] {
        var keys: [String] = []
        if port != fresh.port || addresses != fresh.addresses { keys.append("listen") }
        if threads != fresh.threads { keys.append("threads") }
        if forwarding != fresh.forwarding { keys.append("forwarding") }
        if pinsPath != fresh.pinsPath { keys.append("pins") }
        if statePath != fresh.statePath { keys.append("state") }
        if verifiersCount != fresh.verifiersCount { keys.append("verifiers") }
        if gateway?.device.name != fresh.gateway?.device.name { keys.append("gateway") }
        return keys
    }

    /// This configuration with all that needs no restart taken from a fresh one.
    func taking(_ fresh: RelayConfiguration) -> RelayConfiguration {
        var taken = fresh
        taken.port = port
        taken.addresses = addresses
        taken.threads = threads
        taken.forwarding = forwarding
        taken.pinsPath = pinsPath
        taken.statePath = statePath
        taken.verifiersCount = verifiersCount
        // A device does not come or go while the relay runs.
        if gateway?.device.name != fresh.gateway?.device.name { (taken.gateway, taken.core.gateway) = (gateway, core.gateway) }
        return taken
    }

    func hasSameDNS(as other: RelayConfiguration) -> Bool {
        resolvers == other.resolvers && dnsTimeout == other.dnsTimeout && requireDNSSEC == other.requireDNSSEC
    }
}

import IMSCore
import MATCore
import MATServer
import MATSignal

/// What `imsd` reads from its configuration file. Each property's text is also the file's documentation.
public struct IMSConfiguration: Sendable {
    /// The Unix socket for `mat` and other programs on this host.
    public var controlPath = "/run/imsd/control.sock"
    /// Members of this group may use it besides root.
    public var controlGroup: String?
    /// The SQLite file. Its directory must be writable, since SQLite keeps its journal beside the file.
    public var storePath = "/var/lib/imsd/ims.db"
    /// The etcd cluster that this server shares with others; `nil` if its store is the file.
    public var etcd: EtcdConfiguration?
    /// The file with the private key that signs certificates. Without one the server can't enrol or renew, which is as it should be
    /// where the key is kept off the servers; `publicKeys` then says what it accepts.
    public var signingKeyPath: String?
    /// Keys that certificates may also be signed with: earlier ones during a rotation, or all of them if the signing key isn't here.
    public var publicKeys: [PublicKey] = []
    /// Those that are being rotated out: accepted still, and replaced when their nodes register.
    public var previousKeys: [PublicKey] = []
    public var port = SignalPort.ims
    /// Addresses to listen on; all if empty.
    public var addresses: [IPAddress] = []
    /// Threads that receive and answer, each with a socket of its own; one for each core if `nil`. Changes need a restart.
    public var threads: Int?
    /// The HoA prefixes served, each in one entry.
    public var served: [ServedPrefix] = []
    /// Relays that serve these prefixes; the zone names them.
    public var relays: [RelayHost] = []
    /// Resolvers to ask, in order; the system's if empty.
    public var resolvers: [Endpoint] = []
    /// For one question in all.
    public var dnsTimeout: Duration = .seconds(5)
    /// Whether answers that DNSSEC did not validate count as failures.
    public var requireDNSSEC = false
    public var limits = IMSLimits()
    public var draftSources: [IPPrefix] = []
    /// Whether nodes that register are sent locator checks from elsewhere, by which they find out that their addresses are filtered.
    public var testsReachability = true
    /// Addresses of this host to send them from: best such as no node is served at. Those to listen on if empty.
    public var reachabilityAddresses: [IPAddress] = []
    /// Which relays records may list.
    public var acceptedRelays = RelayPolicy.any
    /// Addresses at which nodes reach this server, if a translator before it gives it others.
    public var publicAddresses: [IPAddress] = []
    /// Where bindings are kept over a restart; nowhere if `nil`.
    public var bindingsPath: String?
    /// RADIUS servers that have a word in what tokens give, for some prefixes each.
    public var radius: [RADIUSConfiguration] = []
    /// Where accounts are kept until a RADIUS server has them.
    public var accountsPath: String?
    /// Threads that check signatures.
    public var verifiersCount = VerifierPool.threadsDefault
    public var certificateLifetime: Duration = .seconds(365 * 86_400)
    /// Nodes of other IMSs that get home addresses while they are here; none if `nil`.
    public var visitors: VisitorPolicy?
    /// One of swift-log's words.
    public var logLevel = "info"
    public var logFormat = LogFormat.text
    /// Where Prometheus may read; nowhere if `nil`.
    public var metricsAddress: Endpoint?
    /// Where people may look at it with a browser, on loopback; nowhere unless it is given.
    public var viewAddress: Endpoint?
    /// How long pushes under way may take when the server ends.
    public var drainMax: Duration = .seconds(2)

    public init() {}
}

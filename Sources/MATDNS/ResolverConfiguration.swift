import Glibc
import MATSignal

/// Which servers a `Resolver` asks, and how patient it is.
public struct ResolverConfiguration: Sendable, Hashable {
    /// Servers used; resolv.conf(5) itself stops at three.
    public static let serversMax = 8
    static let fileBytesMax = 65_536

    public struct Server: Sendable, Hashable {
        public var endpoint: Endpoint
        /// For a link-local server (`fe80::1%wlan0`), the interface it is on.
        public var interface: String?

        public init(_ endpoint: Endpoint, interface: String? = nil) {
            self.endpoint = endpoint
            self.interface = interface
        }
    }

    /// In the order of preference.
    public var servers: [Server]
    /// Whether these are the system's, to be read again when the network changes.
    public var followsSystem = false
    /// Whether every server's AD flag is believed. If not, only that of a resolver on this host is: the way to any other can
    /// be forged. `options trust-ad` in resolv.conf sets it.
    public var trustsAuthentication = false
    /// Answers without a believed AD flag count as failures, absence too.
    public var requireDNSSEC = false
    /// How long the first try waits; doubled when all servers have had theirs.
    public var tryTimeout = Duration.milliseconds(400)
    /// For a question in all, over UDP and TCP.
    public var totalTimeout = Duration.seconds(5)
    /// Tries per server.
    public var triesPerServerMax = 3
    /// Different questions asked at the same time.
    public var inFlightMax = 256
    /// Callers waiting for the answer to one question.
    public var waitersMax = 4096
    public var cacheEntriesMax = 8192
    /// SO_MARK on every socket, for routing rules that exempt the program's own traffic. Needs CAP_NET_ADMIN.
    public var mark: UInt32?

    public init(servers: [Server]) {
        self.servers = Array(servers.prefix(Self.serversMax))
    }

    public init(servers: [Endpoint]) { self.init(servers: servers.map { Server($0) }) }

    /// The system's servers, from resolv.conf. A file that isn't there means a server on this host, as in resolv.conf(5).
    public static func system(path: String = "/etc/resolv.conf") -> ResolverConfiguration {
        var configuration = ResolverConfiguration(servers: [Server]())
        configuration.followsSystem = true
        configuration.readSystem(path: path)
        return configuration
    }

    /// Reads the servers again and keeps all other settings.
    mutating func readSystem(path: String = "/etc/resolv.conf") {
        let (servers, trusts) = Self.parse(resolvConf: Self.contents(path))
        self.servers = servers
        trustsAuthentication = trusts
    }

    package static func parse(resolvConf text: String) -> (servers: [Server], trustsAuthentication: Bool) {
        var servers: [Server] = []
        var trusts = false
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.prefix { $0 != "#" && $0 != ";" }.split(whereSeparator: \.isWhitespace)
            switch words.first {
            case "nameserver":
                guard let word = words.dropFirst().first, servers.count < serversMax else { continue }
                let parts = word.split(separator: "%", maxSplits: 1)
                guard let first = parts.first, let address = IPAddress(String(first)) else { continue }
                servers.append(Server(Endpoint(address, port: 53), interface: parts.dropFirst().first.map(String.init)))
            case "options":
                if words.contains("trust-ad") { trusts = true }
            default:
                break
            }
        }
        if servers.isEmpty { servers = [Server(Endpoint(IPAddress(ipv4: 0x7F00_0001), port: 53))] }
        return (servers, trusts)
    }

    private static func contents(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: fileBytesMax)
        let count = read(descriptor, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}

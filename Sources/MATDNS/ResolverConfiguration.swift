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
        /// A server to which a resolver on this host forwards: asked when that one fails, and never believed to have validated anything.
        public var isUpstream = false

        public init(_ endpoint: Endpoint, interface: String? = nil, isUpstream: Bool = false) {
            self.endpoint = endpoint
            self.interface = interface
            self.isUpstream = isUpstream
        }

        /// Whether it is a process of this host: what it validated was validated here.
        public var isLocal: Bool { endpoint.address.isLoopback && !isUpstream }
    }

    public static let systemPath = "/etc/resolv.conf"
    /// The servers to which systemd-resolved forwards, since /etc/resolv.conf names only itself. Other local resolvers have no such file.
    public static let upstreamPath = "/run/systemd/resolve/resolv.conf"

    /// In the order of preference.
    public var servers: [Server]
    /// Whether these are the system's, to be read again when the files or the network change.
    public var followsSystem = false
    /// Whether the files' `timeout` and `attempts` apply; not where the caller has to be done by a time of its own.
    public var usesSystemTimeouts = true
    /// `options use-vc`: only over TCP.
    public var isOverTCP = false
    /// Whether every server's AD flag is believed. If not, only that of a resolver on this host is: the way to any other can
    /// be forged. `options trust-ad` in resolv.conf sets it.
    public var trustsAuthentication = false
    /// Answers without a believed AD flag count as failures, absence too.
    public var requireDNSSEC = false
    /// How long the first try waits; doubled when all servers have had theirs.
    public var tryTimeout = Duration.milliseconds(400)
    /// For a question in all, over UDP and TCP.
    public var totalTimeout = totalTimeoutDefault
    static let totalTimeoutDefault = Duration.seconds(5)
    /// Tries per server.
    public var triesPerServerMax = triesPerServerDefault
    static let triesPerServerDefault = 3
    /// Different questions asked at the same time.
    public var inFlightMax = 256
    /// Callers waiting for the answer to one question.
    public var waitersMax = 4096
    public var cacheEntriesMax = 8192
    /// How long absence is believed without asking again. A node remembers it where it acts on it, and must find out at once when a
    /// captive portal, which denies everything with long SOA times, has opened.
    public var absenceKeptMax = Duration.seconds(300)
    /// SO_MARK on every socket, for routing rules that exempt the program's own traffic. Needs CAP_NET_ADMIN.
    public var mark: UInt32?

    public init(servers: [Server]) {
        self.servers = Array(servers.prefix(Self.serversMax))
    }

    public init(servers: [Endpoint]) { self.init(servers: servers.map { Server($0) }) }

    /// Those that a configuration names, or the system's if it names none.
    ///
    /// - Parameter requireDNSSEC: whether answers that nobody validated count as failures.
    public static func named(_ servers: [Endpoint], requireDNSSEC: Bool) -> ResolverConfiguration {
        var configuration = servers.isEmpty ? system() : ResolverConfiguration(servers: servers)
        configuration.requireDNSSEC = requireDNSSEC
        return configuration
    }

    /// The system's servers, from resolv.conf. A file that isn't there means a server on this host, as in resolv.conf(5).
    public static func system(path: String = systemPath, upstreamPath: String = upstreamPath) -> ResolverConfiguration {
        var configuration = ResolverConfiguration(servers: [Server]())
        configuration.followsSystem = true
        configuration.readSystem(path: path, upstreamPath: upstreamPath)
        return configuration
    }

    /// Reads the servers again and keeps all other settings.
    mutating func readSystem(path: String = systemPath, upstreamPath: String = upstreamPath) {
        let file = Self.parse(resolvConf: Self.text(path) ?? "")
        servers = file.servers
        trustsAuthentication = file.trustsAuthentication
        isOverTCP = file.isOverTCP
        if usesSystemTimeouts {
            totalTimeout = file.patience ?? Self.totalTimeoutDefault
            triesPerServerMax = max(Self.triesPerServerDefault, file.attempts ?? 0)
        }
        guard servers.allSatisfy(\.isLocal), let text = Self.text(upstreamPath) else { return }
        for var server in Self.parse(resolvConf: text).servers where !server.isLocal && servers.count < Self.serversMax {
            server.isUpstream = true
            servers.append(server)
        }
    }

    /// What resolv.conf says that matters to questions for whole names; `search` and `ndots` don't.
    package struct ResolvConf: Hashable, Sendable {
        var servers: [Server] = []
        var trustsAuthentication = false
        var isOverTCP = false
        /// `timeout` times `attempts`, where either is given: for as long a slow server may answer.
        var patience: Duration?
        var attempts: Int?
    }

    /// resolv.conf(5) caps `timeout` at 30 s and `attempts` at 5.
    private static let timeoutMax = 30, attemptsMax = 5
    private static let totalTimeoutMax = Duration.seconds(30)

    package static func parse(resolvConf text: String) -> ResolvConf {
        var file = ResolvConf()
        var timeout: Int?
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.prefix { $0 != "#" && $0 != ";" }.split(whereSeparator: \.isWhitespace)
            switch words.first {
            case "nameserver":
                guard let word = words.dropFirst().first, file.servers.count < serversMax else { continue }
                let parts = word.split(separator: "%", maxSplits: 1)
                guard let first = parts.first, let address = IPAddress(String(first)) else { continue }
                let server = Server(Endpoint(address, port: 53), interface: parts.dropFirst().first.map(String.init))
                if !file.servers.contains(server) { file.servers.append(server) }
            case "options":
                for word in words.dropFirst() {
                    switch word {
                    case "trust-ad": file.trustsAuthentication = true
                    case "use-vc": file.isOverTCP = true
                    default: break
                    }
                    timeout = number(word, "timeout:", 1...timeoutMax) ?? timeout
                    file.attempts = number(word, "attempts:", 1...attemptsMax) ?? file.attempts
                }
            default:
                break
            }
        }
        if timeout != nil || file.attempts != nil {
            // Both have defaults in resolv.conf(5): 5 s, twice. Our own is no shorter than one of these.
            let patience = Duration.seconds((timeout ?? 5) * (file.attempts ?? 2))
            file.patience = min(max(patience, totalTimeoutDefault), totalTimeoutMax)
        }
        if file.servers.isEmpty { file.servers = [Server(Endpoint(IPAddress(ipv4: 0x7F00_0001), port: 53))] }
        return file
    }

    private static func number(_ word: Substring, _ name: String, _ range: ClosedRange<Int>) -> Int? {
        guard word.hasPrefix(name), let number = Int(word.dropFirst(name.count)) else { return nil }
        return min(max(number, range.lowerBound), range.upperBound)
    }

    /// `nil` if the file can't be read.
    private static func text(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: fileBytesMax)
        let count = read(descriptor, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}

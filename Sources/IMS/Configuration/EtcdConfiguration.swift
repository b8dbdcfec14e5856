import MATRuntime

/// The etcd cluster that several instances of one IMS share, as the `etcd` section of imsd.yaml names it.
public struct EtcdConfiguration: Hashable, Sendable {
    /// Where a member listens for clients.
    public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
        public static let defaultPort = 2379
        /// A name or an address.
        public var host: String
        public var port: Int

        public init(host: String, port: Int = Self.defaultPort) {
            self.host = host
            self.port = port
        }

        public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    /// The members; the first is asked first, so each instance lists the nearest one first.
    public var endpoints: [Endpoint] = []
    /// What all keys begin with: several IMSs may share an etcd cluster.
    public var prefix = "/mat/ims/"
    /// The certificates that members' certificates are checked against; with it the connection is encrypted.
    public var authorityPath: String?
    /// This server's own certificate and its key, for members that ask for one.
    public var certificatePath: String?
    public var keyPath: String?
    /// What members' certificates say if that is not the host of the endpoint.
    public var serverName: String?
    /// A user of etcd, and the file with the password.
    public var user: String?
    public var passwordPath: String?

    public init() {}

    /// Members in one cluster; etcd itself recommends at most seven.
    static let endpointsMax = 16

    init(reading section: ConfigurationSection) {
        let isList = section.isList("endpoints")
        endpoints = isList ? section.requiredList("endpoints", .etcdEndpoint) : section.list("endpoints", .etcdEndpoint)
        if !isList {
            section.reject(
                "endpoints", "no member of the etcd cluster is named",
                "list them, as in endpoints: [10.0.0.1, 10.0.0.2, 10.0.0.3]")
        } else if endpoints.count > Self.endpointsMax {
            section.reject(
                "endpoints", "\(endpoints.count) members are more than \(Self.endpointsMax)", "name those that are nearest")
        }
        prefix = section.value("prefix", .string, default: prefix)
        if !prefix.hasSuffix("/") { section.reject("prefix", "\(prefix) does not end with /", "write \(prefix)/") }
        authorityPath = section.value("ca", .path)
        certificatePath = section.value("certificate", .path)
        keyPath = section.value("key", .path)
        serverName = section.value("server-name", .string)
        user = section.value("user", .string)
        passwordPath = section.value("password-file", .path)
        if certificatePath != nil, authorityPath == nil {
            section.reject(
                "certificate", "a certificate without `ca` is of no use", "name the file with the authority's certificate as `ca`"
            )
        }
        if (certificatePath == nil) != (keyPath == nil) {
            section.reject(
                certificatePath == nil ? "key" : "certificate", "`certificate` and `key` belong together",
                "name both files or none")
        }
        if (user == nil) != (passwordPath == nil) {
            section.reject(
                user == nil ? "password-file" : "user", "`user` and `password-file` belong together", "give both or none")
        }
    }
}

extension ConfigurationKind where Value == EtcdConfiguration.Endpoint {
    /// `host`, `host:port`, `address` or `[address]:port`; the host is a name or an address.
    static var etcdEndpoint: Self {
        Self { text in
            let rejected = Outcome.rejected(
                reason: "is not the host and port of a member of etcd",
                remedy: "write it like 10.0.0.1, etcd1.example.net:2379 or [2001:db8::1]:2379")
            if text.contains("/") {
                return .rejected(
                    reason: "has a scheme or path", remedy: "write host:port alone; `ca` says that the connection is encrypted")
            }
            var host = text
            var port = EtcdConfiguration.Endpoint.defaultPort
            if text.hasPrefix("[") {
                let parts = text.dropFirst().split(separator: "]", maxSplits: 1, omittingEmptySubsequences: false)
                guard parts.count == 2 else { return rejected }
                host = String(parts[0])
                if !parts[1].isEmpty {
                    guard parts[1].hasPrefix(":"), let number = UInt16(parts[1].dropFirst()), number > 0 else { return rejected }
                    port = Int(number)
                }
            } else if text.split(separator: ":", omittingEmptySubsequences: false).count == 2,
                let colon = text.firstIndex(of: ":")
            {
                guard let number = UInt16(text[text.index(after: colon)...]), number > 0 else { return rejected }
                host = String(text[..<colon])
                port = Int(number)
            }
            return host.isEmpty ? rejected : .value(EtcdConfiguration.Endpoint(host: host, port: port))
        }
    }
}

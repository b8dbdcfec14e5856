import IMSCore
import MATRuntime
import MATSignal
import RADIUS

/// RADIUS servers that have a word in what tokens give, as one entry of `radius` in imsd.yaml.
public struct RADIUSConfiguration: Hashable, Sendable {
    public struct Server: Hashable, Sendable {
        public var address: IPAddress
        public var port: UInt16
        public var accountingPort: UInt16
        /// The file with what this server shares with that one.
        public var secretPath: String
    }

    /// For logs, metrics and the file of accounts.
    public var name: String
    /// Tokens that give from within these are concerned.
    public var prefixes: [IPPrefix]
    /// The first is asked, the others if it is silent.
    public var servers: [Server]
    /// Whether they are asked before a node joins.
    public var authorises = true
    /// Whether leases are accounted.
    public var accounts = true
    public var interim: Duration = .seconds(600)
    /// For an answer, before the same is sent again.
    public var wait: Duration = .seconds(1)
    /// At each server.
    public var tries = 2
    /// What this server calls itself; its host's name if `nil`.
    public var identifier: String?

    static let groupsMax = 64
    static let serversMax = 8
    static let waitRange: ClosedRange<Duration> = .milliseconds(100) ... .seconds(10)
    static let triesRange = 1...5
    /// RFC 2869 section 5.16: not below 60 s.
    static let interimRange: ClosedRange<Duration> = .seconds(60) ... .seconds(86_400)

    /// - Returns: `nil` only if something was reported.
    init?(reading section: ConfigurationSection) {
        prefixes = section.requiredList("prefixes", .prefix)
        var servers: [Server] = []
        for server in section.sections("servers") {
            let address = server.required("address", .address)
            let port = server.value("port", .port, default: 1812)
            let accounting = server.value("accounting-port", .port, default: 1813)
            guard let secret = server.required("secret-file", .path), let address else { continue }
            servers.append(Server(address: address, port: port, accountingPort: accounting, secretPath: secret))
        }
        if servers.isEmpty {
            section.reject("servers", "no RADIUS server is named", "add one, as in - {address: 192.0.2.250, secret-file: /etc/imsd/radius.secret}")
        } else if servers.count > Self.serversMax {
            section.reject("servers", "\(servers.count) servers are listed", "list at most \(Self.serversMax)")
        }
        self.servers = servers
        authorises = section.value("authorise", .bool, default: authorises)
        accounts = section.value("accounting", .bool, default: accounts)
        interim = section.value("interim", .duration(in: Self.interimRange), default: interim)
        wait = section.value("timeout", .duration(in: Self.waitRange), default: wait)
        tries = section.value("tries", .int(in: Self.triesRange), default: tries)
        identifier = section.value("nas-identifier", .string)
        if !authorises, !accounts {
            section.reject("authorise", "neither `authorise` nor `accounting` is wanted", "switch one of them on, or remove the entry")
        }
        guard let first = prefixes.first else { return nil }
        name = section.value("name", .string) ?? "\(first)"
        if name.contains(where: \.isWhitespace) { section.reject("name", "has a space in it", "write it as one word") }
    }

    var authority: Authority { Authority(name: name, prefixes: prefixes, isToldOfLeases: accounts, interim: interim) }

    /// Reads the secrets.
    func serversWithSecrets() throws(IMSServerError) -> [RADIUSServer] {
        var found: [RADIUSServer] = []
        for server in servers {
            found.append(
                RADIUSServer(
                    access: Endpoint(server.address, port: server.port), accounting: Endpoint(server.address, port: server.accountingPort),
                    secret: try Self.secret(server.secretPath)))
        }
        return found
    }

    private static func secret(_ path: String) throws(IMSServerError) -> RADIUSSecret {
        let text: String
        do throws(SecretFileError) {
            text = try SecretFile.read(path)
        } catch {
            throw IMSServerError("radius: \(error.remedied { _ in "put the secret there, and give the file to the user that imsd runs as" })")
        }
        guard let line = text.split(separator: "\n").first, let secret = RADIUSSecret(Array(line.utf8)) else {
            throw IMSServerError("radius: \(path) holds no secret of 1 to \(RADIUSSecret.octetsRange.upperBound) octets in its first line")
        }
        return secret
    }
}

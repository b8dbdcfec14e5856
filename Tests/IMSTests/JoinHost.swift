import Glibc
import IMSCore
import MATRuntime
import MATSignal
import MATTesting
import Synchronization
import Testing

@testable import IMS

/// A running imsd that nodes join over real sockets, with its files.
final class JoinHost {
    let directory: TemporaryDirectory
    let port: UInt16
    private let further: String
    private var daemon: Daemon?

    static let pool = "192.0.2.0/28"

    /// - Parameter further: lines for its configuration; DIRECTORY stands for where its files are.
    init(_ further: String = "") throws {
        directory = try TemporaryDirectory()
        port = UInt16.random(in: 20_000...32_000)
        self.further = further
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(try key(200)), mode: 0o600)
        try configure(further)
    }

    func configure(_ further: String) throws {
        let text = """
            control: \(directory.path)/control.sock
            store: \(directory.path)/ims.db
            signing-key: \(directory.path)/ims.key
            listen: {port: \(port), addresses: []}
            prefixes:
              - prefix: 192.0.2.0/24
              - prefix: 2001:db8:10::/48
            dns: {resolvers: ["127.0.0.1:1"]}
            limits: {verifications-per-second: 10000, refusal-logs-per-second: 10000, messages-per-source: 10000}
            reachability-test: {enabled: false}

            """
        try TextFile.replace(
            "\(directory.path)/imsd.yaml", with: text + further.replacingAll("DIRECTORY", with: directory.path), mode: 0o600)
    }

    var log: String { (try? TextFile.read("\(directory.path)/log", octetsMax: 1 << 24)) ?? "" }

    func start() throws {
        daemon = try Daemon(["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log")
        for _ in 0..<400 {
            if (try? control("status"))?["store"]?["isLoading"]?.bool == false { return }
            usleep(25_000)
        }
        Issue.record("imsd did not start: \(log)")
    }

    func end(_ signal: Int32 = SIGKILL) {
        _ = daemon?.kill(signal)
        daemon = nil
    }

    func signal(_ number: Int32) { daemon?.signal(number) }

    func control(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(ControlError) -> JSONValue {
        try ControlClient.request(JSONValue.self, path: "\(directory.path)/control.sock", command: command, arguments: arguments, daemon: "imsd")
    }

    func makeToken(_ gives: [String], _ arguments: [String: JSONValue] = [:]) throws -> JoinToken {
        let made = try control(
            "tokenCreate", ["gives": .array(gives.map { .string($0) }), "host": "127.0.0.1"].merging(arguments) { _, new in new })
        return try JoinToken.parse(try #require(made["token"]?.string))
    }

    /// What is durable of tokens and leases; while no imsd runs.
    func storedRows() throws -> Set<StoredRow> {
        let store = try MappingStore(path: "\(directory.path)/ims.db")
        defer { store.close() }
        let found = SharedRows()
        store.start { event in
            switch event {
            case .loaded(let contents): found.add(contents.rows)
            case .loadEnded: found.end()
            default: break
            }
        }
        try #require(eventually(10) { found.isWhole })
        return found.rows
    }

    /// A Join of a node that is at home elsewhere.
    func visit(_ node: TestNode, wanted: String? = nil, lifetime: UInt32? = nil) throws -> JoinReply {
        let server = try key(200).publicKey
        return try send { cookie, challenge in
            let statement = JoinStatement(
                to: server, cookie: challenge, key: node.key.publicKey, wanted: wanted.map { prefix($0) }, lifetime: lifetime)
            return Join(
                cookie: cookie, key: node.key.publicKey, .visitor(node.hoa, node.certificate), wanted: statement.wanted, lifetime: lifetime,
                signature: try #require(statement.signed(with: node.key)))
        }
    }

    /// Withdraws and gives back, as `mat leave` does.
    func giveBack(_ grant: JoinReply.Grant, _ seed: UInt8, _ token: JoinToken) throws -> JoinReply {
        let now = SystemClock.now().wallMilliseconds
        let record = MappingRecord(hoa: grant.hoa, prefixLength: 128, sequence: now, lifetime: 600, issued: now, locators: [])
        let enclosed = EnclosedRecord(mapping: try #require(record.signed(with: try key(seed))), certificate: .whole(grant.certificate))
        let code = try Client(port: port).ask { .imsUpdate(IMSUpdate(cookie: $0, record: enclosed, proofs: [])) }.code
        guard code == .ok else { throw ControlError("\(grant.hoa) is not withdrawn: \(code)") }
        return try join(seed, token, wanted: "\(grant.hoa)", lifetime: 0)
    }

    /// One Join over a socket of its own, as a node sends it, or as the change makes it.
    func join(
        _ seed: UInt8, _ token: JoinToken, wanted: String? = nil, lifetime: UInt32? = nil, _ change: @escaping (inout JoinMaking) -> Void = { _ in }
    ) throws -> JoinReply {
        let key = try key(seed)
        return try send { cookie, challenge in
            let statement = JoinStatement(
                to: token.server, cookie: challenge, key: key.publicKey, wanted: wanted.map { prefix($0) }, lifetime: lifetime)
            var making = JoinMaking(cookie: cookie, proven: statement, signed: statement, signer: key, token: token)
            change(&making)
            return try making.join(statement)
        }
    }

    private func send(_ make: (Cookie, Challenge) throws -> Join) throws -> JoinReply {
        let client = try Client(port: port)
        guard let proven = try client.ask({ .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.1"), padding: 300)) }).message?.cookie else {
            throw ControlError("no cookie")
        }
        var failure: (any Error)?
        let answer = try client.ask { asked in
            let cookie = asked.server == nil ? proven : asked
            guard let challenge = Challenge(cookie) else { return .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.1"))) }
            do { return .join(try make(cookie, challenge)) } catch {
                failure = error
                return .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.1")))
            }
        }
        if let failure { throw failure }
        guard case .joinReply(let reply)? = answer.message?.body else { throw ControlError("no Join Reply: \(answer)") }
        return reply
    }
}

/// How a Join is made: what the proof and the signature are over may be something else than what it says.
struct JoinMaking {
    var cookie: Cookie
    var proven: JoinStatement
    var signed: JoinStatement
    var signer: SigningKey
    var token: JoinToken

    func join(_ statement: JoinStatement) throws -> Join {
        Join(
            cookie: cookie, key: statement.key, .token(TokenProof(of: token, over: proven)), wanted: statement.wanted, lifetime: statement.lifetime,
            signature: try #require(signed.signed(with: signer)))
    }
}

/// Waits for something to become true.
func eventually(_ seconds: Double = 15, _ condition: () -> Bool) -> Bool {
    let end = SystemClock.now().monotonic + .seconds(seconds)
    while SystemClock.now().monotonic < end {
        if condition() { return true }
        usleep(20_000)
    }
    return condition()
}

extension String {
    func replacingAll(_ word: String, with other: String) -> String {
        var result = ""
        var rest = self[...]
        while let place = rest.firstRange(of: word) {
            result += rest[..<place.lowerBound] + other
            rest = rest[place.upperBound...]
        }
        return result + rest
    }
}

/// Rows as the store's threads tell them.
private final class SharedRows: Sendable {
    private let state = Mutex<(rows: Set<StoredRow>, isWhole: Bool)>(([], false))
    var rows: Set<StoredRow> { state.withLock { $0.rows } }
    var isWhole: Bool { state.withLock { $0.isWhole } }
    func add(_ rows: [StoredRow]) { state.withLock { $0.rows.formUnion(rows) } }
    func end() { state.withLock { $0.isWhole = true } }
}

import Foundation
import MATRuntime
import MATSignal
import MATTesting
import Synchronization
import Testing

/// What nodes that join did and were told, with times, and whether any order of these makes sense.
final class LeaseHistory: Sendable {
    /// That a key held an HoA: from the answer that gave it until the request that gives it back.
    struct Holding {
        var key: Int
        var hoa: HomeAddress
        var from: Int64
        /// `nil`: it is held still.
        var until: Int64?
    }

    struct State {
        var holdings: [Holding] = []
        /// Keys that got anything by the token of limited use.
        var users: Set<Int> = []
        var joins = 0
        var again = 0
        var givenBack = 0
        var usedUp = 0
        var later = 0
        var unanswered = 0
        var violations: [String] = []
    }

    private let state = Mutex(State())
    private let stopped = Mutex(false)
    var now: State { state.withLock { $0 } }
    var isStopped: Bool { stopped.withLock { $0 } }
    func stop() { stopped.withLock { $0 = true } }
    func update(_ change: (inout sending State) -> Void) { state.withLock { change(&$0) } }

    /// Two keys that held one HoA at a time.
    var overlaps: [String] {
        let sorted = now.holdings.sorted { ($0.hoa.address, $0.from) < ($1.hoa.address, $1.from) }
        return zip(sorted, sorted.dropFirst()).compactMap { before, after in
            guard before.hoa == after.hoa, before.key != after.key, before.until.map({ $0 > after.from }) ?? true else { return nil }
            return
                "\(before.hoa) was given to key \(after.key) at \(after.from), while key \(before.key) had it from \(before.from) to \(before.until.map(String.init) ?? "the end")"
        }
    }
}

/// One node that joins, asks again, gives back, and joins again.
private struct JoiningNode {
    let number: Int
    /// Another one after every other time that it has given something back, as after `mat leave`; else the same key joins anew, while a copy of the
    /// request that gave back may lie in the socket of a server that stands still, to be looked at later.
    private(set) var generation = 0
    /// Of its last record.
    private var sequence: UInt64 = 0
    private(set) var key: SigningKey
    let token: JoinToken
    /// Whether its token gives to so many nodes only; then it keeps what it has, and its key.
    let isLimited: Bool
    let issuer: PublicKey

    init(_ number: Int, _ token: JoinToken, isLimited: Bool, issuer: PublicKey) throws {
        (self.number, self.token, self.isLimited, self.issuer) = (number, token, isLimited, issuer)
        key = try Self.key(number)
    }

    /// How it stands in the history.
    private var name: Int { number + generation * 256 }

    static func key(_ name: Int) throws -> SigningKey {
        try #require(SigningKey(seed: (0..<32).map { $0 == 0 ? 1 : $0 == 1 ? UInt8(name % 256) : $0 == 2 ? UInt8(name / 256 % 256) : 0 }))
    }

    private func ask(_ client: LabClient, only: Int? = nil, wanted: IPPrefix? = nil, lifetime: UInt32? = nil) -> JoinReply? {
        let answer = client.ask(only: only) { cookie in
            guard let given = Challenge(cookie) else {
                return .maQuery(MAQuery(cookie: cookie, hoa: HomeAddress(address("192.0.2.1")), padding: 300))
            }
            let statement = JoinStatement(to: token.server, cookie: given, key: key.publicKey, wanted: wanted, lifetime: lifetime)
            guard let signature = statement.signed(with: key) else {
                return .maQuery(MAQuery(cookie: cookie, hoa: HomeAddress(address("192.0.2.1"))))
            }
            return .join(
                Join(
                    cookie: cookie, key: key.publicKey, .token(TokenProof(of: token, over: statement)), wanted: wanted, lifetime: lifetime,
                    signature: signature))
        }
        guard case .joinReply(let reply)? = answer?.message.body else { return nil }
        return reply
    }

    /// Until the history ends, and then until it knows what it has.
    mutating func run(_ source: String, _ servers: [String], _ history: LeaseHistory, seed: UInt64) throws {
        let client = try LabClient(source, servers: servers, startingAt: number % 3)
        var random = SeededGenerator(seed: seed &+ UInt64(number))
        var held: JoinReply.Grant?
        let end = milliseconds() + 180_000
        while milliseconds() < end {
            let isLast = history.isStopped
            if let grant = held, !isLimited, !isLast, random.chance(0.2) {
                held = nil
                try giveBack(grant, client, history, &random)
                if random.chance(0.5) {
                    generation += 1
                    key = try Self.key(name)
                }
                continue
            }
            let isAgain = held != nil
            let (name, own, limited) = (name, key.publicKey, isLimited)
            let reply = ask(client, only: isAgain && !isLast ? Int.random(in: 0..<3, using: &random) : nil)
            let time = milliseconds()
            guard let reply, reply.code != .tryLater else {
                history.update { if reply == nil { $0.unanswered += 1 } else { $0.later += 1 } }
                usleep(UInt32.random(in: 20_000...150_000, using: &random))
                continue
            }
            if let grant = reply.granted {
                if !grant.certificate.isIssued(by: issuer) || grant.certificate.nodeKey != own || grant.certificate.hoa != grant.hoa {
                    history.update { $0.violations.append("key \(name) got a certificate that is not for it: \(grant.hoa)") }
                }
                if let held, held.hoa != grant.hoa || held.certificate != grant.certificate {
                    history.update { $0.violations.append("key \(name) had \(held.hoa), and got \(grant.hoa) when it asked again") }
                }
                history.update { state in
                    if isAgain {
                        state.again += 1
                    } else {
                        state.joins += 1
                        state.holdings.append(LeaseHistory.Holding(key: name, hoa: grant.hoa, from: time))
                        if limited { state.users.insert(name) }
                    }
                }
                held = grant
                // A server that has not heard of it yet may find that nothing is left.
            } else if let held, reply.code != .notFound {
                history.update {
                    $0.violations.append("key \(name) had \(held.hoa), and was refused when it asked again: \(reply.code) \(reply.text ?? "")")
                }
            } else if reply.code == .notFound || isLimited && reply.code == .refused && reply.text?.contains("spent") == true {
                history.update { $0.usedUp += 1 }
            } else {
                history.update { $0.violations.append("key \(name) was refused: \(reply.code) \(reply.text ?? "")") }
            }
            if isLast { return }
            usleep(UInt32.random(in: 10_000...80_000, using: &random))
        }
        history.update { $0.violations.append("key \(number) got no answer to the end") }
    }

    /// Until it is known that it is withdrawn.
    ///
    /// - Parameter isAgain: an earlier try to give it back may have done it; then it may be another's, or its own anew by a Join that came late.
    /// - Returns: whether it is.
    private mutating func withdraw(
        _ grant: JoinReply.Grant, _ client: LabClient, _ history: LeaseHistory, _ random: inout SeededGenerator, isAgain: Bool, until end: Int64
    ) throws -> Bool {
        while milliseconds() < end {
            let now = UInt64(Date().timeIntervalSince1970 * 1000)
            sequence = max(sequence + 1, now)
            let record = MappingRecord(hoa: grant.hoa, prefixLength: 128, sequence: sequence, lifetime: 600, issued: now, locators: [])
            let enclosed = EnclosedRecord(mapping: try #require(record.signed(with: key)), certificate: .whole(grant.certificate))
            let answer = client.ask { .imsUpdate(IMSUpdate(cookie: $0, record: enclosed, proofs: [])) }
            guard case .imsUpdateReply(let reply)? = answer?.message.body, reply.code != .tryLater else {
                usleep(UInt32.random(in: 20_000...150_000, using: &random))
                continue
            }
            guard reply.code != .ok else { return true }
            if isAgain, reply.code == .authenticationFailed { return false }
            let (name, hoa, code, text) = (name, grant.hoa, reply.code, reply.text ?? "")
            history.update { $0.violations.append("key \(name) could not withdraw \(hoa): \(code) \(text)") }
            return false
        }
        return false
    }

    /// Until it is known that it is given back. From the first request on it may be another's.
    private mutating func giveBack(_ grant: JoinReply.Grant, _ client: LabClient, _ history: LeaseHistory, _ random: inout SeededGenerator) throws {
        let began = milliseconds()
        let name = name
        history.update { state in
            guard let place = state.holdings.lastIndex(where: { $0.key == name && $0.until == nil }) else { return }
            state.holdings[place].until = began
        }
        guard try withdraw(grant, client, history, &random, isAgain: false, until: began + 60_000) else { return }
        while milliseconds() < began + 120_000 {
            let reply = ask(client, wanted: IPPrefix(grant.hoa.address), lifetime: 0)
            guard let reply, reply.code != .tryLater else {
                usleep(UInt32.random(in: 20_000...150_000, using: &random))
                continue
            }
            // A server may not have heard of the withdrawal yet, or a copy of a Join has come late.
            if reply.text?.contains("withdraw it first") == true,
                try withdraw(grant, client, history, &random, isAgain: true, until: began + 120_000)
            {
                continue
            }
            // Refused: an earlier try of the same did it, whose answer was lost, and another key has it by now.
            if reply.code != .ok && reply.code != .refused {
                history.update { $0.violations.append("key \(name) could not give back \(grant.hoa): \(reply.code) \(reply.text ?? "")") }
            }
            return history.update { $0.givenBack += 1 }
        }
        history.update { $0.violations.append("key \(name) could not give back \(grant.hoa) in two minutes") }
    }
}

extension ClusterTests {
    /// As the history of updates: MAT_CLUSTER_SEED repeats a run's faults, MAT_CLUSTER_MINUTES makes it longer.
    @Test(
        "Whatever is killed, stopped or cut off while nodes join at three servers: an address has one key at a time, who asks again gets the same, no use too many"
    )
    func leases() throws {
        let environment = ProcessInfo.processInfo.environment
        let seconds = environment["MAT_CLUSTER_MINUTES"].flatMap(Double.init).map { $0 * 60 } ?? 12
        let seed = environment["MAT_CLUSTER_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...UInt64(UInt32.max))
        print("leases: seed \(seed) (MAT_CLUSTER_SEED), \(Int(seconds)) s (MAT_CLUSTER_MINUTES)")
        let (usesMax, limited, all) = (10, 16, 40)
        try withLab(nodes: 1) { lab, _ in
            func token(_ further: [String: JSONValue]) throws -> JoinToken {
                // Of one pool, in which there is room for 30.
                let arguments: [String: JSONValue] = ["gives": ["192.0.2.64/27"], "host": "10.88.0.21"]
                let made = try ControlClient.request(
                    JSONValue.self, path: "\(lab.directory.path)/i0.sock", command: "tokenCreate",
                    arguments: JSONValue.object(arguments.merging(further) { _, new in new }), daemon: "imsd")
                return try JoinToken.parse(try #require(made["token"]?.string))
            }
            let few = try token(["uses": .int(Int64(usesMax))])
            let any = try token([:])
            // Who makes a token gives it away later than all servers know of it.
            let isKnown = eventually(within: 10) {
                (0..<3).allSatisfy { server in
                    let path = "\(lab.directory.path)/i\(server).sock"
                    let list = try? ControlClient.request(JSONValue.self, path: path, command: "tokenList", daemon: "imsd")
                    return list?["tokens"]?.array?.count == 2
                }
            }
            #expect(isKnown)
            let history = LeaseHistory()
            let clients = ClusterClients(lab) { error in history.update { $0.violations.append("\(error)") } }
            for number in 0..<all {
                let node = try JoiningNode(number, number < limited ? few : any, isLimited: number < limited, issuer: lab.issuer.publicKey)
                clients.run {
                    var node = node
                    try node.run("10.88.1.\(number + 2)", ClusterLab.serverAddresses, history, seed: seed)
                }
            }
            var generator = SeededGenerator(seed: seed)
            let end = milliseconds() + Int64(seconds * 1000)
            var rounds: [String] = []
            while milliseconds() < end {
                rounds.append(try lab.suffer(300_000...1_500_000, &generator))
                if !eventually(within: 30, { (0..<3).allSatisfy { lab.isWell($0) } }) {
                    history.update { $0.violations.append("30 s after \"\(rounds.last ?? "")\" all is not well") }
                    break
                }
                usleep(400_000)
            }
            history.stop()
            clients.wait()
            let found = history.now
            print(
                """
                leases: \(rounds.joined(separator: ", ")); \(found.joins) joins, \(found.again) asked again, \(found.givenBack) given back, \
                \(found.usedUp) found nothing left, \(found.later) told to come later, \(found.unanswered) unanswered
                """)
            let about = "seed \(seed), \(rounds)"
            #expect(found.violations.isEmpty, "\(about): \(found.violations.prefix(20))\n\(lab.logs)")
            #expect(history.overlaps.isEmpty, "\(about): \(history.overlaps.prefix(20))")
            #expect(found.users.count <= usesMax, "\(about): \(found.users.count) nodes used a token for \(usesMax)")
            // The end of it is what all servers say: who has what, and how often the tokens were used. Of keys that are used no more there may be leases as
            // well, of Joins that were done after all.
            let held = found.holdings.filter { $0.until == nil }
            #expect(Set(held.map(\.hoa)).count == held.count, "\(about)")
            for server in 0..<3 {
                let path = "\(lab.directory.path)/i\(server).sock"
                var homes: [String: String] = [:]
                let isSame = eventually(within: 10) {
                    let answer = try? ControlClient.request(
                        JSONValue.self, path: path, command: "enrolled", arguments: ["count": 1000] as JSONValue, daemon: "imsd")
                    homes = [:]
                    for each in answer?["homes"]?.array ?? [] where each["by"]?.string != "hand" {
                        homes[each["home"]?.string ?? ""] = each["publicKey"]?.string
                    }
                    return held.allSatisfy { holding in
                        (try? JoiningNode.key(holding.key)).map { homes["\(holding.hoa)"] == KeyFile.write($0.publicKey) } ?? false
                    }
                }
                #expect(isSame, "\(about): server \(server) says otherwise than its nodes who has what: \(homes)")
                let tokens = try ControlClient.request(JSONValue.self, path: path, command: "tokenList", daemon: "imsd")["tokens"]?.array ?? []
                let uses = tokens.first { $0["id"]?.string == "\(few.id)" }?["uses"]?.int
                #expect(
                    uses == Int64(found.users.count),
                    "\(about): server \(server) counts \(String(describing: uses)) uses, \(found.users.count) nodes got something")
            }
            #expect(found.joins > all / 2 && found.givenBack > 10 && found.again > 50)
        }
    }
}

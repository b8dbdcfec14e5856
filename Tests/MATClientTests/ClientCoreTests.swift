import MATCore
import MATSignal
import SeededRandom
import Testing

@testable import MATClient

/// A home address, its node, and its two mapping servers, as a client of them sees it.
private struct World {
    let hoa = HomeAddress(IPAddress(ipv4: 0xC000_020A))
    let servers = [Endpoint(IPAddress(ipv4: 0xC633_6405), port: 6288), Endpoint(IPAddress(ipv4: 0xC633_6406), port: 6288)]
    let ims: SigningKey
    let node: SigningKey
    var now = Now(monotonic: MonotonicTime(nanoseconds: 1_000_000_000), wallMilliseconds: 1_800_000_000_000)
    var core = ClientCore(random: SeededGenerator(seed: 7))
    var id: ClientCore.FollowingID?
    /// What was told so far.
    var told: [WatchNews] = []
    var hasEnded = false
    /// Sent and not answered yet.
    var sent: [(message: SignalMessage, server: Endpoint)] = []
    var lookUps = 0

    init() throws {
        ims = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        node = try #require(SigningKey(seed: [UInt8](repeating: 2, count: 32)))
    }

    func certificate(by key: SigningKey? = nil) throws -> Certificate {
        let begin = 1_800_000_000_000 as UInt64
        return try #require(
            Certificate(issuing: hoa, nodeKey: node.publicKey, notBefore: begin - 1000, notAfter: begin + 86_400_000, with: key ?? ims))
    }

    func mapping(_ moa: UInt32?, sequence: UInt64, by key: SigningKey? = nil) throws -> SignedMapping {
        let locators = moa.map { [Locator(MobileAddress(IPAddress(ipv4: $0)))] } ?? []
        let record = MappingRecord(hoa: hoa, sequence: sequence, lifetime: 600, issued: now.wallMilliseconds, locators: locators)
        return try #require(record.signed(with: key ?? node))
    }

    mutating func perform(_ actions: [ClientCore.Action]) {
        for action in actions {
            switch action {
            case .lookUp: lookUps += 1
            case .send(let octets, let server):
                for case .message(let message, _) in SignalDatagram.decode(octets) { sent.append((message, server)) }
            case .tell(_, let news): told.append(news)
            case .end: hasEnded = true
            }
        }
    }

    mutating func begin(_ purpose: Following.Purpose) throws {
        let begun = core.begin(hoa, purpose)
        let (id, actions) = try #require(begun)
        self.id = id
        perform(actions)
    }

    mutating func names(_ result: IMSLookupResult? = nil) throws {
        let hosts = servers.enumerated().map { number, server in
            IMSHost(priority: UInt16(number), weight: 0, addresses: [server.address], port: server.port, target: .root)
        }
        let set = IMSSet(servers: hosts, keys: [ims.publicKey.octets], expires: now.monotonic + .seconds(60))
        perform(core.lookedUp(try #require(id), result ?? .found(set), now))
    }

    mutating func pass(_ time: Duration) {
        let end = now.monotonic + time
        while let due = core.nextDue, due <= end {
            advance(to: max(due, now.monotonic))
            perform(core.due(now))
        }
        advance(to: end)
    }

    private mutating func advance(to time: MonotonicTime) {
        now.wallMilliseconds += UInt64(max(0, (time - now.monotonic).millisecondsSaturated))
        now.monotonic = time
    }

    /// Takes the last question, as its server.
    mutating func takeQuery() throws -> (MAQuery, UInt32, Endpoint) {
        let last = sent.popLast()
        let (message, server) = try #require(last)
        guard case .maQuery(let query) = message.body else { throw VerificationFailure("no query: \(message.type)") }
        sent = []
        return (query, message.sequence, server)
    }

    mutating func receive(_ body: SignalMessage.Body, _ sequence: UInt32, from server: Endpoint) {
        perform(core.received(SignalMessage(sequence: sequence, body).octets, from: server, now))
    }

    /// The server wants a cookie, and answers who has one.
    mutating func answer(_ code: ResponseCode = .ok, _ mapping: SignedMapping? = nil, by key: SigningKey? = nil, subscribe: UInt32? = nil) throws {
        let (first, number, server) = try takeQuery()
        let cookie = Cookie(client: first.cookie.client, server: ServerCookie(head: 1 << 56, hash: 9))
        receive(.maAnswer(MAAnswer(code: .cookieRequired, cookie: cookie, hoa: nil)), number, from: server)
        let (second, next, again) = try takeQuery()
        #expect(second.cookie == cookie && again == server)
        let known = try certificate(by: key)
        receive(
            .maAnswer(
                MAAnswer(
                    code: code, cookie: cookie, hoa: hoa, mapping: mapping, certificate: mapping == nil ? nil : known, subscribe: subscribe,
                    lifetime: code == .notFound ? 10 : nil)), next, from: server)
    }

    /// - Returns: what the client answered, with the cookie that it gave.
    mutating func push(_ mapping: SignedMapping, _ cookie: Cookie, by key: SigningKey? = nil) throws -> MANotifyAck {
        let record = EnclosedRecord(mapping: mapping, certificate: .whole(try certificate(by: key)))
        receive(.maNotify(MANotify(cookie: cookie, record: record)), 77, from: servers[1])
        let last = sent.popLast()
        let (message, server) = try #require(last)
        guard case .maNotifyAck(let ack) = message.body else { throw VerificationFailure("no ack: \(message.type)") }
        #expect(message.sequence == 77 && server == servers[1] && ack.cookie.client == cookie.client)
        return ack
    }

    /// The place told last.
    var place: UInt32? {
        guard case .found(.registered(let mapping))? = told.last else { return nil }
        return mapping.record.locators.first?.moa.address.ipv4
    }
}

private let home: UInt32 = 0xCB00_7105
private let elsewhere: UInt32 = 0xCB00_7209

@Suite("A client's look-ups and watches")
struct ClientCoreTests {
    @Test("A look-up brings the cookie that the server wants, and ends with the place that the node has signed")
    func lookUp() throws {
        var world = try World()
        try world.begin(.once)
        try world.names()
        #expect(world.sent.count == 1 && world.sent[0].server == world.servers[0])
        try world.answer(.ok, try world.mapping(home, sequence: 5))
        #expect(world.place == home && world.hasEnded && world.core.count == 0)
    }

    @Test("A silent server is followed by the next; where all are silent the look-up says so, and not that the address is plain")
    func silence() throws {
        var world = try World()
        try world.begin(.once)
        try world.names()
        world.pass(.seconds(3))
        #expect(world.sent.filter { $0.server == world.servers[0] }.count == 3)
        #expect(world.sent.last?.server == world.servers[1])
        var other = world
        try other.answer(.ok, other.mapping(home, sequence: 5))
        #expect(other.place == home)
        world.pass(.seconds(10))
        guard case .failed(let failure)? = world.told.last else { throw VerificationFailure("\(world.told)") }
        #expect(failure.cause == .silence && world.hasEnded)
    }

    @Test("A server that refuses is followed by the next, and its words are told if that is silent")
    func refusal() throws {
        var world = try World()
        try world.begin(.once)
        try world.names()
        try world.answer(.notAuthoritative)
        #expect(world.sent.last?.server == world.servers[1])
        world.pass(.seconds(10))
        guard case .failed(let failure)? = world.told.last else { throw VerificationFailure("\(world.told)") }
        #expect(failure.cause == .refusal(.notAuthoritative))
    }

    @Test("A certificate that no key of the DNS has signed, and a record that another key has signed, are not believed")
    func forged() throws {
        let other = try #require(SigningKey(seed: [UInt8](repeating: 3, count: 32)))
        for (issuer, signer) in [(other, nil), (nil, other)] as [(SigningKey?, SigningKey?)] {
            var world = try World()
            try world.begin(.once)
            try world.names()
            try world.answer(.ok, world.mapping(home, sequence: 5, by: signer), by: issuer)
            guard case .failed(let failure)? = world.told.last else { throw VerificationFailure("\(world.told)") }
            #expect(failure.cause == .unverified)
        }
    }

    @Test("Only absence in the DNS makes a plain address: a failure does not, nor what can't be used, nor a server that knows no node")
    func plain() throws {
        let results: [(IMSLookupResult, WatchNews)] = [
            (.absent(until: .zero), .found(.plain)), (.failed("time-out"), .failed(LookUpFailure(.names, ""))),
            (.unusable("bogus"), .failed(LookUpFailure(.distrust, ""))),
        ]
        for (result, expected) in results {
            var world = try World()
            try world.begin(.once)
            try world.names(result)
            switch (world.told.last, expected) {
            case (.found(let place)?, .found(let wanted)): #expect(place == wanted)
            case (.failed(let failure)?, .failed(let wanted)): #expect(failure.cause == wanted.cause)
            default: Issue.record("\(result): \(world.told)")
            }
        }
        var world = try World()
        try world.begin(.once)
        try world.names()
        try world.answer(.notFound)
        #expect(world.told == [.found(.unregistered)])
    }

    @Test("A watch tells of a move that its server pushes under the watch's own cookie, and of nothing without it, older, or forged")
    func pushed() throws {
        var world = try World()
        try world.begin(.watch)
        try world.names()
        try world.answer(.ok, try world.mapping(home, sequence: 5), subscribe: 300)
        #expect(world.place == home && !world.hasEnded)

        let moved = try world.mapping(elsewhere, sequence: 6)
        var cookie = Cookie(client: 42)
        let wanted = try world.push(moved, cookie)
        #expect(wanted.code == .cookieRequired && world.place == home)
        cookie.server = wanted.cookie.server
        let taken = try world.push(moved, cookie)
        #expect(taken.code == .ok)
        #expect(world.place == elsewhere && world.told.count == 2)

        let old = try world.mapping(home, sequence: 5)
        let stale = try world.push(old, cookie)
        #expect(stale.code == .stale && stale.current == moved)
        let other = try #require(SigningKey(seed: [UInt8](repeating: 3, count: 32)))
        for (signer, issuer) in [(other, nil), (nil, other)] as [(SigningKey?, SigningKey?)] {
            let forged = try world.mapping(home, sequence: 9, by: signer)
            let ack = try world.push(forged, cookie, by: issuer)
            #expect(ack.code == .authenticationFailed)
        }
        #expect(world.place == elsewhere && world.told.count == 2)

        // An answer that comes late from another copy takes nothing back.
        world.pass(.seconds(150))
        try world.names()
        let (query, number, server) = try world.takeQuery()
        #expect(query.cookie.server != nil && query.certID != nil && query.subscribe != nil)
        let answer = MAAnswer(code: .ok, cookie: query.cookie, hoa: world.hoa, mapping: try world.mapping(home, sequence: 5))
        world.receive(.maAnswer(answer), number, from: server)
        #expect(world.place == elsewhere && world.told.count == 2)

        // Nobody's any more: the server is told so.
        world.core.end(try #require(world.id))
        let later = try world.mapping(home, sequence: 8)
        let unwanted = try world.push(later, cookie)
        #expect(unwanted.code == .notFound)
        let due = world.core.nextDue
        #expect(due == nil)
    }

    @Test("A watch asks again at half its subscription, every 30 s without one, and tells of what it sees only if it is another place")
    func polled() throws {
        for (subscribe, rest) in [(300, 150), (nil, 30)] as [(UInt32?, Int)] {
            var world = try World()
            try world.begin(.watch)
            try world.names()
            try world.answer(.ok, try world.mapping(home, sequence: 5), subscribe: subscribe)
            world.pass(.seconds(rest - 1))
            #expect(world.lookUps == 1)
            world.pass(.seconds(2))
            #expect(world.lookUps == 2)
            for (moa, sequence, count) in [(home, 6, 1), (elsewhere, 7, 2)] as [(UInt32, UInt64, Int)] {
                try world.names()
                let (query, number, server) = try world.takeQuery()
                let answer = MAAnswer(code: .ok, cookie: query.cookie, hoa: world.hoa, mapping: try world.mapping(moa, sequence: sequence))
                world.receive(.maAnswer(answer), number, from: server)
                #expect(world.place == moa && world.told.count == count)
                world.pass(.seconds(31))
            }
        }
    }

    @Test("A watch whose servers fall silent says so once, goes on asking, and tells the place when they are back; a withdrawal is told too")
    func comesBack() throws {
        var world = try World()
        try world.begin(.watch)
        try world.names()
        try world.answer(.ok, try world.mapping(home, sequence: 5))
        for _ in 0..<3 {
            world.pass(.seconds(31))
            try world.names()
            world.pass(.seconds(10))
        }
        #expect(world.told.count == 2)
        guard case .failed(let failure)? = world.told.last else { throw VerificationFailure("\(world.told)") }
        #expect(failure.cause == .silence)
        world.pass(.seconds(31))
        try world.names()
        try world.answer(.ok, world.mapping(home, sequence: 6))
        #expect(world.place == home && world.told.count == 3)
        world.pass(.seconds(31))
        try world.names()
        let (query, number, server) = try world.takeQuery()
        let gone = try world.mapping(nil, sequence: 7)
        world.receive(.maAnswer(MAAnswer(code: .ok, cookie: query.cookie, hoa: world.hoa, mapping: gone)), number, from: server)
        guard case .found(.withdrawn(let mapping))? = world.told.last else { throw VerificationFailure("\(world.told)") }
        #expect(mapping.mapping == gone)
    }

    @Test("What is followed is bounded, and what is given up makes room")
    func bounded() throws {
        var world = try World()
        var last: ClientCore.FollowingID?
        for _ in 0..<ClientCore.followingsMax { last = world.core.begin(world.hoa, .watch)?.0 }
        let refused = world.core.begin(world.hoa, .watch)
        #expect(refused == nil)
        world.core.end(try #require(last))
        let taken = world.core.begin(world.hoa, .once)
        #expect(taken != nil)
    }
}

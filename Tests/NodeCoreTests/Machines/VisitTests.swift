import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Visited homes, with a test that plays DNS, IMS and programs (protocol.md section 12, "Visitors").
@Suite("Visits")
struct VisitTests {
    private let homeAuthority = TestAuthority(seed: 201)
    private let network = TestAuthority(seed: 203)
    private let ims = Endpoint(ip("203.0.113.53"), port: SignalPort.ims)
    private let first = VisitingProgram(1), second = VisitingProgram(2)
    private let hoa = home("203.0.113.129")
    private var clock = VirtualClock()

    private final class Played {
        var visits = Visits(random: SeededGenerator(seed: 1))
        var lookUps: [HomeAddress] = []
        var sent: [(message: SignalMessage, from: IPAddress)] = []
        var entered: [HomeIdentity] = []
        var prolonged: [Certificate] = []
        var left: [HomeAddress] = []
        var answers: [VisitingProgram: VisitAnswer] = [:]
        var logs: [String] = []

        func perform(_ actions: [Visits.Action]) {
            for action in actions {
                switch action {
                case .lookUp(let name): lookUps.append(name)
                case .send(let octets, let own, _):
                    for case .message(let message, _) in SignalDatagram.decode(octets) { sent.append((message, own)) }
                case .enter(let identity): entered.append(identity)
                case .prolonged(let certificate): prolonged.append(certificate)
                case .leave(let hoa): left.append(hoa)
                case .answer(let program, let answer): answers[program] = answer
                case .log(_, let text): logs.append(text)
                }
            }
        }
    }

    private let played = Played()
    private var own: IPAddress { ip("203.0.113.9") }
    private var identity: HomeIdentity {
        let enrolled = homeAuthority.enrol(home("198.51.100.1"), seed: 11)
        return HomeIdentity(hoa: enrolled.hoa, key: enrolled.key, certificate: enrolled.certificate)
    }

    private func around(_ places: [(String, String?)] = [("203.0.113.9", nil)], taken: [String] = []) -> Visit.Surroundings {
        Visit.Surroundings(
            places: places.map { Visit.Place(own: ip($0.0), seen: $0.1.map(ip)) }, home: identity, isTaken: { taken.map(ip).contains($0) })
    }

    private func found(_ authority: TestAuthority? = nil) -> ServerLookup {
        .found(ServerSet(endpoints: [ims], keys: [(authority ?? network).key.publicKey], expires: clock.time + .seconds(300)))
    }

    private func ask(_ program: VisitingProgram, _ around: Visit.Surroundings? = nil) {
        played.perform(played.visits.request(program, .ipv4, around ?? self.around()))
    }

    private func looked(_ name: String, _ result: ServerLookup, _ around: Visit.Surroundings? = nil) {
        played.perform(played.visits.lookedUp(home(name), result, around ?? self.around(), clock.now))
    }

    /// The IMS answers the last request.
    private func answer(_ body: (Cookie) -> SignalMessage.Body, from own: IPAddress? = nil) throws {
        let asked = try #require(played.sent.last)
        played.sent.removeLast()
        let cookie = Cookie(client: asked.message.cookie.client, server: ServerCookie(head: 1, hash: 2))
        let message = SignalMessage(sequence: asked.message.sequence, body(cookie))
        let actions = played.visits.received(message, from: ims, to: asked.from, clock.now)
        played.perform(try #require(actions))
    }

    private func giveCookie() throws {
        let asked = try #require(played.sent.last)
        let seen = Endpoint(asked.from, port: SignalPort.node)
        try answer { .bindAck(BindAck(code: .ok, cookie: $0, observed: seen)) }
    }

    private func certificate(seconds: UInt64 = 3600, of authority: TestAuthority? = nil, for key: PublicKey? = nil) throws -> Certificate {
        let now = clock.now.wallMilliseconds
        return try #require(
            Certificate(
                issuing: hoa, nodeKey: key ?? identity.key.publicKey, notBefore: now, notAfter: now + seconds * 1000,
                with: (authority ?? network).key))
    }

    private func grant(_ certificate: Certificate? = nil) throws {
        let certificate = try certificate ?? self.certificate()
        try answer { .joinReply(JoinReply(code: .ok, cookie: $0, granted: JoinReply.Grant(hoa, certificate, lifetime: 3600))) }
    }

    /// As far as to be registered.
    private func visit(_ program: VisitingProgram) throws {
        ask(program)
        looked("203.0.113.9", found())
        try giveCookie()
        try grant()
        looked("\(hoa)", found())
        played.perform(played.visits.registered(hoa, clock.time))
    }

    private mutating func advance(_ duration: Duration, _ around: Visit.Surroundings? = nil) {
        let end = clock.time + duration
        while let next = played.visits.nextDue, next <= end {
            clock.advance(to: max(next, clock.time))
            let around = around ?? self.around()
            played.perform(played.visits.due(around, clock.now))
        }
        clock.advance(to: end)
    }

    // MARK: What a program gets

    @Test("A program gets an address once the network's IMS has given one, the DNS confirms it, and its record is registered there")
    func given() throws {
        ask(first)
        #expect(played.lookUps == [home("203.0.113.9")])
        looked("203.0.113.9", found())
        guard case .bind? = played.sent.last?.message.body else { return #expect(played.sent.count == 1) }
        try giveCookie()
        let join = try #require(played.sent.last)
        guard case .join(let asked) = join.message.body else { return #expect(played.sent.isEmpty) }
        #expect(asked.title == .visitor(identity.hoa, identity.certificate) && asked.wanted == IPPrefix("0.0.0.0/0") && asked.lifetime == 3600)
        #expect(try #require(asked.statement(to: network.key.publicKey)).isSigned(asked.signature))
        try grant()
        #expect(played.lookUps.last == hoa && played.entered.isEmpty)
        looked("\(hoa)", found())
        #expect(played.entered.map(\.hoa) == [hoa] && played.entered.first?.isVisited == true && played.answers.isEmpty)
        played.perform(played.visits.registered(hoa, clock.time))
        #expect(played.answers == [first: .address(hoa)])
        // Another program in the same network gets it at once, and a second wish over one connection gets nothing.
        ask(second)
        #expect(played.answers[second] == .address(hoa) && played.visits.held.map(\.programs) == [2])
        ask(second)
        guard case .refused? = played.answers[second] else { return #expect(played.answers.count == 1) }
    }

    @Test("Behind a translator the network is that of the address that others see")
    func translated() throws {
        let inside = around([("10.0.0.5", "203.0.113.77")])
        ask(first, inside)
        #expect(played.lookUps == [home("203.0.113.77")])
        looked("203.0.113.77", found(), inside)
        #expect(played.sent.map(\.from) == [ip("10.0.0.5")])
    }

    @Test("The names of all own addresses are asked for, and the reason of the last is told")
    func nobody() throws {
        let two = around([("203.0.113.9", nil), ("192.0.2.9", nil)])
        ask(first, two)
        looked("203.0.113.9", .absent(lifetime: .seconds(60)), two)
        looked("192.0.2.9", .absent(lifetime: .seconds(60)), two)
        #expect(played.lookUps == [home("203.0.113.9"), home("192.0.2.9")])
        #expect(played.answers[first] == .refused("the network at 192.0.2.9 has no IMS: the DNS names none for it"))
        #expect(played.visits.isEmpty)
    }

    @Test("What the IMS says against it reaches the program, and so does its silence")
    mutating func refused() throws {
        ask(first)
        looked("203.0.113.9", found())
        try giveCookie()
        try answer { .joinReply(JoinReply(code: .refused, cookie: $0, text: "this server takes no visitors")) }
        guard case .refused(let reason)? = played.answers[first] else { return #expect(played.answers.count == 1) }
        #expect(reason.contains("this server takes no visitors"))
        ask(second)
        looked("203.0.113.9", found())
        advance(.seconds(30))
        #expect(played.answers[second] == .refused("the IMS of this network does not answer") && played.visits.isEmpty)
    }

    @Test("An address under another's certificate, one whose zone names another IMS, and one that is somebody's already are not taken")
    func notTaken() throws {
        let authority = TestAuthority(seed: 204)
        for (number, certificate) in [try certificate(of: authority), try certificate(for: authority.key.publicKey)].enumerated() {
            let program = VisitingProgram(UInt64(10 + number))
            ask(program)
            looked("203.0.113.9", found())
            try giveCookie()
            try grant(certificate)
            guard case .refused? = played.answers[program] else { return #expect(played.answers.isEmpty) }
        }
        let taken = around(taken: ["\(hoa)"])
        for (number, (result, around)) in [(found(authority), around()), (.absent(lifetime: .seconds(5)), around()), (found(), taken)].enumerated() {
            let program = VisitingProgram(UInt64(20 + number))
            ask(program)
            looked("203.0.113.9", found())
            try giveCookie()
            try grant()
            looked("\(hoa)", result, around)
            guard case .refused? = played.answers[program] else { return #expect(played.answers.isEmpty) }
        }
        #expect(played.entered.isEmpty && played.visits.isEmpty)
    }

    @Test("A record that the IMS does not take ends the visit")
    mutating func unregistered() throws {
        ask(first)
        looked("203.0.113.9", found())
        try giveCookie()
        try grant()
        looked("\(hoa)", found())
        advance(.seconds(11))
        guard case .refused? = played.answers[first] else { return #expect(played.answers.count == 1) }
        #expect(played.left == [hoa])
    }

    // MARK: Its life

    @Test("The lease is prolonged at half its time, from where the node is by then")
    mutating func prolonged() throws {
        try visit(first)
        let moved = around([("192.0.2.9", nil)])
        advance(.seconds(1801), moved)
        #expect(played.sent.last?.from == ip("192.0.2.9"))
        try giveCookie()
        guard case .join(let join)? = played.sent.last?.message.body else { return #expect(played.sent.isEmpty) }
        #expect(join.wanted == IPPrefix(hoa.address))
        let longer = try certificate()
        try grant(longer)
        #expect(played.prolonged == [longer] && played.left.isEmpty)
        // Not at all: it ends when the certificate does.
        advance(.seconds(3700), moved)
        #expect(played.left == [hoa] && played.logs.contains { $0.contains("has ended") })
    }

    @Test("When the last program is done the address is kept for half a minute, then withdrawn and given back")
    mutating func givenBack() throws {
        try visit(first)
        ask(second)
        played.visits.release(first, clock.time)
        advance(.seconds(60))
        #expect(played.left.isEmpty, "the other program has it")
        played.visits.release(second, clock.time)
        advance(.seconds(20))
        ask(first)
        #expect(played.answers[first] == .address(hoa))
        advance(.seconds(60))
        #expect(played.left.isEmpty, "a program came within that time")
        played.visits.release(first, clock.time)
        advance(.seconds(31))
        #expect(played.left == [hoa])
        played.perform(played.visits.left(hoa, sequence: 77, around(), clock.now))
        try giveCookie()
        guard case .imsUpdate(let update)? = played.sent.last?.message.body else { return #expect(played.sent.isEmpty) }
        #expect(update.record.mapping.record.isWithdrawal && update.record.mapping.record.sequence > 77)
        try answer { .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: $0)) }
        guard case .join(let join)? = played.sent.last?.message.body else { return #expect(played.sent.isEmpty) }
        #expect(join.lifetime == 0 && join.wanted == IPPrefix(hoa.address))
        let last = try certificate()
        try answer { .joinReply(JoinReply(code: .ok, cookie: $0, granted: JoinReply.Grant(hoa, last, lifetime: 0))) }
        #expect(played.visits.isEmpty && played.logs.last == "the visited home \(hoa) is given back")
    }

    @Test("In another network a program gets another address, while the earlier ones' stays")
    func another() throws {
        try visit(first)
        let moved = around([("192.0.2.9", nil)])
        ask(second, moved)
        #expect(played.lookUps.last == home("192.0.2.9") && played.answers[second] == nil && played.visits.held.map(\.hoa) == [hoa])
    }

    @Test("Programs that start from a visited home have it after the one that asked is gone, until the last of them has ended")
    mutating func steered() throws {
        let starting = VisitingProgram.starting(connection: 1, .ipv4)
        try visit(starting)
        #expect(played.answers == [starting: .address(hoa)])
        played.visits.steered(from: [hoa, home("198.51.100.1")], clock.time)
        played.visits.release(starting, clock.time)
        advance(.seconds(600))
        #expect(played.left.isEmpty && played.visits.held.map(\.programs) == [1])
        played.visits.steered(from: [home("198.51.100.1")], clock.time)
        advance(.seconds(31))
        #expect(played.left == [hoa])
    }

    @Test("What is awaited in two families is one answer: the addresses there are, or the reasons why there is none")
    func awaited() {
        let (address, reason) = (VisitAnswer.address(hoa), VisitAnswer.refused("nobody serves it"))
        var both = AwaitedHomes([.ipv4, .ipv6])
        let outcomes = [both.answered(.ipv6, reason), both.answered(.ipv6, reason), both.answered(.ipv4, address)]
        #expect(outcomes == [nil, nil, .homes([hoa])])
        var neither = AwaitedHomes([.ipv4, .ipv6])
        let refusals = [neither.answered(.ipv4, reason), neither.answered(.ipv6, reason)]
        #expect(refusals == [nil, .refused("nobody serves it")])
    }

    // MARK: After an agent that was killed

    private func takeOver() -> [HomeAddress] {
        let identity = identity
        let unkept = played.visits.takeOver([hoa], home: { $0 == .ipv4 ? identity : nil }, clock.time)
        played.visits.steered(from: [hoa], clock.time)
        return unkept
    }

    @Test("A home that programs of an earlier run start from is asked for again by its name, and gone on with until they end")
    mutating func takenOver() throws {
        #expect(takeOver().isEmpty && played.visits.isBeingTakenOver(hoa.address))
        // Without an address, and without the DNS, it waits.
        advance(.seconds(3), around([]))
        looked("\(hoa)", .failed("no resolver answers"), around([]))
        advance(.seconds(3))
        #expect(played.lookUps == [hoa, hoa] && played.left.isEmpty)
        looked("\(hoa)", found())
        try giveCookie()
        guard case .join(let join)? = played.sent.last?.message.body else { return #expect(played.sent.isEmpty) }
        #expect(join.wanted == IPPrefix(hoa.address) && join.title == .visitor(identity.hoa, identity.certificate))
        try grant()
        #expect(played.entered.map(\.hoa) == [hoa] && !played.visits.isBeingTakenOver(hoa.address))
        played.perform(played.visits.registered(hoa, clock.time))
        #expect(played.answers.isEmpty)
        advance(.seconds(600))
        #expect(played.left.isEmpty)
        played.visits.steered(from: [], clock.time)
        advance(.seconds(31))
        #expect(played.left == [hoa])
    }

    @Test("It is given up when its IMS refuses it, and when there is no answer for ten minutes")
    mutating func notTakenOver() throws {
        _ = takeOver()
        advance(.zero)
        looked("\(hoa)", found())
        try giveCookie()
        try answer { .joinReply(JoinReply(code: .refused, cookie: $0, text: "the lease is another's")) }
        #expect(played.left == [hoa] && played.visits.isEmpty && played.logs.last?.contains("the lease is another's") == true)
        _ = takeOver()
        for _ in 0..<400 where !played.visits.isEmpty {
            advance(.seconds(2))
            if played.lookUps.last == hoa { looked("\(hoa)", .failed("no resolver answers")) }
        }
        #expect(played.left == [hoa, hoa])
    }

    @Test("Who asks in a network whose address the node has already gets that one, also while it is being taken over")
    mutating func united() throws {
        try visit(first)
        let other = around([("203.0.113.10", nil)])
        ask(second, other)
        looked("203.0.113.10", found(), other)
        try giveCookie()
        try grant()
        #expect(played.answers[second] == .address(hoa) && played.entered.count == 1 && played.visits.held.map(\.programs) == [2])

        played.visits = Visits(random: SeededGenerator(seed: 2))
        played.answers = [:]
        _ = takeOver()
        ask(first)
        looked("203.0.113.9", found())
        try giveCookie()
        try grant()
        #expect(played.answers.isEmpty && played.visits.held.map(\.programs) == [2])
        advance(.zero)
        looked("\(hoa)", found())
        try giveCookie()
        try grant()
        played.perform(played.visits.registered(hoa, clock.time))
        #expect(played.answers == [first: .address(hoa)])
    }

    @Test("There are no more visits and programs than bounds say")
    func bounds() throws {
        for number in 0..<Visits.visitsMax { ask(VisitingProgram(UInt64(100 + number)), around([("192.0.2.\(10 + number)", nil)])) }
        // Each was asked for in its own network, but none has found one yet: those that come now wait with the first.
        #expect(played.lookUps.count == 1)
        for number in 0..<(Visits.programsMax + 10) { ask(VisitingProgram(UInt64(1000 + number))) }
        #expect(played.answers.count == 10 + Visits.visitsMax)
    }
}

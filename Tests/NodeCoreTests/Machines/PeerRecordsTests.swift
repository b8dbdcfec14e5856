import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Who becomes a peer and by which record, without a node around it.
@Suite("Peers' records") struct PeerRecordsTests {
    private let hoa: HomeAddress = home("203.0.113.1")
    private let first: MobileAddress = moa("198.18.0.10")
    private let second: MobileAddress = moa("198.18.0.11")
    private let authority = TestAuthority(seed: 202)
    private let now = VirtualClock().now
    private let wall = VirtualClock.wallAtStart
    private var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
    private var records: PeerRecords
    private var peers = PeerTable()
    private let addresses: UsableAddresses

    init() {
        configuration.peersMax = 2
        records = PeerRecords(configuration)
        addresses = UsableAddresses(configuration)
    }

    private func later(_ time: Duration) -> Now { Now(monotonic: now.monotonic + time, wallMilliseconds: now.wallMilliseconds) }

    private mutating func offer(
        _ places: [MobileAddress], _ sequence: UInt64, of hoa: HomeAddress? = nil, isConfirmed: Bool = true, hasPath: Bool = true,
        passed: MobileAddress? = nil, at time: Now? = nil
    ) throws -> [PeerRecords.Action] {
        let offered = try Peers.offered(hoa ?? self.hoa, at: places.map(\.address), sequence: sequence)
        return records.offer(
            offered, for: hoa ?? self.hoa, isConfirmed: isConfirmed, hasPath: hasPath, hasPassed: { $0 == passed }, in: &peers, addresses,
            now: time ?? now
        ).filter { if case .log = $0 { false } else { true } }
    }

    @Test("A new peer is entered while there is room, and what passed untranslated from its places is remembered with them")
    mutating func entered() throws {
        let record = try Peers.offered(hoa, at: [first.address, second.address], sequence: 1).record
        #expect(try offer([first, second], 1, passed: second) == [.entered(hoa), .listed(record), .arrange(hoa), .hearEarly(hoa)])
        #expect(peers[hoa]?.locators.has(second, .guarded) == true && peers[hoa]?.locators.has(first, .guarded) == false)
        #expect(peers.nextDue != nil, "it is polled")
        _ = try offer([first], 1, of: home("203.0.113.2"))
        #expect(try offer([first], 1, of: home("203.0.113.3")).isEmpty && peers.count == 2)
    }

    @Test("Strangers that want to be peers never take the place of one: where there is no room they are not entered until an idle one is forgotten")
    mutating func crowd() throws {
        let others = (3...200).map { home("203.0.113.\($0)") }
        _ = try offer([first], 1)
        _ = try offer([second], 1, of: home("203.0.113.2"))
        for other in others { #expect(try offer([moa("198.18.1.1")], 1, of: other).isEmpty) }
        #expect(peers[hoa]?.lists(first) == true && peers[home("203.0.113.2")]?.lists(second) == true && peers.count == 2)
        peers.remove(home("203.0.113.2"))
        #expect(try offer([moa("198.18.1.1")], 1, of: others[0]).first == .entered(others[0]))
    }

    @Test("A newer record is in force at once; a peer that moved is told of us again, and the same record costs nothing while there is a path")
    mutating func newer() throws {
        _ = try offer([first], 1)
        let moved = try offer([second], 2, isConfirmed: false)
        #expect(moved.suffix(3) == [.arrange(hoa), .hearEarly(hoa), .tellAgain(hoa)] && peers[hoa]?.lists(second) == true)
        #expect(try !offer([second], 3, isConfirmed: false).contains(.tellAgain(hoa)), "the same place")
        #expect(try offer([second], 3) == [.arrange(hoa)], "confirmed")
        #expect(try offer([second], 3).isEmpty && offer([second], 3, hasPath: false) == [.arrange(hoa)])
        #expect(try offer([first], 3).isEmpty && offer([first], 2).isEmpty, "a conflicting one, and an old one of a confirmed record")
    }

    @Test("An older record from the IMS has it asked again in a second, and wins after 3 s if the new place does not answer")
    mutating func refuted() throws {
        _ = try offer([first], 1)
        _ = try offer([second], 5, isConfirmed: false)
        #expect(try offer([first], 2) == [.arrange(hoa)] && peers.nextDue == now.monotonic + .seconds(1))
        #expect(records.doubt(hoa, in: &peers, now: now.monotonic + .milliseconds(2999)).isEmpty)
        #expect(records.doubt(hoa, in: &peers, now: now.monotonic + .seconds(3)).last == .arrange(hoa))
        #expect(peers[hoa]?.lists(first) == true && peers[hoa]?.isProvisional == false)
        #expect(records.undo(hoa, "again", in: &peers).isEmpty, "there is nothing to go back to")
    }

    @Test("The silence of its IMS changes nothing, but a record that waits for confirmation is asked for again in 2 s")
    mutating func silent() throws {
        _ = try offer([first], 1)
        let poll = peers.nextDue
        #expect(records.silent(hoa, in: &peers, now: now.monotonic).count == 1 && peers.nextDue == poll)
        _ = try offer([second], 2, isConfirmed: false)
        _ = records.silent(hoa, in: &peers, now: now.monotonic)
        #expect(peers.nextDue == now.monotonic + .seconds(2) && peers[hoa]?.lists(second) == true)
    }

    @Test("A poll waits for its turn, which nobody else gets, and a peer without packets for long is forgotten")
    mutating func polls() throws {
        _ = try offer([first], 1)
        _ = peers.takeDue(now.monotonic + .seconds(60))
        let turn = now.monotonic + .seconds(1)
        #expect(records.due(hoa, in: &peers, turn: turn, now: now) == .wait && peers.nextDue == turn && peers[hoa]?.hasPollTurn == true)
        #expect(records.due(hoa, in: &peers, turn: turn + .seconds(9), now: later(.seconds(1))) == .poll && peers[hoa]?.hasPollTurn == false)
        #expect(peers.nextDue.map { $0 > turn } == true)
        let end = later(configuration.peerIdleMax)
        #expect(records.due(hoa, in: &peers, turn: end.monotonic, now: end) == .forget)
        peers.update(hoa) { _ = $0.counted(7, now: end.monotonic) }
        #expect(records.due(hoa, in: &peers, turn: end.monotonic, now: end) == .poll)
        #expect(records.due(home("203.0.113.9"), in: &peers, turn: end.monotonic, now: end) == .wait)
    }

    // MARK: Answers of its IMS

    private func answer(_ code: ResponseCode, _ record: CertifiedMapping? = nil, withCertificate: Bool = true, lifetime: UInt32? = nil) -> MAAnswer {
        MAAnswer(
            code: code, cookie: Cookie(client: 1), hoa: hoa, mapping: record?.mapping, certificate: withCertificate ? record?.certificate : nil,
            lifetime: lifetime)
    }

    private func judge(_ answer: MAAnswer, _ peer: Peer? = nil, keys: [PublicKey]?) -> PeerRecords.OnAnswer {
        PeerRecords.judge(answer, about: hoa, peer, keys: { _ in keys }, now: now)
    }

    @Test("An answer's record is believed if a key of the DNS certifies it; without keys they are asked for")
    func believed() throws {
        let record = authority.enrol(hoa, seed: 12).record([first.address], sequence: wall)
        let offered = OfferedRecord(record.mapping, under: record.certificate)
        #expect(judge(answer(.ok, record), keys: [authority.key.publicKey]) == .believed(offered))
        #expect(judge(answer(.ok, record), keys: nil) == .keysNeeded(offered.prefix))
        guard case .unbelieved = judge(answer(.ok, record), keys: []) else {
            Issue.record("no key certifies it")
            return
        }
        // The record in force was verified before; one under the certificate that is known needs not bring it again.
        let peer = Peer(offered, hoa: hoa, isConfirmed: true, now: now.monotonic)
        #expect(judge(answer(.ok, record), peer, keys: nil) == .believed(offered))
        let next = authority.enrol(hoa, seed: 12).record([second.address], sequence: wall + 1)
        #expect(
            judge(answer(.ok, next, withCertificate: false), peer, keys: [authority.key.publicKey])
                == .believed(OfferedRecord(next.mapping, underKnownOf: peer)))
        #expect(judge(answer(.ok), keys: nil) == .refused("the answer of its IMS has no mapping or no certificate", isDenial: false))
    }

    @Test(
        "An IMS that knows no mapping is believed for as long as it says, 300 s at most, and 5 s if it does not",
        arguments: [(nil, 5), (60, 60), (9000, 300)] as [(UInt32?, Int64)])
    func absent(_ lifetime: UInt32?, _ seconds: Int64) {
        #expect(judge(answer(.notFound, lifetime: lifetime), keys: nil) == .absent(for: .seconds(seconds)))
    }

    @Test("Only code 6 is a denial of the peer itself")
    func refusals() {
        for code: ResponseCode in [.authenticationFailed, .tryLater, .refused, .notAuthoritative] {
            #expect(judge(answer(code), keys: nil) == .refused("its IMS answers \(code)", isDenial: code == .authenticationFailed))
        }
    }
}

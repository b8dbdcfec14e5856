import MATCore
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCore

@Suite("Notifies: look-ups, queries, confirmations")
struct NotifyMachinesTests {
    private let hoa = Sample.other.hoa
    private let record = Sample.other.record([ip("198.51.100.7")], sequence: Sample.wall)
    private var name: IPPrefix { IPPrefix(hoa.address) }

    private func pending(_ certified: CertifiedMapping?, of hoa: HomeAddress, from source: String = "198.51.100.7")
        -> PendingNotify
    {
        let request = Sample.request(.haNotify, from: source)
        let key = NotifyKey(source: request.source, sequence: request.sequence, hoa: hoa, peerHoA: Sample.own.hoa)
        return PendingNotify(key: key, request: request, enclosed: certified.map { .unchecked($0) } ?? .none)
    }

    private func codes(_ actions: [NotifyAction]) -> [ResponseCode] {
        actions.compactMap { if case .reply(let reply) = $0 { SignalMessage(sequence: 1, reply.body).code } else { nil } }
    }

    @Test("A name is asked for once, all wait for its one answer, and it is known until its time is over")
    func lookUps() throws {
        var lookUps = LookUps()
        let (limits, start) = (IMSLimits(), Sample.now().monotonic)
        guard case .ask = lookUps.wanted(name, for: home("10.0.0.2"), limits, start) else { throw UnexpectedEnd() }
        guard case .waits = lookUps.wanted(name, for: home("10.0.0.1"), limits, start) else { throw UnexpectedEnd() }
        #expect(lookUps.ended(name, .failed("SERVFAIL"), start) == [home("10.0.0.1"), home("10.0.0.2")])
        #expect(lookUps.ended(name, .failed("SERVFAIL"), start).isEmpty, "nobody waits")
        guard case .known = lookUps.wanted(name, for: hoa, limits, start + .seconds(1)) else { throw UnexpectedEnd() }
        guard case .ask = lookUps.wanted(name, for: hoa, limits, start + .seconds(2)) else { throw UnexpectedEnd() }
    }

    @Test("A full table of look-ups gives up what is known, and not what is being asked")
    func fullLookUps() throws {
        var limits = IMSLimits()
        limits.lookUpsMax = 2
        var lookUps = LookUps()
        let start = Sample.now().monotonic
        for number in 1...2 { _ = lookUps.wanted(IPPrefix(ip("10.0.1.\(number)")), for: hoa, limits, start) }
        guard case .known(.failed) = lookUps.wanted(name, for: hoa, limits, start) else { throw UnexpectedEnd() }
        _ = lookUps.ended(IPPrefix(ip("10.0.1.1")), .failed("SERVFAIL"), start)
        guard case .ask = lookUps.wanted(name, for: hoa, limits, start) else { throw UnexpectedEnd() }
        #expect(lookUps.count == 2)
    }

    @Test("A server that has never answered gets two tries, one that has gets five; the next is asked too from the third on")
    func tries() {
        let servers = [1, 2, 3].map { Endpoint(ip("203.0.113.\($0)"), port: SignalPort.ims) }
        func asked(_ known: KnownServers) -> [Int] {
            var (queries, random) = (UpstreamQueries(), Sample.random())
            var result: [Int] = []
            var outcome = queries.begin(hoa, servers, known, &random, Sample.now())
            while case .ask(let targets, _) = outcome {
                result.append(targets.count)
                guard let next = queries.nextDeadline,
                    let due = queries.due(known, Now(monotonic: next, wallMilliseconds: Sample.wall))
                else { break }
                outcome = due.outcome
            }
            return result
        }
        var known = Sample.servers()
        #expect(asked(known) == [1, 1, 2, 2])
        known.heard(from: servers[0].address)
        #expect(asked(known) == [1, 1, 2, 2, 2])
    }

    @Test("Only an answer of a server that was asked, to that question and with our cookie, counts")
    func answers() throws {
        var (queries, random) = (UpstreamQueries(), Sample.random())
        let known = Sample.servers()
        let server = Endpoint(ip("203.0.113.1"), port: SignalPort.ims)
        guard case .ask(_, let sequence) = queries.begin(hoa, [server], known, &random, Sample.now()) else {
            throw UnexpectedEnd()
        }
        let cookie = Cookie(client: known.cookie(for: KnownServers.Peer(endpoint: server, local: nil)).client)
        let answer = MAAnswer(code: .notFound, cookie: cookie, hoa: hoa)
        #expect(queries.answered(answer, sequence &+ 1, from: server, known) == nil)
        #expect(queries.answered(answer, sequence, from: Endpoint(ip("203.0.113.2"), port: SignalPort.ims), known) == nil)
        #expect(
            queries.answered(
                MAAnswer(code: .notFound, cookie: Cookie(client: cookie.client ^ 1), hoa: hoa), sequence, from: server, known)
                == nil)
        #expect(
            queries.answered(MAAnswer(code: .notFound, cookie: cookie, hoa: home("10.9.9.9")), sequence, from: server, known)
                == nil)
        #expect(queries.answered(answer, sequence, from: server, known)?.hoa == hoa)
        queries.end(hoa)
        #expect(queries.answered(answer, sequence, from: server, known) == nil && queries.nextDeadline == nil)
    }

    @Test("A source has its share of inquiries, and ending one makes room")
    func inquiries() {
        var inquiries = Inquiries(perSecond: 150)
        let (limits, source) = (IMSLimits(), IPPrefix(ip("198.51.100.7")))
        for _ in 0..<limits.inquiriesPerSourceMax { #expect(inquiries.begin(source, limits, Sample.now().monotonic) == nil) }
        #expect(inquiries.begin(source, limits, Sample.now().monotonic) != nil)
        #expect(inquiries.begin(IPPrefix(ip("198.51.100.8")), limits, Sample.now().monotonic) == nil)
        inquiries.end(source)
        #expect(inquiries.begin(source, limits, Sample.now().monotonic) == nil)
    }

    @Test("What is enclosed is believed when it verifies, and confirmed when IMS_MN answers the same")
    func confirmation() throws {
        var (confirmations, random) = (Confirmations(IMSLimits()), Sample.random())
        let (view, now) = (Sample.view(), Sample.now())
        guard case .work(let first) = confirmations.notified(pending(record, of: hoa), view, &random, now) else {
            throw UnexpectedEnd()
        }
        #expect(first.count == 1 && confirmations.count == 1)
        let found = confirmations.resolved(name, .found(Sample.set()), view, &random, now)
        var sequence: UInt32?
        var checks = 0
        for action in found {
            if case .ask(_, let servers, let number) = action, servers.count == 1 { sequence = number }
            if case .verify(_, .notify, _) = action { checks += 1 }
        }
        #expect(checks == 1)
        let key = pending(record, of: hoa).key
        let held = confirmations.verified(key, nil, view)
        #expect(
            codes(held) == [.ok]
                && held.contains { if case .remember(record, isConfirmed: false, _, _) = $0 { true } else { false } })
        // IMS_MN.
        let remembering = Sample.view(remembering: [(record, isConfirmed: false)])
        let server = Endpoint(ip("203.0.113.99"), port: SignalPort.ims)
        let cookie = Cookie(client: view.servers.cookie(for: KnownServers.Peer(endpoint: server, local: nil)).client)
        let answer = MAAnswer(code: .ok, cookie: cookie, hoa: hoa, mapping: record.mapping, certificate: record.certificate)
        let asked = try #require(sequence)
        let answered = confirmations.answered(answer, asked, from: server, remembering, &random, now) ?? []
        #expect(answered.contains { if case .verify(_, .truth, source: nil) = $0 { true } else { false } })
        let concluded = confirmations.verified(truth: record, of: hoa, nil, remembering, &random, now)
        #expect(concluded.contains { if case .remember(record, isConfirmed: true, _, _) = $0 { true } else { false } })
        #expect(!concluded.contains { if case .tell = $0 { true } else { false } }, "who was told was told the truth")
        #expect(confirmations.isEmpty && !confirmations.hasInquiries && confirmations.nextDeadline == nil)
    }

    @Test("Who waits is answered when there is no time for the check, when DNS fails, and when IMS_MN keeps silent")
    func ends() throws {
        var (confirmations, random) = (Confirmations(IMSLimits()), Sample.random())
        let (view, now) = (Sample.view(), Sample.now())
        _ = confirmations.notified(pending(record, of: hoa), view, &random, now)
        _ = confirmations.resolved(name, .found(Sample.set()), view, &random, now)
        #expect(
            codes(confirmations.unchecked(pending(record, of: hoa).key, VerificationRefusal(reason: "too many"))) == [.tryLater])
        _ = confirmations.notified(pending(nil, of: hoa), view, &random, now)
        var last: [ResponseCode] = []
        while let next = confirmations.nextDeadline,
            let actions = confirmations.due(view, Now(monotonic: next, wallMilliseconds: Sample.wall))
        {
            last += codes(actions)
        }
        #expect(last == [.upstreamFailed] && confirmations.isEmpty && confirmations.count == 0)
        let absent = home("10.0.0.9")
        _ = confirmations.notified(pending(nil, of: absent), view, &random, now)
        #expect(
            codes(confirmations.resolved(IPPrefix(absent.address), .failed("SERVFAIL"), view, &random, now)) == [.upstreamFailed])
        #expect(!confirmations.hasInquiries)
    }

    @Test(
        "An own notifier ahead of its update is believed for three seconds; without the update those who were told are corrected")
    func ownNotifies() {
        let registered = Sample.stored(Sample.own.record([ip("198.51.100.1")], sequence: Sample.wall))
        let ahead = Sample.own.record([ip("198.51.100.7")], sequence: Sample.wall + 1)
        var notifies = OwnNotifies()
        let view = Sample.view(holding: [registered])
        let began = notifies.notified(pending(ahead, of: Sample.own.hoa), view, Sample.now())
        #expect(began.contains { if case .verify(_, .ownNotify, _) = $0 { true } else { false } })
        #expect(codes(notifies.verified(pending(ahead, of: Sample.own.hoa).key, nil, view, Sample.now())) == [.ok])
        let remembering = Sample.view(holding: [registered], remembering: [(ahead, isConfirmed: false)])
        #expect(notifies.due(remembering, Sample.now(.seconds(2))) == nil)
        let corrected = notifies.due(remembering, Sample.now(OwnNotifies.updateDelayMax)) ?? []
        #expect(corrected.contains { if case .tell(Sample.own.hoa, registered.certified) = $0 { true } else { false } })
        #expect(corrected.contains { if case .forget = $0 { true } else { false } } && notifies.isEmpty)
    }

    @Test("An own notifier whose update comes in time is done")
    func ownUpdate() {
        let ahead = Sample.own.record([ip("198.51.100.7")], sequence: Sample.wall + 1)
        var notifies = OwnNotifies()
        _ = notifies.notified(pending(ahead, of: Sample.own.hoa), Sample.view(), Sample.now())
        _ = notifies.verified(pending(ahead, of: Sample.own.hoa).key, nil, Sample.view(), Sample.now())
        let stored = Sample.stored(ahead)
        #expect(notifies.registered(stored, Sample.view(holding: [stored]), Sample.now()).isEmpty && notifies.isEmpty)
        #expect(notifies.nextDeadline == nil)
    }
}

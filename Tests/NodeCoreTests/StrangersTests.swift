import MATTesting
import Testing

@testable import MATSignal
@testable import NodeCore

@Suite("The table of unknown sources") struct StrangersTests {
    typealias Action = Strangers.Action

    private let source = MobileAddress(ip("198.18.0.10"))
    private let own = ip("192.0.2.10")
    private let peer: HomeAddress = home("203.0.113.1")
    private let among = Strangers.Surroundings(hasPeers: true)
    private let alone = Strangers.Surroundings()

    private func strangers(_ adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) -> Strangers {
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        adjust(&configuration)
        return Strangers(configuration)
    }

    private func opener(_ source: MobileAddress) -> Strangers.Packet {
        Strangers.Packet(source: source, own: own, opensConnection: true, isSegment: false)
    }
    private func segment(_ source: MobileAddress) -> Strangers.Packet {
        Strangers.Packet(source: source, own: own, opensConnection: false, isSegment: true)
    }

    private func hold(_ strangers: inout Strangers, _ packet: Strangers.Packet, canAsk: Bool = true, at milliseconds: Int64 = 0) -> [Action] {
        strangers.hold(packet, canAsk: canAsk, openersWait: .milliseconds(100), hasPeers: among.hasPeers, now: time(milliseconds))
    }

    private func notFound(_ strangers: inout Strangers, _ around: Strangers.Surroundings, at milliseconds: Int64) -> [Action] {
        let answer = HAAnswer(code: .notFound, cookie: Cookie(client: 1), moa: source, lifetime: 5)
        return strangers.answered(source, answer, around, now: time(milliseconds))
    }

    @Test("The first packet causes a question, and others of the same source none")
    func first() {
        var strangers = strangers()
        #expect(hold(&strangers, segment(source)) == [.wake(source, at: time(3000)), .count(\.strangersAsked), .ask(source)])
        #expect(!strangers.mayAsk(because: segment(source), now: time(5)))
        #expect(hold(&strangers, segment(source), at: 5) == [.wake(source, at: time(3000))])
        #expect(strangers.count == 1)
    }

    @Test("While nobody can be asked, what opens a connection passes at once and nothing else does")
    func nobody() {
        var strangers = strangers()
        #expect(hold(&strangers, opener(source), canAsk: false) == [.count(\.strangersPlain), .pass(source, to: own)])
        #expect(strangers.isEmpty && strangers.hasPassed(source))
        #expect(hold(&strangers, segment(source), canAsk: false) == [.wake(source, at: time(3000))])
    }

    @Test("A full table lets openers pass and drops the rest")
    func full() {
        var strangers = strangers { $0.strangersMax = 1 }
        _ = hold(&strangers, segment(source))
        let other = MobileAddress(ip("198.18.0.11"))
        #expect(!strangers.mayAsk(because: segment(other), now: time(0)))
        #expect(hold(&strangers, segment(other)) == [.drop(other, to: own)])
        #expect(hold(&strangers, opener(other)) == [.count(\.strangersPlain), .pass(other, to: own)])
    }

    @Test("A flood of openers leaves a third of the questions for what only an answer lets in")
    func budget() {
        var strangers = strangers { $0.strangerQueriesPerSecond = 9 }
        var asked = [0, 0]
        for index in 1...20 {
            for (kind, packet) in [opener(MobileAddress(ip("198.18.1.\(index)"))), segment(MobileAddress(ip("198.18.2.\(index)")))].enumerated() {
                let mayAsk = strangers.mayAsk(because: packet, now: time(0))
                let isAsked = hold(&strangers, packet).contains(.ask(packet.source))
                #expect(mayAsk == isAsked, "\(packet)")
                asked[kind] += isAsked ? 1 : 0
            }
        }
        #expect(asked == [6, 3])
    }

    @Test("Openers pass after their wait; the answer is still waited for, and later openers pass with it")
    func openersWait() {
        var strangers = strangers()
        #expect(hold(&strangers, opener(source)).first == .wake(source, at: time(100)))
        #expect(strangers.due(source, among, now: time(100)) == [.passOpeners(source, to: own), .wake(source, at: time(3000))])
        #expect(hold(&strangers, opener(source), at: 150) == [.passOpeners(source, to: own), .wake(source, at: time(3000))])
    }

    @Test("Openers that come after a segment wait for the same answer, and not beyond their own time")
    func openerAfterSegment() {
        var strangers = strangers()
        _ = hold(&strangers, segment(source))
        #expect(hold(&strangers, opener(source), at: 50) == [.wake(source, at: time(150))])
    }

    @Test("Not found where there are no peers: all of it passes, in the kernel too")
    func plain() {
        var strangers = strangers()
        _ = hold(&strangers, segment(source))
        #expect(
            notFound(&strangers, alone, at: 10) == [
                .change(.letOpen(source.address, lifetime: .seconds(5))), .stopWaiting(source), .count(\.strangersPlain),
                .change(.setPlain(source.address, lifetime: .seconds(5))), .commit, .pass(source, to: own),
            ])
        #expect(strangers.isEmpty)
    }

    @Test("Not found while a peer may have moved there: openers pass, a segment waits for the peers' IMSs and is dropped in the end")
    func movedPeer() {
        var strangers = strangers()
        _ = hold(&strangers, segment(source))
        strangers.suspect([peer], of: source)
        #expect(strangers.waiting(for: peer) == [source] && strangers.suspects(of: source) == [peer])
        let opened: [Action] = [.commit, .passOpeners(source, to: own)]
        #expect(
            notFound(&strangers, among, at: 10) == [.change(.letOpen(source.address, lifetime: .seconds(5)))] + opened + [
                .wake(source, at: time(300))
            ])
        // What may be a peer's is kept as long as anything.
        #expect(strangers.due(source, among, now: time(300)) == opened + [.wake(source, at: time(3000))])
        let last = strangers.due(source, among, now: time(3000))
        #expect(last.first == .stopWaiting(source) && last.last == .drop(source, to: own))
        #expect(strangers.isEmpty && strangers.waiting(for: peer).isEmpty)
    }

    @Test("What has become a peer's place is admitted, and waited for no more")
    func identified() {
        var strangers = strangers()
        _ = hold(&strangers, segment(source))
        #expect(strangers.identified(source) == [.stopWaiting(source), .count(\.strangersIdentified), .commit, .admit(source, at: own)])
        #expect(strangers.identified(source) == [])
    }

    @Test("The HoA that our IMS named is a candidate until its own IMS denies it")
    func denied() {
        let authority = TestAuthority(seed: 202)
        let identity = authority.enrol(peer, seed: 12)
        var strangers = strangers()
        _ = hold(&strangers, segment(source))
        let record = MappingRecord(hoa: peer, sequence: 1, lifetime: 600, issued: 1, locators: [Locator(source, preference: 10)])
        let answer = HAAnswer(
            code: .ok, cookie: Cookie(client: 1), moa: source, mapping: record.signed(with: identity.key), certificate: identity.certificate)
        let actions = strangers.answered(source, answer, among, now: time(10))
        #expect(
            actions.first == .wake(source, at: time(3010))
                && actions.dropFirst().first == .change(.holdOpeners(source.address, lifetime: .seconds(3))))
        #expect(strangers.hasCandidate(peer) && strangers.named(peer) == [source])
        // Openers wait with the rest now.
        #expect(hold(&strangers, opener(source), at: 20) == [.wake(source, at: time(3010))])
        _ = strangers.denied(source, by: peer, among, now: time(400))
        #expect(!strangers.hasCandidate(peer))
    }

    @Test("A record that lists a plain source makes the kernel ask about it again")
    func listed() {
        var strangers = strangers()
        _ = hold(&strangers, opener(source), canAsk: false)
        let record = MappingRecord(hoa: peer, sequence: 1, lifetime: 600, issued: 1, locators: [Locator(source, preference: 10)])
        #expect(strangers.listed(by: record) == [.change(.removePlain(source.address)), .change(.askAgain(source.address))])
        #expect(!strangers.hasPassed(source) && strangers.listed(by: record).isEmpty)
    }

    @Test("Of many peers the 64 with the most packets are remembered, in the same order however they are counted")
    func busiest() {
        let counts = (1...200).map { (packets: UInt64($0 % 50), hoa: home("203.0.113.\($0)")) }
        var results: [[HomeAddress]] = []
        for walk in [counts, counts.reversed()] {
            var count = BusiestPeers.Count()
            for (packets, hoa) in walk { count.add(packets, of: hoa) }
            var busiest = BusiestPeers()
            busiest.entered(peer)
            busiest.replace(by: BusiestPeers.Count())
            #expect(busiest.peers == [peer], "a count without packets changes nothing")
            busiest.replace(by: count)
            results.append(busiest.peers)
        }
        #expect(results[0] == results[1] && results[0].count == BusiestPeers.countMax)
        #expect(results[0].first == home("203.0.113.49"))
    }

    @Test("Suspected of having moved are the peers with the latest traffic whose IMS has not just answered, eight at most")
    func suspects() throws {
        var table = PeerTable()
        let hoas = (1...10).map { home("203.0.113.\($0)") }
        for (index, hoa) in hoas.enumerated() {
            table.enter(try Peers.peer(hoa))
            let traffic = time(Int64(index / 2) * 1000)
            table.update(hoa) { _ = $0.counted(1, now: traffic) }
        }
        let moved: MobileAddress = moa("198.18.0.77")
        let busiest = BusiestPeers()
        #expect(busiest.suspects(for: moved, in: table, now: time(1000)).isEmpty, "their IMSs have just answered")
        #expect(busiest.suspects(for: moa("2001:db8::77"), in: table, now: time(9000)).isEmpty)
        let order = [8, 9, 6, 7, 4, 5, 2, 3].map { hoas[$0] }
        #expect(busiest.suspects(for: moved, in: table, now: time(9000)) == order)
    }
}

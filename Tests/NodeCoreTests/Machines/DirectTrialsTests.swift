import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Rewritten packets over new pairs of networks") struct DirectTrialsTests {
    private let peer = home("203.0.113.1")
    private let pair = MobilePair(own: MobileAddress(ip("2001:db8:a::10")), peer: MobileAddress(ip("2001:db8:b::10")))
    private let neighbours = MobilePair(own: MobileAddress(ip("2001:db8:a::99")), peer: MobileAddress(ip("2001:db8:b::98")))

    private func use(_ sent: UInt64, _ came: UInt64) -> RewrittenUse {
        RewrittenUse(HomePair(own: home("198.51.100.1"), peer: peer), sent: sent, came: came)
    }

    @Test(
        "Packets that go out for 500 ms while none come have the peer's MoA asked as an endpoint; when it has signed, they go there"
    )
    func filtered() {
        var trials = DirectTrials()
        trials.begin(peer, pair, time(0))
        var doubted: [Int64] = []
        for at in stride(from: Int64(100), through: 2000, by: 100) where trials.counted(use(UInt64(at), 7), isAwaited: true, time(at)) == .doubt {
            doubted.append(at)
        }
        #expect(doubted == [700] && trials.doubted(peer) == pair)
        #expect(!trials.isFiltered(pair))
        let proved = trials.proved(peer, time(2100))
        #expect(proved == pair && trials.isFiltered(pair) && trials.isFiltered(neighbours) && trials.doubted(peer) == nil)
        let early = trials.takeDue(time(602_000))
        let late = trials.takeDue(time(602_100))
        #expect(!early && late && !trials.isFiltered(pair))
    }

    @Test("A packet that comes ends the trial, before and after the doubt, and these networks are not tried again", arguments: [300, 900] as [Int64])
    func passes(at: Int64) {
        var trials = DirectTrials()
        trials.begin(peer, pair, time(0))
        for at in stride(from: Int64(100), through: at, by: 100) { _ = trials.counted(use(UInt64(at), 7), isAwaited: true, time(at)) }
        _ = trials.counted(use(UInt64(at) + 1, 8), isAwaited: true, time(at + 100))
        #expect(!trials.isWatching)
        let proved = trials.proved(peer, time(1100))
        trials.begin(peer, neighbours, time(2000))
        #expect(proved == nil && !trials.isWatching)
    }

    @Test("Of a conversation in which nothing came before, and of one that sends nothing, nothing is concluded", arguments: [true, false])
    func nothing(sends: Bool) {
        var trials = DirectTrials()
        trials.begin(peer, pair, time(0))
        for at in stride(from: Int64(100), through: 12_000, by: 100) {
            let isDoubted: DirectTrials.OnCount = trials.counted(use(sends ? UInt64(at) : 3, sends ? 0 : 7), isAwaited: true, time(at))
            #expect(isDoubted == .nothing)
        }
        #expect(!trials.isWatching)
    }

    @Test(
        "Silence counts by what had been answered before: of who only listens none does, of who answers seldom a longer one",
        arguments: [(0, []), (1, []), (3, [700]), (100, [700])] as [(UInt64, [Int64])])
    func answered(came: UInt64, expected: [Int64]) {
        var (trials, answers) = (DirectTrials(), RecentAnswers())
        answers.counted(PeerPackets(sent: 100, came: came))
        trials.begin(peer, pair, answers: answers, time(0))
        let doubted = stride(from: Int64(100), through: 12_000, by: 100).filter {
            trials.counted(use(UInt64($0), 7), isAwaited: true, time($0)) == .doubt
        }
        #expect(doubted == expected)
    }

    @Test("Who reports once a second of 50 packets is doubted when two reports are missing")
    func reports() {
        var (trials, answers) = (DirectTrials(), RecentAnswers())
        for second in UInt64(1)...20 { answers.counted(PeerPackets(sent: second * 50, came: second)) }
        trials.begin(peer, pair, answers: answers, time(0))
        let doubted = stride(from: Int64(100), through: 12_000, by: 100).filter {
            trials.counted(use(UInt64($0 / 20), 7), isAwaited: true, time($0)) == .doubt
        }
        #expect(doubted == [1600])
    }

    @Test("In a conversation that was busy, the peer's MoA is asked when the check is late that would show that what began outside comes in")
    func listens() {
        func doubted(
            lastTraffic: Int64?, check: Translation.Check, isAwaited: Bool = true, came: (Int64) -> UInt64 = { _ in 7 }
        ) -> [Int64] {
            var trials = DirectTrials()
            trials.begin(peer, pair, lastTraffic: lastTraffic.map(time), time(20_000))
            return stride(from: Int64(20_100), through: 29_000, by: 100).filter {
                trials.counted(use(3, came($0)), isAwaited: isAwaited, check: check, time($0)) == .doubt
            }
        }
        #expect(doubted(lastTraffic: 19_000, check: .late) == [20_200])
        // What comes may answer what goes out, while another flow waits; and what came before may have come in datagrams.
        #expect(doubted(lastTraffic: 19_000, check: .late) { UInt64($0) } == [20_200])
        #expect(doubted(lastTraffic: 19_000, check: .late) { _ in 0 } == [20_200])
        // The check came, is not due yet, or will not come; nothing had been exchanged for long; the peer does not know where we are.
        for check in [Translation.Check.came, .expected, .awaited, .none] { #expect(doubted(lastTraffic: 19_000, check: check) == []) }
        #expect(doubted(lastTraffic: 9_000, check: .late) == [])
        #expect(doubted(lastTraffic: nil, check: .late) == [])
        #expect(doubted(lastTraffic: 19_000, check: .late, isAwaited: false) == [])
    }

    @Test("A packet that may answer one of ours ends nothing while the check of the own IMS is awaited; when that comes, packets are rewritten again")
    func answers() {
        var trials = DirectTrials()
        trials.begin(peer, pair, lastTraffic: time(19_000), time(20_000))
        var counts: [Int64: DirectTrials.OnCount] = [:]
        for at in stride(from: Int64(20_100), through: 22_000, by: 100) {
            let check: Translation.Check = at < 20_300 ? .expected : at < 20_600 ? .awaited : .late
            let count = trials.counted(use(UInt64(at), UInt64(at)), isAwaited: true, check: check, time(at))
            if count != .nothing { counts[at] = count }
            if count == .doubt { #expect(trials.proved(peer, time(at)) == pair) }
        }
        #expect(counts == [20_600: .doubt] && trials.isFiltered(pair) && !trials.hasPassed(pair))
        let came = trials.counted(use(22_000, 22_000), isAwaited: true, check: .came, time(22_100))
        #expect(came == .trust && !trials.isFiltered(pair) && trials.isWatching)
        _ = trials.counted(use(22_000, 22_001), isAwaited: true, check: .came, time(22_200))
        #expect(trials.hasPassed(pair) && !trials.isWatching)
    }

    @Test("With another network there, a busy peer's packets wait for the check, and for its answer in datagrams when that is late; a second at most")
    func ahead() {
        func waits(_ check: Translation.Check, lastTraffic: Int64? = 19_000) -> Bool {
            var trials = DirectTrials()
            return trials.foresee(peer, pair, check, lastTraffic: lastTraffic.map(time), time(20_000))
        }
        #expect(waits(.awaited) && waits(.late))
        for check in [Translation.Check.came, .expected, .none] { #expect(!waits(check)) }
        #expect(!waits(.awaited, lastTraffic: 9_000) && !waits(.awaited, lastTraffic: nil))
        var trials = DirectTrials()
        _ = trials.foresee(peer, pair, .awaited, lastTraffic: time(19_000), time(20_000))
        #expect(trials.ahead(at: pair.own) == [peer] && trials.ahead(at: neighbours.own) == [] && trials.due == time(21_000))
        // Packets on the present pair say nothing of this one.
        _ = trials.counted(use(1, 1), isAwaited: true, check: .late, time(20_100))
        let count = trials.counted(use(9, 9), isAwaited: true, check: .late, time(20_200))
        #expect(count == .nothing && !trials.hasPassed(pair) && trials.doubted(peer) == nil)
        var came = trials
        came.takeUp(peer, hasCome: true, time(20_200))
        #expect(!came.foresee(peer, pair, .came, lastTraffic: time(20_000), time(20_200)) && came.ahead(at: pair.own) == [] && came.isWatching)
        trials.late(peer)
        #expect(trials.doubted(peer) == pair)
        var silent = trials
        let early = silent.aheadDue(time(20_999))
        let due = silent.aheadDue(time(21_000))
        #expect(early == [] && due == [peer] && !silent.foresee(peer, pair, .late, lastTraffic: time(20_900), time(21_000)))
        #expect(trials.proved(peer, time(20_300)) == pair && trials.isFiltered(pair) && trials.ahead(at: pair.own) == [])
    }

    @Test("Where the check of the own IMS is never due, a busy conversation is watched for ten seconds like any other")
    func ends() {
        var trials = DirectTrials()
        trials.begin(peer, pair, lastTraffic: time(0), time(0))
        for at in stride(from: Int64(100), through: 10_000, by: 100) {
            let count = trials.counted(use(UInt64(at), UInt64(at)), isAwaited: true, check: .expected, time(at))
            #expect(count == .nothing && trials.isWatching == (at < 10_000))
        }
        #expect(!trials.hasPassed(pair))
    }

    @Test(
        "A peer that goes over to datagrams after its packets came rewritten is followed, when none has come rewritten for 100 ms",
        arguments: [true, false])
    func left(goesOver: Bool) {
        var trials = DirectTrials()
        trials.begin(peer, pair, time(0))
        for at in [Int64(100), 200] { _ = trials.counted(use(UInt64(at), UInt64(at)), isAwaited: true, check: .came, time(at)) }
        #expect(trials.hasPassed(pair) && !trials.isWatching)
        trials.cameEncapsulated(peer, from: neighbours.peer, pair, time(300))
        #expect(!trials.isWatching)
        trials.cameEncapsulated(peer, from: pair.peer, pair, time(300))
        #expect(trials.watched == [peer])
        let doubted = stride(from: Int64(400), through: 3000, by: 100).filter {
            trials.counted(use(UInt64($0), goesOver ? 200 : UInt64($0)), isAwaited: true, check: .came, time($0)) == .doubt
        }
        #expect(doubted == (goesOver ? [600] : []) && trials.hasPassed(pair) != goesOver)
    }

    @Test("Before the peer knows where we are, its silence says nothing")
    func unknownThere() {
        var trials = DirectTrials()
        trials.begin(peer, pair, time(0))
        for at in stride(from: Int64(100), through: 3000, by: 100) {
            let isDoubted: DirectTrials.OnCount = trials.counted(use(UInt64(at), 7), isAwaited: false, time(at))
            #expect(isDoubted == .nothing)
        }
        var doubted: [Int64] = []
        for at in stride(from: Int64(3100), through: 4000, by: 100) where trials.counted(use(UInt64(at), 7), isAwaited: true, time(at)) == .doubt {
            doubted.append(at)
        }
        #expect(doubted == [3600])
    }

    @Test("A peer whose packets come in datagrams from the very MoA may have found out for both: then what came before need not have come rewritten")
    func fromPeer() {
        for place in [pair.peer, neighbours.peer] {
            var trials = DirectTrials()
            trials.begin(peer, pair, time(0))
            trials.cameEncapsulated(peer, from: place, pair, time(0))
            var doubted: [Int64] = []
            for at in stride(from: Int64(100), through: 2000, by: 100) where trials.counted(use(UInt64(at), 0), isAwaited: true, time(at)) == .doubt {
                doubted.append(at)
            }
            #expect(doubted == (place == pair.peer ? [300] : []))
        }
    }

    @Test("A peer that asks for datagrams from a new place, before anything was sent there, gets them as soon as it has signed")
    func asks() {
        var trials = DirectTrials()
        trials.ask(peer, pair, time(0))
        #expect(trials.doubted(peer) == pair && !trials.isFiltered(pair))
        let proved = trials.proved(peer, time(10))
        #expect(proved == pair && trials.isFiltered(pair))
        trials.ask(peer, pair, time(20))
        #expect(trials.doubted(peer) == nil && trials.isFiltered(pair))
    }

    @Test("A packet that comes rewritten all the same ends the verdict; a minute later nobody looks any more")
    func mistake() {
        var trials = DirectTrials()
        trials.begin(peer, pair, time(0))
        for at in stride(from: Int64(100), through: 2000, by: 100) { _ = trials.counted(use(UInt64(at), 7), isAwaited: true, time(at)) }
        _ = trials.proved(peer, time(2100))
        var later = trials
        let came = trials.counted(use(2000, 8), isAwaited: true, time(2200))
        #expect(came == .trust && !trials.isFiltered(pair) && !trials.isWatching)
        _ = later.counted(use(2000, 7), isAwaited: true, time(62_200))
        #expect(!later.isWatching && later.isFiltered(pair))
    }

    @Test("A conversation that takes another pair is watched anew, and so many are watched and remembered")
    func bounds() {
        var trials = DirectTrials()
        for number in 1...200 { trials.begin(home("203.0.113.\(number)"), pair, time(0)) }
        #expect(trials.watched.count == DirectTrials.trialsMax)
        let other = MobilePair(own: MobileAddress(ip("2001:db8:c::1")), peer: pair.peer)
        trials.begin(peer, other, time(10))
        #expect(trials.pair(of: peer) == other)
        trials.end(peer)
        #expect(trials.pair(of: peer) == nil && trials.watched.count == DirectTrials.trialsMax - 1)
    }
}

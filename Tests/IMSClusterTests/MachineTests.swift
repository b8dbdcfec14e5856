import IMSCore
import MATSignal
import Testing

@testable import IMSCluster

/// A machine wants something else than it should.
private struct Unexpected: Error {
    var what: String
}

@Suite("The machines of an instance's part in the cluster")
struct MachineTests {
    private let start = MonotonicTime(nanoseconds: 1_000_000_000)

    @Test("Members are tried one after the other, at once, with pauses that double when all were tried in vain")
    func link() {
        var link = MemberLink(membersCount: 2, start)
        var (now, members, pauses) = (start, [Int](), [Duration]())
        for _ in 0..<6 {
            guard let member = link.connect(now) else { break }
            members.append(member)
            #expect(link.lost(wait: nil, now) && !link.lost(wait: nil, now), "lost once")
            guard case .down(let until) = link.state else { break }
            pauses.append(until - now)
            now = until
        }
        #expect(members == [0, 1, 0, 1, 0, 1])
        #expect(pauses == [0, 1, 1, 2, 2, 4].map { ClusterInstance.reconnectDelay * $0 })
        link.works()
        _ = link.connect(now)
        _ = link.lost(wait: nil, now)
        #expect(link.connect(now) != nil, "the next at once")
    }

    @Test("The feed reads in pages as of one revision and follows from there; each connection goes on where the last one was")
    func feed() throws {
        let keys = ClusterKeys(prefix: "/test/")
        var feed = Feed(keys)
        let first = EtcdRange(key: keys.followed.key, end: keys.followed.end, limit: ClusterInstance.pageKeysMax, revision: 100)
        #expect(feed.opened(at: 100) == .begin(first) && feed.isReading)
        #expect(feed.opened(at: 105) == .goOn(first), "as of the same revision")
        #expect(feed.watched(EtcdWatchResponse()) == nil, "nothing is followed yet")
        var page = EtcdResponse()
        page.pairs = [EtcdKeyValue(key: keys.octets(.cookies), modRevision: 90, value: [])]
        page.hasMore = true
        guard case .next(let second)? = feed.pageEnded(page) else { throw Unexpected(what: "no second page") }
        #expect(second.revision == 100 && second.key == keys.octets(.cookies) + [0] && feed.opened(at: 106) == .goOn(second))
        func watch(from revision: Int64) -> EtcdWatch { EtcdWatch(key: keys.followed.key, end: keys.followed.end, fromRevision: revision) }
        #expect(feed.pageEnded(EtcdResponse()) == .ended(revision: 100, isFirst: true, watch(from: 101)) && feed.hasLoaded)
        #expect(feed.pageEnded(EtcdResponse()) == nil, "nobody asked for it")

        var part = EtcdWatchResponse()
        part.events = [EtcdWatchResponse.Event(pair: EtcdKeyValue(key: [], modRevision: 110, value: []))]
        part.isFragment = true
        #expect(feed.watched(part) == .events && feed.opened(at: 120) == .follow(watch(from: 110)), "the rest of 110 has not come")
        part.isFragment = false
        #expect(feed.watched(part) == .events && feed.opened(at: 120) == .follow(watch(from: 111)))
        var end = EtcdWatchResponse()
        (end.isCanceled, end.cancelReason) = (true, "no leader")
        #expect(feed.watched(end) == .cancelled("no leader") && feed.isFollowing)
    }

    @Test("A feed whose revision etcd has compacted reads all anew, while it reads as while it follows")
    func compactedFeed() throws {
        var feed = Feed(ClusterKeys(prefix: "/test/"))
        _ = feed.opened(at: 100)
        feed.readingCompacted()
        guard case .begin(let anew) = feed.opened(at: 200) else { throw Unexpected(what: "it goes on") }
        #expect(anew.revision == 200)
        #expect(feed.pageEnded(EtcdResponse()).map { if case .ended(200, true, _) = $0 { true } else { false } } == true)
        feed.readingCompacted()
        #expect(feed.isFollowing, "nothing is read any more")
        var gone = EtcdWatchResponse()
        gone.compactRevision = 300
        #expect(feed.watched(gone) == .compacted(after: 200))
        guard case .begin = feed.opened(at: 400) else { throw Unexpected(what: "it goes on") }
        #expect(feed.pageEnded(EtcdResponse()).map { if case .ended(400, false, _) = $0 { true } else { false } } == true, "read before")
    }

    @Test("A sign of life that was answered and does not come back tells that the watch is silent; the link's end forgets it")
    func heartbeat() {
        var heartbeat = Heartbeat(start)
        #expect(heartbeat.isDue(start) && heartbeat.send(isFarewell: false, start) == 1 && !heartbeat.isDue(start + .seconds(9)))
        heartbeat.answered(1, start)
        #expect(
            heartbeat.isDue(start + ClusterInstance.beatInterval) && !heartbeat.isWatchSilent(start + ClusterInstance.echoTimeMax)
        )
        let late = start + ClusterInstance.echoTimeMax + .milliseconds(1)
        #expect(heartbeat.isWatchSilent(late) && !heartbeat.hearsItself(late))
        #expect(heartbeat.echoed(1, late) && !heartbeat.echoed(1, late), "news once")
        #expect(
            !heartbeat.isWatchSilent(late) && heartbeat.hearsItself(late)
                && !heartbeat.hearsItself(late + ClusterInstance.echoAgeMax))
        #expect(heartbeat.send(isFarewell: true, late) == 1, "good-bye is the same again and again")
        heartbeat.linkLost()
        #expect(!heartbeat.hearsItself(late) && !heartbeat.isWatchSilent(late + .seconds(60)))
    }

    @Test(
        "The core is told once that etcd takes no writes, and once that it does again; a stop of this process is no silence of etcd"
    )
    func availability() throws {
        var availability = Availability(start)
        #expect(availability.ticked(start + ClusterInstance.patience) == nil)
        let late = start + ClusterInstance.patience + .milliseconds(1)
        availability.slept(late)
        #expect(availability.ticked(late) == nil && availability.isAnswering(late))
        availability.failed("cut")
        guard case .unavailable("cut")? = availability.ticked(late + .seconds(3)) else { throw Unexpected(what: "not told") }
        #expect(
            availability.ticked(late + .seconds(4)) == nil && availability.refused("again") == nil && availability.isUnavailable)
        guard case .available? = availability.answered(late + .seconds(5)) else { throw Unexpected(what: "not told") }
        #expect(availability.answered(late + .seconds(5)) == nil && !availability.isUnavailable)
    }

    @Test("In doubt what comes is held until the awaited sign of life; a second doubt lasts as long as the longer")
    func doubt() {
        var doubt = Doubt(start)
        #expect(!doubt.hasSlept(start + ClusterInstance.gapMax) && !doubt.isInDoubt)
        let awake = start + .seconds(10)
        #expect(doubt.hasSlept(awake) && !doubt.hasSlept(awake))
        #expect(doubt.begin(for: ClusterInstance.sleptDoubt, awaiting: 5, awake) == 1)
        #expect(doubt.begin(for: ClusterInstance.lostDoubt, awaiting: 7, awake) == 2)
        doubt.inTouch(awake)
        let event = EtcdWatchResponse.Event()
        #expect(doubt.hold([event]) && doubt.hold([event]))
        #expect(
            !doubt.isAwaited(6) && doubt.isAwaited(7) && !doubt.isOver(awake + .seconds(29)) && doubt.isOver(awake + .seconds(30))
        )
        #expect(doubt.release().count == 2 && doubt.release().isEmpty && doubt.isInDoubt)
        #expect(doubt.end() == 2 && !doubt.isInDoubt && !doubt.isAwaited(7))

        // A link that is lost again and again withholds answers no longer than that.
        for second in 0..<60 { _ = doubt.begin(for: ClusterInstance.openedDoubt, awaiting: 9, start + .seconds(second)) }
        #expect(!doubt.isOver(start + .seconds(29)) && doubt.isOver(start + .seconds(30)))
    }

    @Test("News of one key is written once, the newest, under a lease; what was on the way when the link broke waits again")
    func sharing() throws {
        var sharing = SharingState()
        sharing.add([1], .put([1]))
        sharing.add([1], .put([2]))
        sharing.add([2], .delete)
        guard case .askLease = sharing.tend(start), case .nothing = sharing.tend(start) else {
            throw Unexpected(what: "no lease")
        }
        sharing.leased(77, start)
        guard case .send(let items, lease: 77) = sharing.tend(start) else { throw Unexpected(what: "nothing sent") }
        #expect(items.map(\.key) == [[1], [2]] && items.map(\.news) == [.put([2]), .delete])
        sharing.add([1], .put([3]))
        sharing.linkLost()
        guard case .send(let again, lease: 77) = sharing.tend(start) else { throw Unexpected(what: "nothing sent") }
        #expect(again.map(\.news) == [.put([3]), .delete])
        #expect(sharing.failed(.unavailable, start) == false)
        guard case .nothing = sharing.tend(start) else { throw Unexpected(what: "without a pause") }
        guard case .send = sharing.tend(start + ClusterInstance.newsDelay) else { throw Unexpected(what: "nothing sent") }
        sharing.succeeded(again: { _, _ in nil }, [])
        #expect(sharing.isEmpty)
    }

    @Test("What etcd refuses is tried once more under a new lease if the lease is old, and a person is told once")
    func refusedNews() throws {
        var sharing = SharingState()
        sharing.add([1], .delete)
        _ = sharing.tend(start)
        sharing.leased(77, start)
        _ = sharing.tend(start)
        let late = start + ClusterInstance.callTimeMax + .seconds(1)
        #expect(sharing.failed(.refused, late) && !sharing.isEmpty)
        guard case .askLease = sharing.tend(late + .seconds(1)) else { throw Unexpected(what: "the old lease") }
        sharing.leased(78, late + .seconds(1))
        _ = sharing.tend(late + .seconds(1))
        #expect(!sharing.failed(.refused, late + .seconds(2)) && sharing.isEmpty, "not again, and nobody is told twice")
    }

    @Test("Who is silent while this instance hears itself is declared dead, by the living one with the lowest id")
    func deposition() {
        let (low, high) = (InstanceID(number: 1), InstanceID(number: 2))
        func silent(_ own: InstanceID, _ other: InstanceID) -> LivingState {
            var living = LivingState(own: own)
            _ = living.ownSignOfLife(1, pushedUpTo: 5, isNews: true, start)
            _ = living.signOfLife(of: other, 1, pushedUpTo: 5, at: 10, start)
            for count in 2...UInt64(1 + ClusterInstance.silentSignsMax) {
                _ = living.ownSignOfLife(count, pushedUpTo: 5, isNews: true, start)
            }
            return living
        }
        let late = start + ClusterInstance.silenceMax + .milliseconds(1)
        for (own, other) in [(low, high), (high, low)] {
            var living = silent(own, other)
            #expect(living.nextDeposition(start + ClusterInstance.silenceMax) == nil)
            #expect(living.nextDeposition(late)?.id == other)
            #expect(living.nextDeposition(late) == nil, "asked already")
            living.depositionFailed(late)
            #expect(
                living.nextDeposition(late) == nil && living.nextDeposition(late + ClusterInstance.deposePause)?.revision == 10)
        }
    }
}

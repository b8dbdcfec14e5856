import IMSCore
import MATSignal
import MATTesting
import Testing

@testable import IMSCluster

/// Subscriptions of the cluster, as values, and as instances come to them from one log.
@Suite("The cluster's subscriptions")
struct SubscriptionTests {
    private typealias Key = ClusterSubscriptions.Key

    private let subscriber = Endpoint(address("198.51.100.77"), port: 6289)
    private let mapping = IPPrefix(address("192.0.2.1"))

    private func time(_ seconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: seconds * 1_000_000_000) }

    private func grant<Generator: RandomNumberGenerator>(_ generator: inout Generator) -> SubscriptionGrant {
        SubscriptionGrant(
            revision: .random(in: 1...6, using: &generator), instance: InstanceID(number: .random(in: 1...3, using: &generator)),
            local: IPAddress(ipv4: .random(in: 1...3, using: &generator)), ends: time(.random(in: 1...6, using: &generator)))
    }

    // MARK: The merge

    @Test("Merging grants is commutative, associative and idempotent, and nothing in it gets less")
    func merge() {
        var generator = SeededGenerator(seed: 34)
        for _ in 0..<20_000 {
            let (a, b, c) = (grant(&generator), grant(&generator), grant(&generator))
            #expect(a.merged(with: b) == b.merged(with: a))
            #expect(a.merged(with: b).merged(with: c) == a.merged(with: b.merged(with: c)))
            #expect(a.merged(with: a) == a && a.merged(with: b).merged(with: b) == a.merged(with: b))
            let merged = a.merged(with: b)
            #expect(merged.ends == max(a.ends, b.ends) && merged.revision == max(a.revision, b.revision))
        }
    }

    @Test("Whatever order grants are heard in, however often and in whatever pieces: the same server, the same end")
    func order() {
        var generator = SeededGenerator(seed: 35)
        let key = Key(prefix: mapping, endpoint: subscriber)
        for _ in 0..<2000 {
            let grants = (0..<Int.random(in: 1...6, using: &generator)).map { _ in grant(&generator) }
            var forwards = ClusterSubscriptions(own: InstanceID(number: 9))
            for grant in grants { forwards.put(key, grant) }
            var shuffled = ClusterSubscriptions(own: InstanceID(number: 9))
            for grant in (grants + grants.prefix(2)).shuffled(using: &generator) { shuffled.put(key, grant) }
            #expect(forwards.entries[key]?.merged == shuffled.entries[key]?.merged, "\(grants)")
            #expect(forwards.entries[key]?.merged?.ends == grants.map(\.ends).max())
        }
    }

    // MARK: Instances that follow one log

    /// etcd's log, and instances that read it, each at its own pace.
    private struct Cluster {
        var rigs: [Rig] = []
        var revision: Int64 = 100
        var log: [[EtcdWatchResponse.Event]] = []
        /// How far each has read.
        var read: [Int] = []
        var isDown: Set<Int> = []
        /// The revision of each key's last write.
        var written: [[UInt8]: Int64] = [:]
        /// Who pushed which change to whom: by revision, instances.
        var pushes: [Int64: [Int]] = [:]
        var served: [Set<Endpoint>] = []
        /// As the core does: by monotonic time.
        var servedUntil: [[Endpoint: MonotonicTime]] = []
        let prefix: IPPrefix
        let node: TestNode
        let keys = ClusterKeys(prefix: "/t/")
        /// Whether etcd takes puts.
        var hasSpace = true

        init(_ count: Int) throws {
            node = try TestNode("192.0.2.1")
            prefix = IPPrefix(node.hoa.address)
            for number in 1...count {
                var rig = Rig(id: InstanceID(number: UInt64(number)))
                rig.connect()
                rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
                while let page = rig.calls.firstIndex(where: { if case .range = $0.request { true } else { false } }) {
                    rig.calls.swapAt(0, page)
                    rig.answer()
                }
                rigs.append(rig)
                read.append(0)
                served.append([])
                servedUntil.append([:])
            }
            run(.seconds(2))
        }

        var living: [Int] { rigs.indices.filter { !isDown.contains($0) } }

        /// Time goes on; etcd answers and tells all who are not stopped.
        mutating func run(_ duration: Duration) {
            var left = duration
            while left > .zero {
                for index in rigs.indices {
                    let now = Now(
                        monotonic: rigs[index].now.monotonic + .milliseconds(50), wallMilliseconds: rigs[index].now.wallMilliseconds + 50)
                    rigs[index].now = now
                    if !isDown.contains(index) { rigs[index].perform(rigs[index].instance.tick(now)) }
                }
                settle()
                left -= .milliseconds(50)
            }
        }

        mutating func settle() {
            for _ in 0..<4 {
                for index in living {
                    while !rigs[index].calls.isEmpty { answer(index) }
                    catchUp(index)
                }
            }
        }

        private mutating func answer(_ index: Int) {
            guard case .transaction(let transaction) = rigs[index].calls[0].request else { return rigs[index].answer { $0.lease = 5 } }
            let isMet = transaction.compare.allSatisfy { compare in
                if case .modifiedAt(let key, let revision) = compare { written[key] ?? 0 == revision } else { true }
            }
            guard isMet else { return rigs[index].answer { $0.succeeded = false } }
            let puts = transaction.success.contains { if case .put = $0 { true } else { false } }
            guard hasSpace || !puts else { return rigs[index].fail(.noSpace) }
            write(transaction.success)
            let answer = revision
            rigs[index].answer { $0.revision = answer }
        }

        mutating func write(_ operations: [EtcdOperation]) {
            revision += 1
            var events: [EtcdWatchResponse.Event] = []
            func apply(_ operation: EtcdOperation) {
                var event = EtcdWatchResponse.Event()
                event.pair.modRevision = revision
                switch operation {
                case .put(let put):
                    (event.pair.key, event.pair.value) = (put.key, put.value)
                    written[put.key] = revision
                case .delete(let key):
                    event.isDelete = true
                    event.pair.key = key
                    written[key] = nil
                case .transaction(let inner):
                    guard case .modifiedAt(let key, let at)? = inner.compare.first, written[key] ?? 0 == at else { return }
                    return inner.success.forEach(apply)
                case .range: return
                }
                events.append(event)
            }
            operations.forEach(apply)
            log.append(events)
        }

        /// Reads the log to its end, and does what a core would.
        mutating func catchUp(_ index: Int) {
            while read[index] < log.count {
                rigs[index].events = []
                let events = log[read[index]]
                read[index] += 1
                rigs[index].watched(events)
                for event in rigs[index].events {
                    switch event {
                    case .shared(let news):
                        for item in news {
                            switch item {
                            case .serve(let subscription, let isBehind):
                                served[index].insert(subscription.endpoint)
                                let until = rigs[index].now.monotonic + subscription.lasts
                                servedUntil[index][subscription.endpoint] = max(until, servedUntil[index][subscription.endpoint] ?? until)
                                if isBehind { pushes[lastChange, default: []].append(index) }
                            case .leave(_, let endpoint):
                                served[index].remove(endpoint)
                                servedUntil[index][endpoint] = nil
                            default: break
                            }
                        }
                    case .changed:
                        for endpoint in served[index] where servedUntil[index][endpoint] ?? .zero > rigs[index].now.monotonic {
                            pushes[events.first?.pair.modRevision ?? 0, default: []].append(index)
                        }
                    default: break
                    }
                }
            }
        }

        private(set) var lastChange: Int64 = 0

        /// The mapping changes.
        @discardableResult
        mutating func change() throws -> Int64 {
            let put = EtcdPut(key: keys.octets(.mapping(prefix)), value: ClusterValue.encode(try node.stored(UInt64(revision))))
            write([.put(put)])
            lastChange = revision
            settle()
            return lastChange
        }

        /// A core grants: as it does, it tells of half as much again.
        mutating func subscribe(_ endpoint: Endpoint, at index: Int, for duration: Duration) {
            served[index].insert(endpoint)
            let until = rigs[index].now.monotonic + duration
            servedUntil[index][endpoint] = max(until, servedUntil[index][endpoint] ?? until)
            let told = SharedSubscription(
                prefix: prefix, endpoint: endpoint, local: address("203.0.113.\(index + 1)"), lasts: duration + duration / 2)
            rigs[index].perform(rigs[index].instance.share([.subscribed(told)], rigs[index].now))
            settle()
        }

        mutating func stop(_ index: Int) { isDown.insert(index) }

        /// It goes on as it was; what it had asked was answered.
        mutating func goOn(_ index: Int) {
            isDown.remove(index)
            settle()
        }

        /// Who pushes a change of now.
        mutating func pushers() throws -> [Int] {
            let revision = try change()
            run(.milliseconds(100))
            return pushes[revision] ?? []
        }
    }

    @Test("Subscribed at 1, which is stopped, goes on, grants again and dies: pushes go on to the end of the longest grant")
    func renewedAfterReturn() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 0, for: .seconds(60))
        #expect(try cluster.pushers() == [0])
        cluster.stop(0)
        cluster.run(.seconds(5))
        #expect(try cluster.pushers() == [1], "another one serves")
        cluster.goOn(0)
        cluster.run(.seconds(1))
        #expect(try cluster.pushers() == [0], "it serves again, alone")
        cluster.run(.seconds(20))
        // The core tells of a renewal only if it outlasts what was told, which was 90 s.
        cluster.run(.seconds(1))
        cluster.stop(0)
        cluster.run(.seconds(55))
        #expect(try cluster.pushers() == [1], "81 s after the first grant, 55 s after the renewal")
    }

    @Test("Subscribed at 3 for 20 s, then at 2 for 60 s; 3 dies: 2 goes on to the end of its own grant")
    func longerGrantOfTheTaker() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 2, for: .seconds(20))
        cluster.subscribe(subscriber, at: 1, for: .seconds(60))
        #expect(try cluster.pushers() == [1], "who was asked last serves, and nobody else")
        cluster.stop(2)
        cluster.run(.seconds(55))
        #expect(try cluster.pushers() == [1])
    }

    @Test("Subscribed at 3 for 60 s, then at 2 for 20 s: 2 serves for 60 s, and if it dies another one does")
    func longerGrantElsewhere() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 2, for: .seconds(60))
        cluster.subscribe(subscriber, at: 1, for: .seconds(20))
        cluster.run(.seconds(40))
        #expect(try cluster.pushers() == [1])
        cluster.stop(1)
        cluster.run(.seconds(10))
        #expect(try cluster.pushers() == [0])
    }

    @Test("Clocks that are 5 minutes apart shorten no subscription")
    func clocks() throws {
        var cluster = try Cluster(3)
        cluster.rigs[0].now.wallMilliseconds -= 300_000
        cluster.rigs[2].now.wallMilliseconds += 300_000
        for (index, granted) in [0, 2].enumerated() {
            let other = Endpoint(address("198.51.100.8\(index)"), port: 6289)
            cluster.subscribe(other, at: granted, for: .seconds(60))
            #expect(try cluster.pushers() == [granted])
            cluster.stop(granted)
            cluster.run(.seconds(50))
            let others = [0, 1, 2].filter { $0 != granted }
            let pushers = try cluster.pushers()
            #expect(pushers.count == 1 && others.contains(pushers[0]), "\(pushers)")
            cluster.goOn(granted)
            cluster.run(.seconds(60))
        }
    }

    @Test("Good-bye hands over at once, and each change is pushed by one instance")
    func goodBye() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 0, for: .seconds(300))
        let before = try cluster.change()
        cluster.rigs[0].perform(cluster.rigs[0].instance.leave(cluster.rigs[0].now))
        cluster.settle()
        // No time has passed.
        let after = try cluster.change()
        #expect(cluster.pushes[before] == [0] && cluster.pushes[after] == [1])
        // It goes on for a while, as when it drains, and takes nothing back.
        cluster.run(.seconds(10))
        #expect(try cluster.pushers() == [1] && !cluster.rigs[0].isUnavailable)
    }

    @Test("Who takes over from a dead instance pushes what changed since a second before its last sign of life, and no more")
    func missedPushes() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 0, for: .seconds(300))
        let early = try cluster.change()
        cluster.run(.seconds(3))
        cluster.stop(0)
        cluster.run(.seconds(4))
        #expect(cluster.pushes[early] == [0], "pushed long ago, and not again")
        cluster.goOn(0)
        cluster.run(.seconds(3))
        cluster.stop(0)
        let late = try cluster.change()
        cluster.run(.seconds(5))
        #expect(cluster.pushes[late] == [1], "only by who took over")
        cluster.goOn(0)
        cluster.run(.seconds(2))
        #expect(cluster.pushes[late] == [1], "who was away leaves it at that")
    }

    @Test("While etcd takes no puts nobody is declared dead, nothing is pushed again, and it is told once")
    func noSpace() throws {
        var cluster = try Cluster(3)
        for number in 1...20 {
            cluster.subscribe(Endpoint(address("198.51.100.\(number)"), port: 6289), at: number % 3, for: .seconds(300))
        }
        let served = cluster.served
        let last = try cluster.change()
        cluster.hasSpace = false
        for index in 0..<3 { cluster.rigs[index].events = [] }
        cluster.run(.seconds(60))
        #expect(cluster.served == served && cluster.pushes[last]?.count == 20)
        for rig in cluster.rigs {
            #expect(rig.events.filter { if case .unavailable = $0 { true } else { false } }.count == 1)
            #expect(rig.events.count == 1, "\(rig.events)")
        }
        cluster.hasSpace = true
        cluster.run(.seconds(5))
        #expect(cluster.served == served, "all lived on")
        let revision = try cluster.change()
        #expect(cluster.pushes[revision]?.count == 20)
    }

    @Test("All were stopped at once, for a minute: none takes another for dead")
    func allStopped() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 2, for: .seconds(300))
        for index in 0..<3 { cluster.stop(index) }
        cluster.run(.seconds(60))
        for index in [1, 0, 2] { cluster.goOn(index) }
        cluster.run(.seconds(5))
        #expect(try cluster.pushers() == [2])
        #expect(cluster.pushes.values.allSatisfy { $0 == [2] })
    }

    @Test("A grant that another instance gave meanwhile is not taken back by who gives the subscriber up")
    func unsubscribedTooLate() throws {
        var cluster = try Cluster(3)
        cluster.subscribe(subscriber, at: 0, for: .seconds(60))
        cluster.subscribe(subscriber, at: 1, for: .seconds(60))
        // 1 has not read that 0 granted anew.
        let value = ClusterValue.encode(subscriptionEnding: 60_000, grantedAt: 0, local: address("203.0.113.1"))
        cluster.write([.put(EtcdPut(key: cluster.keys.octets(.subscription(InstanceID(number: 1), mapping, subscriber)), value: value))])
        cluster.rigs[1].perform(cluster.rigs[1].instance.share([.unsubscribed(mapping, subscriber)], cluster.rigs[1].now))
        cluster.run(.seconds(1))
        #expect(try cluster.pushers() == [0])
        // Now 0 gives it up: nothing is left of it.
        cluster.served[0] = []
        cluster.rigs[0].perform(cluster.rigs[0].instance.share([.unsubscribed(mapping, subscriber)], cluster.rigs[0].now))
        cluster.run(.seconds(1))
        #expect(try cluster.pushers() == [])
        #expect(cluster.rigs.allSatisfy { $0.instance.living.subscriptions.entries.isEmpty })
    }

    /// Stops, returns, good-byes, grants and changes at random, with etcd full now and then.
    @Test("Whatever happens: each change is pushed to a granted subscriber once, by one instance, when all is quiet again")
    func randomly() throws {
        var generator = SeededGenerator(seed: 38)
        for round in 0..<12 {
            var cluster = try Cluster(3)
            cluster.subscribe(subscriber, at: 0, for: .seconds(300))
            var granted = cluster.rigs[0].now.monotonic + .seconds(300)
            for _ in 0..<25 {
                let index = Int.random(in: 0..<3, using: &generator)
                switch Int.random(in: 0..<5, using: &generator) {
                case 0 where cluster.isDown.isEmpty: cluster.stop(index)
                case 1: for index in cluster.isDown.sorted() { cluster.goOn(index) }
                case 2 where !cluster.isDown.contains(index):
                    let seconds = Int.random(in: 10...300, using: &generator)
                    cluster.subscribe(subscriber, at: index, for: .seconds(seconds))
                    if cluster.hasSpace { granted = max(granted, cluster.rigs[0].now.monotonic + .seconds(seconds)) }
                case 3: cluster.hasSpace.toggle()
                default: if cluster.hasSpace { try cluster.change() }
                }
                cluster.run(.milliseconds(.random(in: 50...5000, using: &generator)))
            }
            cluster.hasSpace = true
            for index in cluster.isDown.sorted() { cluster.goOn(index) }
            cluster.run(.seconds(6))
            #expect(granted > cluster.rigs[0].now.monotonic)
            let pushers = try cluster.pushers()
            #expect(pushers.count == 1, "round \(round): \(pushers)")
        }
    }
}

import IMS
import IMSCore
import MATSignal
import MappingMemory
import Testing

@testable import IMSCluster

/// An instance whose etcd is the test: it answers as a member would, or not at all.
struct Rig {
    var instance: ClusterInstance
    var now = Now(monotonic: MonotonicTime(nanoseconds: 1_000_000_000), wallMilliseconds: 1_790_000_000_000)
    var connects: [Int] = []
    var calls: [(id: UInt64, request: EtcdRequest)] = []
    /// The member answers what it can by itself, unless it is stopped; of this term.
    var isStopped = false
    var term: UInt64 = 2
    var probesCount = 0
    var silentProbes: [UInt64] = []
    var watches: [EtcdWatch] = []
    var events: [StoreEvent] = []
    var disconnects = 0
    /// As the shell, its core and its workers use it; the core takes events at once, in order.
    let freshness = Freshness(until: .zero)
    var mayAnswer: Bool { freshness.mayAnswer(at: now.monotonic) }
    let keys = ClusterKeys(prefix: "/t/")
    let id: InstanceID
    static let id = InstanceID(number: 7)

    init(id: InstanceID = Self.id) {
        self.id = id
        instance = ClusterInstance(ClusterInstance.Settings(keys: keys, id: id, membersCount: 3, login: nil), now: now)
        instance.serves = true
        perform(instance.tick(now))
    }

    mutating func perform(_ actions: [ClusterInstance.Action]) {
        var probes: [UInt64] = []
        for action in actions {
            switch action {
            case .connect(let index): connects.append(index)
            case .disconnect:
                disconnects += 1
                calls = []
            case .useToken: break
            case .call(let id, .range(let range), _) where range.isLocal:
                probesCount += 1
                if isStopped { silentProbes.append(id) } else { probes.append(id) }
            case .call(let id, let request, _): calls.append((id, request))
            case .watch(let watch): watches.append(watch)
            case .answer(let until): freshness.extend(to: until)
            case .withholdAnswers(let number): freshness.withhold(number)
            case .deliver(let event):
                events.append(event)
                if case .caughtUp(let number) = event { freshness.release(number) }
            }
        }
        for id in probes {
            var response = EtcdResponse()
            response.term = term
            perform(instance.answered(id, .success(response), now))
        }
    }

    mutating func advance(_ duration: Duration) {
        var left = duration
        while left > .zero {
            let step = min(left, .milliseconds(50))
            now = Now(
                monotonic: now.monotonic + step, wallMilliseconds: now.wallMilliseconds + UInt64(step.millisecondsSaturated))
            left -= step
            perform(instance.tick(now))
        }
    }

    /// The connection is lost, and with it what was asked.
    mutating func cut(isInTouch: Bool = false) {
        calls = []
        perform(instance.disconnected("cut", isInTouch: isInTouch, now))
    }

    mutating func connect() { perform(instance.connected(now)) }

    /// Answers the oldest call.
    mutating func answer(_ change: (inout EtcdResponse) -> Void = { _ in }) {
        guard !calls.isEmpty else { return }
        var response = EtcdResponse()
        response.revision = 100
        response.term = term
        response.succeeded = true
        change(&response)
        perform(instance.answered(calls.removeFirst().id, .success(response), now))
    }

    mutating func fail(_ kind: EtcdError.Kind) {
        guard !calls.isEmpty else { return }
        perform(instance.answered(calls.removeFirst().id, .failure(EtcdError(kind, "told so")), now))
    }

    /// Connected, opened, everything read: nothing is there.
    mutating func settle() {
        connect()
        answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
        while !calls.isEmpty { answer() }
    }

    func pair(_ key: ClusterKeys.Key, _ value: [UInt8], at revision: Int64) -> EtcdKeyValue {
        var pair = EtcdKeyValue()
        pair.key = keys.octets(key)
        pair.value = value
        pair.modRevision = revision
        return pair
    }

    mutating func watched(_ pairs: [EtcdKeyValue]) { watched(pairs.map { EtcdWatchResponse.Event(pair: $0) }) }

    mutating func watched(_ events: [EtcdWatchResponse.Event]) {
        var response = EtcdWatchResponse()
        response.events = events
        perform(instance.watched(response, now))
    }

    static func sign(_ count: UInt64, pushedUpTo: Int64 = 1) -> [UInt8] { ClusterValue.encode(signOfLife: count, pushedUpTo: pushedUpTo) }

    /// The numbers of the signs of life that wait for an answer.
    var signs: [UInt64] {
        calls.compactMap { call in
            guard case .transaction(let transaction) = call.request, case .put(let put)? = transaction.success.first,
                put.key == keys.octets(.instance(id))
            else { return nil }
            return ClusterValue.signOfLife(put.value)?.count
        }
    }
    var changed: [StoreChange] { events.flatMap { if case .changed(let changes) = $0 { changes } else { [StoreChange]() } } }
    var outcomes: [StoreOutcome] {
        events.flatMap { if case .committed(let outcomes) = $0 { outcomes } else { [StoreOutcome]() } }
    }
    var isUnavailable: Bool {
        for event in events.reversed() {
            if case .unavailable = event { return true }
            if case .available = event { return false }
        }
        return false
    }
}

@Suite("An instance's part in the cluster")
struct InstanceTests {
    @Test("All is read as of one revision, in pages, and followed from there; after a loss from the last that came")
    func feed() throws {
        var rig = Rig()
        let node = try TestNode("192.0.2.1")
        #expect(rig.connects == [0])
        rig.connect()
        rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
        let page = try #require(rig.calls.first)
        guard case .range(let range) = page.request else { return #expect(Bool(false)) }
        #expect(range.revision == 100 && range.key == rig.keys.followed.key)
        let first = rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(try node.stored(5)), at: 90)
        rig.answer {
            $0.pairs = [first]
            $0.hasMore = true
        }
        guard let next = rig.calls.compactMap({ if case .range(let range) = $0.request { range } else { nil } }).last else {
            return #expect(Bool(false))
        }
        #expect(next.revision == 100 && next.key == first.key + [0])
        while !rig.calls.isEmpty { rig.answer() }
        #expect(rig.watches.map(\.fromRevision) == [101])
        #expect(rig.events.contains { if case .loadEnded = $0 { true } else { false } })

        rig.watched([rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(try node.stored(6)), at: 103)])
        #expect(rig.changed == [StoreChange(mapping: try node.stored(6))])
        rig.cut()
        rig.advance(.milliseconds(200))
        #expect(rig.connects == [0, 1], "another member")
        rig.settle()
        #expect(rig.watches.map(\.fromRevision) == [101, 104])
    }

    @Test("A part of a revision is asked for again; what is compacted is read anew, and told as changes")
    func compaction() throws {
        var rig = Rig()
        rig.settle()
        let node = try TestNode("192.0.2.1")
        var part = EtcdWatchResponse()
        part.isFragment = true
        part.events = [
            EtcdWatchResponse.Event(
                pair: rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(try node.stored(6)), at: 110))
        ]
        rig.perform(rig.instance.watched(part, rig.now))
        rig.cut()
        rig.advance(.milliseconds(200))
        rig.settle()
        #expect(rig.watches.last?.fromRevision == 110)

        var gone = EtcdWatchResponse()
        gone.isCanceled = true
        gone.compactRevision = 500
        rig.perform(rig.instance.watched(gone, rig.now))
        rig.advance(.milliseconds(200))
        rig.connect()
        rig.answer {
            $0.revision = 600
            $0.responses = [EtcdResponse(), EtcdResponse()]
        }
        let newer = rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(try node.stored(9)), at: 555)
        rig.answer { $0.pairs = [newer] }
        while !rig.calls.isEmpty { rig.answer() }
        #expect(rig.changed.last == StoreChange(mapping: try node.stored(9)))
        #expect(rig.watches.last?.fromRevision == 601)
        #expect(rig.events.filter { if case .loadEnded = $0 { true } else { false } }.count == 1)
    }

    @Test("A member that is silent is left within two seconds; so is one whose watch is silent")
    func silence() throws {
        var rig = Rig()
        rig.settle()
        rig.advance(.milliseconds(600))
        // The shell's deadline ends the sign of life that nobody answers.
        rig.fail(.unreachable)
        rig.advance(.milliseconds(200))
        #expect(rig.connects == [0, 1])
        rig.settle()
        // Answers come, the watch brings nothing.
        for _ in 0..<30 {
            rig.advance(.milliseconds(100))
            while !rig.calls.isEmpty { rig.answer() }
        }
        #expect(rig.connects == [0, 1, 2])
        rig.settle()
        // It brings our signs of life: all is well.
        for _ in 0..<50 {
            rig.advance(.milliseconds(100))
            while !rig.calls.isEmpty { rig.answer() }
            rig.watched([rig.pair(.instance(Rig.id), Rig.sign(.max - 1), at: 700)])
        }
        #expect(rig.connects == [0, 1, 2] && !rig.isUnavailable)
    }

    @Test("A member that does not answer what it knows by itself is left within 500 ms for the next; one that is slow to write is not")
    func stoppedMember() throws {
        var rig = Rig()
        rig.settle()
        let node = try TestNode("192.0.2.1")
        rig.perform(rig.instance.commit([(StoreTicket(number: 1), StoreChange(mapping: try node.stored(5)))], rig.now))
        let put = try #require(rig.calls.first?.request)
        // An election, say: the write takes its time, but the member lives.
        rig.advance(.milliseconds(900))
        #expect(rig.connects == [0] && (7...10).contains(rig.probesCount))
        rig.isStopped = true
        rig.advance(.milliseconds(300))
        #expect(rig.connects == [0], "late is not silent")
        rig.advance(.milliseconds(200))
        #expect(rig.connects == [0, 1] && rig.disconnects == 1)
        rig.isStopped = false
        rig.connect()
        rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
        #expect(rig.calls.contains { $0.request == put })
    }

    /// Of the three servers of a test at random, one that was cut off for 1.7 s answered from before when it was back, until it had found etcd again.
    @Test("A server that is cut off from all answers nothing from 300 ms on, and not before it has heard of what happened meanwhile")
    func cutOff() throws {
        var rig = Rig()
        rig.settle()
        rig.advance(.milliseconds(100))
        #expect(rig.mayAnswer)
        rig.isStopped = true
        rig.advance(.milliseconds(300))
        #expect(rig.connects == [0] && !rig.mayAnswer)
        // Nobody takes the connections, for longer than it takes to believe in the loss of a quorum; then the net is back.
        for _ in 0..<6 {
            rig.advance(.milliseconds(500))
            rig.cut()
            rig.advance(.milliseconds(100))
            #expect(!rig.mayAnswer)
        }
        rig.isStopped = false
        rig.advance(.milliseconds(1600))
        rig.connect()
        rig.advance(.milliseconds(500))
        #expect(!rig.mayAnswer, "etcd was reached, and has not told")
        rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
        let node = try TestNode("192.0.2.1")
        rig.watched([rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(try node.stored(6)), at: 103)])
        #expect(!rig.mayAnswer && rig.changed.isEmpty)
        let sign = try #require(rig.signs.last)
        rig.watched([rig.pair(.instance(Rig.id), Rig.sign(sign), at: 104)])
        #expect(rig.mayAnswer && rig.changed.count == 1)
    }

    @Test("With a member that takes 700 ms for whatever it is asked, queries are answered again and again, rather than withheld for long")
    func slowMember() throws {
        var rig = Rig()
        rig.settle()
        rig.isStopped = true
        rig.silentProbes = []
        // What is asked, and when it is answered.
        var (probes, calls): ([UInt64: MonotonicTime], [UInt64: MonotonicTime]) = ([:], [:])
        var (answering, silence, longest) = (0, 0, 0)
        for step in 0..<1600 {
            rig.advance(.milliseconds(50))
            // It has become so by and by, or it would have been left.
            let took: Duration = step < 200 ? .milliseconds(250) : step < 400 ? .milliseconds(450) : .milliseconds(700)
            if step == 400 { answering = 0 }
            if rig.mayAnswer { (answering, silence) = (answering + 1, 0) } else { silence += 1 }
            longest = max(longest, silence * 50)
            let due = rig.now.monotonic + took
            for id in rig.silentProbes { probes[id] = due }
            rig.silentProbes = []
            for call in rig.calls where calls[call.id] == nil { calls[call.id] = due }
            for (id, time) in probes where time <= rig.now.monotonic {
                probes[id] = nil
                var response = EtcdResponse()
                response.term = rig.term
                rig.perform(rig.instance.answered(id, .success(response), rig.now))
            }
            while let call = rig.calls.first, let time = calls[call.id], time <= rig.now.monotonic {
                let sign = rig.signs.first
                rig.answer()
                if let sign { rig.watched([rig.pair(.instance(Rig.id), Rig.sign(sign), at: 200 + Int64(sign))]) }
            }
        }
        #expect(rig.connects == [0])
        #expect(answering > 150 && longest <= 2000, "\(answering) of 1200, \(longest) ms")
    }

    @Test("Without etcd queries are answered again: after two seconds if its machines are there, after ten if nothing is heard of anybody")
    func withoutEtcd() {
        for isInTouch in [true, false] {
            var rig = Rig()
            rig.settle()
            rig.cut(isInTouch: isInTouch)
            var answersAfter = 0
            for step in 1...300 where answersAfter == 0 {
                rig.advance(.milliseconds(50))
                rig.cut(isInTouch: isInTouch)
                if rig.mayAnswer { answersAfter = step * 50 }
            }
            #expect(answersAfter == (isInTouch ? 2000 : 10_000))
            // For good, until etcd is back and something may have been written.
            rig.advance(.seconds(60))
            #expect(rig.mayAnswer)
            rig.connect()
            rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
            #expect(!rig.mayAnswer)
        }
    }

    @Test("A member far away, whose answers take longer than is waited for at first, is not left again and again")
    func distantMember() {
        var probe = MemberProbe()
        var now = MonotonicTime(nanoseconds: 1_000_000_000)
        func pass(_ count: Int, answersTake time: Duration) -> Int {
            var silences = 0
            for _ in 0..<count {
                now = now + .milliseconds(50)
                guard probe.ticked(canAsk: true, now) == .ask else { continue }
                let asked = now
                while now < asked + time {
                    now = now + .milliseconds(50)
                    if probe.ticked(canAsk: true, now) == .silent {
                        silences += 1
                        break
                    }
                }
                probe.answered(now)
            }
            return silences
        }
        #expect(pass(40, answersTake: .milliseconds(250)) == 0, "nothing is known of it")
        #expect(pass(40, answersTake: .zero) == 0 && probe.patience == MemberProbe.patienceMin)
        #expect(pass(40, answersTake: .milliseconds(250)) <= 2, "a load, say, that came of a sudden")
        #expect(pass(400, answersTake: .milliseconds(250)) == 0)
        #expect(pass(400, answersTake: .milliseconds(1100)) > 0)
        #expect(probe.patience == MemberProbe.patienceMax)
    }

    @Test("What was asked before an election is asked again as soon as any answer tells of it, of a member that is opened too")
    func election() throws {
        var rig = Rig()
        rig.settle()
        let node = try TestNode("192.0.2.1")
        rig.perform(rig.instance.commit([(StoreTicket(number: 1), StoreChange(mapping: try node.stored(5)))], rig.now))
        let put = try #require(rig.calls.first?.request)
        func puts(_ rig: Rig) -> Int { rig.calls.count { $0.request == put } }
        rig.advance(.milliseconds(200))
        #expect(puts(rig) == 1)
        rig.term = 3
        rig.advance(.milliseconds(100))
        #expect(puts(rig) == 2 && rig.connects == [0])
        rig.advance(.milliseconds(500))
        #expect(puts(rig) == 2, "once for each election")
        // The first was lost with the old leader, and its answer, should it come all the same, is nobody's.
        let lost = rig.calls.firstIndex { $0.request == put }
        rig.calls.remove(at: try #require(lost))
        rig.calls.swapAt(0, try #require(rig.calls.firstIndex { $0.request == put }))
        rig.answer {
            var done = EtcdResponse()
            done.succeeded = true
            $0.responses = [done]
        }
        #expect(rig.outcomes == [StoreOutcome(StoreTicket(number: 1), .durable)])

        rig.cut()
        rig.connect()
        #expect(rig.calls.count == 1)
        rig.term = 4
        rig.advance(.milliseconds(150))
        #expect(rig.calls.count == 2 && rig.calls[0].request == rig.calls[1].request)
        rig.calls.removeFirst()
        rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
        #expect(rig.watches.count == 2)
    }

    @Test("A server that was stopped answers again when it has heard of what happened meanwhile, or after 30 s without etcd")
    func stopped() throws {
        var rig = Rig()
        rig.settle()
        rig.advance(.seconds(1))
        #expect(rig.mayAnswer)
        while !rig.calls.isEmpty { rig.answer() }
        func sleep(_ duration: Duration) {
            rig.now = Now(
                monotonic: rig.now.monotonic + duration,
                wallMilliseconds: rig.now.wallMilliseconds + UInt64(duration.millisecondsSaturated))
        }
        sleep(.seconds(5))
        #expect(!rig.mayAnswer, "before anything has run")
        rig.advance(.milliseconds(50))
        #expect(!rig.mayAnswer)
        // A sign of life of before it slept proves nothing; the next does.
        rig.watched([rig.pair(.instance(Rig.id), Rig.sign(1), at: 700)])
        #expect(!rig.mayAnswer)
        rig.watched([rig.pair(.instance(Rig.id), Rig.sign(.max - 1), at: 701)])
        #expect(rig.mayAnswer)

        // Without etcd for long: other servers know better, until it is likely that they can't be better off.
        sleep(.seconds(5))
        rig.advance(.seconds(29))
        #expect(!rig.mayAnswer)
        rig.advance(.seconds(2))
        #expect(rig.mayAnswer, "queries go on without etcd")
    }

    @Test("A change whose answer is lost is asked again and finds itself; one that nobody takes fails within its time")
    func changes() throws {
        var rig = Rig()
        rig.settle()
        let node = try TestNode("192.0.2.1")
        let mapping = try node.stored(5)
        rig.perform(rig.instance.commit([(StoreTicket(number: 1), StoreChange(mapping: mapping))], rig.now))
        #expect(rig.calls.count == 1)
        rig.cut()
        rig.advance(.milliseconds(200))
        rig.connect()
        rig.answer { $0.responses = [EtcdResponse(), EtcdResponse()] }
        // It was done: etcd's answer is that there is nothing older, and shows what is there.
        let index = try #require(
            rig.calls.firstIndex {
                if case .transaction(let t) = $0.request, case .transaction? = t.success.first { true } else { false }
            })
        rig.calls.swapAt(0, index)
        let pair = rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(mapping), at: 101)
        rig.answer {
            var innermost = EtcdResponse()
            innermost.pairs = [pair]
            var inner = EtcdResponse()
            inner.responses = [innermost]
            var outer = EtcdResponse()
            outer.responses = [inner]
            $0.responses = [outer]
        }
        #expect(rig.outcomes == [StoreOutcome(StoreTicket(number: 1), .durable)])

        rig.cut()
        rig.perform(rig.instance.commit([(StoreTicket(number: 2), StoreChange(mapping: try node.stored(6)))], rig.now))
        rig.advance(.seconds(4))
        guard case .failed? = rig.outcomes.last?.result else { return #expect(Bool(false), "still waiting") }
        #expect(rig.isUnavailable)
        #expect(rig.outcomes.count == 2)
    }

    @Test("Changes of one HoA follow one another, those of others share transactions; none overtakes its own")
    func order() throws {
        var rig = Rig()
        rig.settle()
        let (a, b) = (try TestNode("192.0.2.1"), try TestNode("192.0.2.2", seed: 2))
        let changes = try [a.stored(1), a.stored(2), b.stored(1), a.stored(3)]
        let commits = changes.enumerated().map { (StoreTicket(number: UInt64($0.offset)), StoreChange(mapping: $0.element)) }
        rig.perform(rig.instance.commit(commits, rig.now))
        var sent: [[EtcdOperation]] = []
        for _ in 0..<3 {
            guard let call = rig.calls.first, case .transaction(let transaction) = call.request else { break }
            sent.append(transaction.success)
            rig.answer { response in
                response.responses = transaction.success.map { _ in
                    var done = EtcdResponse()
                    done.succeeded = true
                    return done
                }
            }
        }
        func put(_ mapping: StoredMapping) -> EtcdOperation {
            ClusterInstance.putIfNewer(
                EtcdPut(key: rig.keys.octets(.mapping(mapping.record.prefix)), value: ClusterValue.encode(mapping)),
                mapping.certified.version)
        }
        #expect(sent == [[put(changes[0]), put(changes[2])], [put(changes[1])], [put(changes[3])]])
        #expect(rig.outcomes.map(\.result) == [.durable, .durable, .durable, .durable])
    }

    @Test("A record that etcd can't compare is compared here and put over what was read; what was written meanwhile is compared anew")
    func compareAndPut() throws {
        var rig = Rig()
        rig.settle()
        let (first, renewed) = (try TestNode("192.0.2.1"), try TestNode("192.0.2.1", notBefore: 1_790_000_000_001))
        let key = ClusterKeys.Key.mapping(IPPrefix(first.hoa.address))
        func refuse(_ mapping: StoredMapping, at revision: Int64) {
            let pair = rig.pair(key, ClusterValue.encode(mapping), at: revision)
            rig.answer { response in
                var (read, absent, refused) = (EtcdResponse(), EtcdResponse(), EtcdResponse())
                read.pairs = [pair]
                absent.responses = [read]
                refused.responses = [absent]
                response.responses = [refused]
            }
        }
        func isOver(_ revision: Int64) -> Bool {
            guard case .transaction(let batch)? = rig.calls.first?.request, case .transaction(let put)? = batch.success.first else { return false }
            return put.compare == [.modifiedAt(rig.keys.octets(key), revision)]
        }
        let later = StoreChange(mapping: try renewed.stored(12))
        let commits = [
            (StoreTicket(number: 1), StoreChange(mapping: try renewed.stored(10))), (StoreTicket(number: 2), later),
        ]
        rig.perform(rig.instance.commit(commits, rig.now))
        refuse(try first.stored(9), at: 40)
        #expect(isOver(40) && rig.outcomes.isEmpty)
        // Another instance was quicker, with what is older still; then with what is newer.
        refuse(try first.stored(8), at: 41)
        #expect(isOver(41) && rig.outcomes.isEmpty)
        let newer = try first.stored(11)
        refuse(newer, at: 42)
        #expect(rig.outcomes == [StoreOutcome(StoreTicket(number: 1), .outrun(by: newer))])
        refuse(newer, at: 42)
        #expect(isOver(42), "the change behind it is compared by itself")
    }

    @Test("What the watch brings before a sign of life of now is with the core before answers are released")
    func caughtUpInOrder() throws {
        var rig = Rig()
        rig.settle()
        rig.advance(.seconds(1))
        rig.now = Now(monotonic: rig.now.monotonic + .seconds(5), wallMilliseconds: rig.now.wallMilliseconds + 5000)
        rig.advance(.milliseconds(50))
        #expect(!rig.mayAnswer)
        let node = try TestNode("192.0.2.1")
        rig.events = []
        // One response with both, as after a stop.
        rig.watched([
            rig.pair(.mapping(IPPrefix(node.hoa.address)), ClusterValue.encode(try node.stored(6)), at: 103),
            rig.pair(.instance(Rig.id), Rig.sign(.max - 1), at: 104),
        ])
        let order = rig.events.map { event in
            switch event {
            case .changed: "changed"
            case .caughtUp: "caught up"
            default: "other"
            }
        }
        #expect(order.firstIndex(of: "changed") ?? .max < order.firstIndex(of: "caught up") ?? .min, "\(order)")
        #expect(rig.mayAnswer)
    }

    @Test("Answers are released by the core's loop, when it has applied what came before, and not by the store's thread")
    func freshness() {
        let freshness = Freshness(until: MonotonicTime(nanoseconds: 100))
        let now = MonotonicTime(nanoseconds: 50)
        #expect(freshness.mayAnswer(at: now) && !freshness.mayAnswer(at: MonotonicTime(nanoseconds: 101)))
        freshness.withhold(1)
        freshness.extend(to: MonotonicTime(nanoseconds: 200))
        #expect(!freshness.mayAnswer(at: now), "what was handed on is not applied yet")
        // Stopped again before the core came to it: what it then comes to is of the time before.
        freshness.withhold(2)
        freshness.release(1)
        #expect(!freshness.mayAnswer(at: now))
        freshness.release(2)
        #expect(freshness.mayAnswer(at: now))
    }

    @Test("When etcd can't be reached, connections are tried less and less often")
    func backOff() {
        var rig = Rig()
        for _ in 0..<600 {
            rig.advance(.milliseconds(50))
            rig.perform(rig.instance.disconnected("refused", isInTouch: true, rig.now))
        }
        // 30 s; at 100 ms each there were 200.
        #expect((15...40).contains(rig.connects.count), "\(rig.connects.count)")
    }

    @Test("That etcd refuses what is shared is told once, also if something else was wrong before")
    func refusedNews() throws {
        var rig = Rig()
        rig.settle()
        rig.perform(rig.instance.share([.remembered(try TestNode("192.0.2.1").certified(1), isConfirmed: true)], rig.now))
        var leases = 0
        for _ in 0..<100 {
            rig.advance(.milliseconds(100))
            while let call = rig.calls.first {
                // At first there is no leader; then it is found out that this may not be written.
                if case .grantLease = call.request {
                    leases += 1
                    if leases == 1 { rig.fail(.unavailable) } else { rig.fail(.refused) }
                } else {
                    rig.answer()
                }
            }
            rig.watched([rig.pair(.instance(Rig.id), Rig.sign(.max - 1), at: 700)])
        }
        #expect(leases > 3)
        let told = rig.events.compactMap { if case .failed(let text) = $0 { text } else { nil } }
        #expect(told.count == 1 && told[0].contains("not shared"), "\(told)")
    }

    /// What is written about news: the operations of the transactions that were asked for, each of which is answered.
    private func written(_ rig: inout Rig) -> [EtcdOperation] {
        var operations: [EtcdOperation] = []
        for _ in 0..<20 {
            rig.advance(.milliseconds(50))
            while let call = rig.calls.first {
                switch call.request {
                case .grantLease: rig.answer { $0.lease = 5 }
                case .transaction(let transaction):
                    operations += transaction.success
                    rig.answer { $0.responses = transaction.success.map { _ in EtcdResponse() } }
                default: rig.answer()
                }
            }
        }
        return operations.filter { operation in
            switch operation {
            case .put(let put): rig.keys.parse(put.key) != .instance(Rig.id)
            default: true
            }
        }
    }

    @Test("What a bound node is to be told goes to the instance that has its binding, once; without one it comes back to the own core")
    func handOver() throws {
        var rig = Rig()
        rig.settle()
        let other = InstanceID(number: 9)
        let (node, peer) = (try #require(IPPrefix("192.0.2.7/32")), try TestNode("192.0.2.1").certified(1))
        func handedBack(_ rig: Rig) -> Int {
            rig.events.count { if case .shared([.handedOver(to: node, peer)]) = $0 { true } else { false } }
        }
        // Nobody has it.
        rig.perform(rig.instance.share([.handOver(to: node, peer)], rig.now))
        #expect(handedBack(rig) == 1)
        // One that lives has it.
        rig.watched([
            rig.pair(.instance(other), Rig.sign(1), at: 200),
            rig.pair(.binding(other, node), ClusterValue.encode(bindingEnding: 700_000, boundAt: 100_000), at: 201),
        ])
        rig.perform(rig.instance.share([.handOver(to: node, peer)], rig.now))
        let key = rig.keys.octets(.handOver(other, to: node, of: peer.record.prefix))
        let puts = written(&rig).compactMap { if case .put(let put) = $0 { put } else { nil } }
        #expect(puts.map(\.key) == [key] && ClusterValue.remembered(puts.first?.value ?? [])?.certified == peer && handedBack(rig) == 1)
        // It is no more.
        rig.watched([EtcdWatchResponse.Event(isDelete: true, pair: rig.pair(.instance(other), [], at: 300))])
        rig.perform(rig.instance.share([.handOver(to: node, peer)], rig.now))
        #expect(handedBack(rig) == 2)
        // What others hand over is told to the core, and taken out of etcd.
        let mine = rig.pair(.handOver(Rig.id, to: node, of: peer.record.prefix), ClusterValue.encode(peer, isConfirmed: true), at: 400)
        let others = rig.pair(.handOver(other, to: node, of: peer.record.prefix), ClusterValue.encode(peer, isConfirmed: true), at: 401)
        rig.watched([mine, others])
        #expect(handedBack(rig) == 3)
        #expect(
            written(&rig) == [
                .transaction(EtcdTransaction(compare: [.modifiedAt(mine.key, 400)], success: [.delete(mine.key)]))
            ])
    }

    @Test("Bindings are told to the other instances for as long as they may be kept up, and their ends")
    func bindings() throws {
        var rig = Rig()
        rig.settle()
        let node = try #require(IPPrefix("192.0.2.7/32"))
        rig.perform(rig.instance.share([.bound(node, lasts: .seconds(600))], rig.now))
        let put = written(&rig).compactMap { if case .put(let put) = $0 { put } else { nil } }.first
        #expect(put?.key == rig.keys.octets(.binding(Rig.id, node)) && ClusterValue.binding(put?.value ?? []) == .seconds(600))
        rig.perform(rig.instance.share([.unbound(node)], rig.now))
        #expect(written(&rig) == [.delete(rig.keys.octets(.binding(Rig.id, node)))])
    }
}

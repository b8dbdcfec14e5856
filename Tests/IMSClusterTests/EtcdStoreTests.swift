import Glibc
import IMS
import IMSCore
import MATSignal
import MappingMemory
import Synchronization
import Testing

@testable import IMSCluster

/// What a store has told so far.
final class Told: Sendable {
    private let events = Mutex<[StoreEvent]>([])

    func add(_ event: StoreEvent) { events.withLock { $0.append(event) } }
    var all: [StoreEvent] { events.withLock { $0 } }

    var hasLoaded: Bool { all.contains { if case .loadEnded = $0 { true } else { false } } }
    var loaded: [StoredMapping] {
        all.flatMap { event -> [StoredMapping] in
            if case .loaded(let contents) = event { contents.mappings.stored.compactMap { $0 } } else { [] }
        }
    }
    var issued: [Certificate] { all.flatMap { if case .loaded(let contents) = $0 { contents.issued } else { [Certificate]() } } }
    var rows: [StoredRow] { all.flatMap { if case .loaded(let contents) = $0 { contents.rows } else { [StoredRow]() } } }
    var changed: [StoreChange] { all.flatMap { if case .changed(let changes) = $0 { changes } else { [StoreChange]() } } }
    var shared: [SharedNews] { all.flatMap { if case .shared(let news) = $0 { news } else { [SharedNews]() } } }
    var secrets: [CookieSecret] { all.compactMap { if case .secrets(let secrets) = $0 { secrets } else { nil } }.last ?? [] }
    var failures: [String] { all.compactMap { if case .failed(let text) = $0 { text } else { nil } } }
    var outcomes: [StoreOutcome] { all.flatMap { if case .committed(let outcomes) = $0 { outcomes } else { [StoreOutcome]() } } }
    func outcome(_ number: UInt64) -> StoreOutcome.Result? {
        all.lazy.flatMap { if case .committed(let outcomes) = $0 { outcomes } else { [StoreOutcome]() } }
            .first { $0.ticket.number == number }?.result
    }
    /// What was said last of whether changes are taken.
    var isAvailable: Bool {
        for event in all.reversed() {
            switch event {
            case .available: return true
            case .unavailable: return false
            default: continue
            }
        }
        return hasLoaded
    }
}

/// An instance's store without the IMS around it.
final class TestInstance: Sendable {
    let store: EtcdStore
    let told = Told()

    /// - Parameter serves: whether it stands for a server, rather than for an import or export.
    init(_ configuration: EtcdConfiguration, serves: Bool = true) throws {
        store = try EtcdStore(configuration)
        store.start { [told] in told.add($0) }
        if serves { store.serve() }
    }

    func commit(_ number: UInt64, _ change: StoreChange, within seconds: Double = 10) -> StoreOutcome.Result? {
        store.commit(StoreTicket(number: number), change)
        eventually(within: seconds) { told.outcome(number) != nil }
        return told.outcome(number)
    }

    deinit { store.close() }
}

extension EtcdMembers {
    /// Servers that have loaded what there is.
    func instances(_ count: Int, sourceLocation: SourceLocation = #_sourceLocation) throws -> [TestInstance] {
        let instances = try (0..<count).map { _ in try TestInstance(configuration()) }
        #expect(eventually { instances.allSatisfy { $0.told.hasLoaded } }, sourceLocation: sourceLocation)
        return instances
    }
}

@Suite(
    "The store on etcd", .serialized,
    .enabled(if: EtcdMembers.obstacle == nil, "etcd is not installed; deploy/install-packages installs it"))
struct EtcdStoreTests {
    @Test("What one instance writes is durable, others hear of it, and a third that starts later reads it")
    func writeAndFollow() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(2)
        let (first, second) = (instances[0], instances[1])

        let node = try TestNode("192.0.2.1")
        let other = try TestNode("2001:db8:10::5", seed: 2)
        let mapping = try node.stored(1000)
        #expect(first.commit(1, StoreChange(mapping: mapping)) == .durable)
        #expect(first.commit(2, StoreChange(mapping: try other.stored(5), issued: other.certificate)) == .durable)
        #expect(eventually { second.told.changed.contains(StoreChange(mapping: mapping)) })
        #expect(eventually { second.told.changed.contains(StoreChange(issued: other.certificate)) })

        // Older, equal with other content, newer; and the same again, as a node sends it to the next server after silence.
        #expect(second.commit(3, StoreChange(mapping: try node.stored(999))) == .outrun(by: mapping))
        #expect(second.commit(4, StoreChange(mapping: try node.stored(1000, at: "198.51.100.9"))) == .outrun(by: mapping))
        #expect(second.commit(5, StoreChange(mapping: mapping)) == .durable)
        let newer = try node.stored(1001)
        #expect(second.commit(6, StoreChange(mapping: newer)) == .durable)
        #expect(eventually { first.told.changed.last == StoreChange(mapping: newer) })
        // A later certificate of another key comes before any sequence.
        let renewed = try TestNode("192.0.2.1", seed: 3, notBefore: 1_790_000_000_001)
        #expect(first.commit(7, StoreChange(mapping: try renewed.stored(1))) == .durable)
        #expect(second.commit(8, StoreChange(mapping: try node.stored(2000))) == .outrun(by: try renewed.stored(1)))
        // Of two that issue at once, one must know that it lost.
        #expect(first.commit(9, StoreChange(issued: renewed.certificate)) == .durable)
        guard case .failed? = second.commit(10, StoreChange(issued: node.certificate)) else {
            return #expect(Bool(false), "an older certificate was recorded over a newer one")
        }

        let third = try TestInstance(etcd.configuration())
        #expect(eventually { third.told.hasLoaded })
        #expect(Set(third.told.loaded) == [try renewed.stored(1), try other.stored(5)])
        #expect(Set(third.told.issued) == [renewed.certificate, other.certificate])
        #expect(first.told.failures.isEmpty && second.told.failures.isEmpty && third.told.failures.isEmpty)
    }

    @Test("A renewed certificate lifts no older record in etcd, for mappings and for what is remembered of others' nodes")
    func renewedCertificate() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(2)
        let first = try TestNode("192.0.2.1")
        let renewed = try TestNode("192.0.2.1", notBefore: 1_790_000_000_001)
        let newest = try first.stored(1000)
        #expect(instances[0].commit(1, StoreChange(mapping: newest)) == .durable)
        // An instance that lags has not heard of it, and the record is an old one.
        #expect(instances[1].commit(2, StoreChange(mapping: try renewed.stored(999))) == .outrun(by: newest))
        let next = try renewed.stored(1001)
        #expect(instances[1].commit(3, StoreChange(mapping: next)) == .durable)
        #expect(instances[0].commit(4, StoreChange(mapping: newest)) == .outrun(by: next))
        // Under the certificate before, yet of a later sequence.
        #expect(instances[0].commit(5, StoreChange(mapping: try first.stored(1002))) == .durable)

        instances[0].store.share([.remembered(next.certified, isConfirmed: true)])
        #expect(eventually { instances[1].told.shared.contains(.remembered(next.certified, isConfirmed: true)) })
        instances[1].store.share([.remembered(try renewed.certified(1000), isConfirmed: true)])
        let last = try TestNode("192.0.2.1", notBefore: 1_790_000_000_002).certified(1003)
        let replayed = try TestNode("192.0.2.1", notBefore: 1_790_000_000_003).certified(5)
        instances[0].store.share([.remembered(last, isConfirmed: false)])
        #expect(eventually { instances[1].told.shared.contains(.remembered(last, isConfirmed: false)) })
        instances[1].store.share([.remembered(replayed, isConfirmed: true)])
        instances[1].store.share([.remembered(last, isConfirmed: true)])
        #expect(eventually { instances[0].told.shared.contains(.remembered(last, isConfirmed: true)) })
        #expect(!instances[0].told.shared.contains(.remembered(replayed, isConfirmed: true)))
    }

    @Test("What was issued while a clock was far ahead gives way at every instance when a person says so, and to nothing else")
    func takenBack() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(2)
        let latest: UInt64 = 1_790_000_300_000
        let ahead = try TestNode("192.0.2.1", notBefore: 1_830_000_000_000)
        let (mark, next) = (try TestNode("192.0.2.1", seed: 7), try TestNode("192.0.2.1", notBefore: 1_790_000_000_001))
        let wrong = StoreChange(mapping: try ahead.stored(1_830_000_000_000), issued: ahead.certificate)
        #expect(instances[0].commit(1, wrong) == .durable)
        #expect(eventually { instances[1].told.changed.contains(StoreChange(issued: ahead.certificate)) })
        let right = StoreChange(mapping: try mark.stored(1_790_000_000_000), issued: next.certificate)
        guard case .outrun? = instances[1].commit(2, right) else { return #expect(Bool(false), "it was taken unasked") }
        var forced = right
        forced.latest = latest
        #expect(instances[1].commit(3, forced) == .durable)
        #expect(eventually { instances[0].told.changed.contains(StoreChange(issued: next.certificate)) })
        #expect(instances[0].told.changed.contains(StoreChange(mapping: try mark.stored(1_790_000_000_000))))
        // What is not ahead stands, whatever a person says.
        let earlier = StoreChange(mapping: try mark.stored(5), issued: mark.certificate, latest: latest)
        guard case .outrun? = instances[1].commit(4, earlier) else { return #expect(Bool(false), "a version went back") }
        #expect(instances[1].commit(5, StoreChange(mapping: try next.stored(1_790_000_000_500))) == .durable)
        let third = try TestInstance(etcd.configuration())
        #expect(eventually { third.told.hasLoaded })
        #expect(third.told.loaded == [try next.stored(1_790_000_000_500)] && third.told.issued == [next.certificate])
    }

    @Test("A row that relies on a record is written while etcd has that record, and not once its node has registered again")
    func relied() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(2)
        let node = try TestNode("192.0.2.1")
        let (before, after) = (try node.stored(7), try node.stored(8))
        let key = node.certificate.prefix.address.octets + [128]
        func change(_ version: UInt64, _ value: UInt8, isAbsent: Bool = false) -> StoreChange {
            StoreChange(
                rows: [StoredRow(.lease, key: key, value: [value], version: version)],
                relied: [MappingVersion(before.record.prefix, isAbsent ? nil : before.certified.version)])
        }
        #expect(instances[0].commit(1, change(1, 1)) == .conflict([StoredRow(.lease, key: key, value: [], version: 0)]))
        #expect(instances[0].commit(2, StoreChange(mapping: before)) == .durable)
        #expect(instances[0].commit(3, change(1, 2)) == .durable)
        #expect(instances[0].commit(7, change(2, 4, isAbsent: true)) == .conflict(change(1, 2).rows))
        #expect(instances[1].commit(4, StoreChange(mapping: after)) == .durable)
        #expect(instances[0].commit(5, change(2, 3)) == .conflict(change(1, 2).rows))
        // The one that was wrong has been told why by then.
        #expect(instances[0].told.changed.contains(StoreChange(mapping: after)))
        // Asked again because its answer was lost, what was written finds itself.
        #expect(instances[0].commit(6, change(1, 2)) == .durable)
    }

    @Test("Of two instances that give one address to two keys one is refused and told what the other wrote, and all instances hear of it")
    func rows() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(2)
        let (first, second) = (try TestNode("192.0.2.1"), try TestNode("192.0.2.1", seed: 7, notBefore: 1_790_000_000_001))
        let key = [UInt8](IPPrefix(first.certificate.prefix.address).address.octets) + [128]
        let token = StoredRow(.token, key: [1, 2, 3, 4, 5, 6, 7, 8], value: [9], version: 1)
        let one = StoreChange(rows: [StoredRow(.lease, key: key, value: [1], version: 1), token], certificates: [first.certificate])
        let other = StoreChange(rows: [StoredRow(.lease, key: key, value: [2], version: 1)], certificates: [second.certificate])
        #expect(instances[0].commit(1, one) == .durable)
        #expect(instances[1].commit(2, other) == .conflict([one.rows[0]]))
        #expect(eventually { instances[1].told.changed.contains(StoreChange(rows: [one.rows[0]])) })
        // Asked again because its answer was lost, it finds itself.
        #expect(instances[0].commit(3, one) == .durable)
        var next = other
        next.rows[0].version = 2
        #expect(instances[1].commit(4, next) == .durable)
        let third = try TestInstance(etcd.configuration())
        #expect(eventually { third.told.hasLoaded })
        #expect(Set(third.told.rows) == Set([next.rows[0], token]) && third.told.issued == [second.certificate])
    }

    @Test("A batch of thousands, several of one HoA among them, and a read in many pages")
    func many() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let writer = try TestInstance(etcd.configuration())
        #expect(eventually { writer.told.hasLoaded })
        let node = try TestNode("10.0.0.1")
        var latest: [StoredMapping] = []
        var ticket: UInt64 = 0
        let signed = try node.stored(1)
        for number in UInt32(0)..<3000 {
            // Signatures and certificates are the core's business, so one node's are used for all.
            for sequence in UInt64(1)...(number % 100 == 0 ? 3 : 1) {
                var mapping = signed
                var record = signed.record
                record.hoa = HomeAddress(IPAddress(ipv4: 0x0A00_0000 + number))
                record.sequence = sequence
                mapping.certified = CertifiedMapping(
                    mapping: SignedMapping(record: record, signature: signed.certified.mapping.signature),
                    certificate: node.certificate)
                ticket += 1
                writer.store.commit(StoreTicket(number: ticket), StoreChange(mapping: mapping))
                if sequence == (number % 100 == 0 ? 3 : 1) { latest.append(mapping) }
            }
        }
        let count = Int(ticket)
        #expect(eventually(within: 60) { writer.told.outcomes.count == count })
        #expect(writer.told.outcomes.allSatisfy { $0.result == .durable })
        let reader = try TestInstance(etcd.configuration())
        #expect(eventually(within: 60) { reader.told.hasLoaded })
        #expect(Set(reader.told.loaded) == Set(latest))
    }

    @Test("Cookie secrets: one instance makes or rotates them, all use them, two are valid")
    func secrets() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(3)
        func secret(_ number: UInt8, _ madeAt: UInt64) -> CookieSecret {
            CookieSecret(octets: [UInt8](repeating: number, count: 16), madeAt: madeAt)
        }
        for (number, instance) in instances.enumerated() { instance.store.write(secret(UInt8(number), 1000 + UInt64(number))) }
        #expect(eventually { instances.allSatisfy { $0.told.secrets.count == 1 } })
        let first = instances[0].told.secrets
        #expect(instances.allSatisfy { $0.told.secrets == first })
        // A day later all clocks say at once that a new one is due.
        for (number, instance) in instances.enumerated() {
            instance.store.write(secret(10 + UInt8(number), 86_401_000 + UInt64(number)))
        }
        usleep(300_000)
        #expect(eventually { instances.allSatisfy { $0.told.secrets.count == 2 } })
        #expect(instances.allSatisfy { $0.told.secrets == instances[0].told.secrets && $0.told.secrets[1] == first[0] })
        // One that starts later has them before anything else.
        let late = try TestInstance(etcd.configuration())
        #expect(eventually { late.told.hasLoaded })
        guard case .secrets(let told)? = late.told.all.first else { return #expect(Bool(false), "secrets do not come first") }
        #expect(told == instances[0].told.secrets)
    }

    @Test("An instance that is no more has its subscriptions served by one other, which is no import; remembered mappings reach all")
    func takeOver() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let others = try (0..<2).map { _ in try TestInstance(etcd.configuration()) }
        let imports = try (0..<4).map { _ in try TestInstance(etcd.configuration(), serves: false) }
        func subscription(_ hoa: String, _ subscriber: String) -> SharedSubscription {
            SharedSubscription(
                prefix: IPPrefix(address(hoa)), endpoint: Endpoint(address(subscriber), port: 6289), local: address("203.0.113.1"),
                lasts: .seconds(300))
        }
        let (kept, ended) = (subscription("192.0.2.1", "198.51.100.77"), subscription("192.0.2.2", "198.51.100.78"))
        let stranger = try TestNode("192.0.2.99").certified(7)
        do {
            let dying = try TestInstance(etcd.configuration())
            #expect(eventually { dying.told.hasLoaded && others.allSatisfy { $0.told.hasLoaded } })
            dying.store.share([.subscribed(kept), .subscribed(ended), .remembered(stranger, isConfirmed: false)])
            dying.store.share([.unsubscribed(ended.prefix, ended.endpoint), .remembered(stranger, isConfirmed: true)])
            #expect(eventually { others.allSatisfy { $0.told.shared.contains(.remembered(stranger, isConfirmed: true)) } })
        }
        /// What it was told last.
        func serves(_ instance: TestInstance, _ subscription: SharedSubscription) -> Bool {
            var serves = false
            for news in instance.told.shared {
                switch news {
                case .serve(let served, _) where served.prefix == subscription.prefix && served.endpoint == subscription.endpoint: serves = true
                case .leave(subscription.prefix, subscription.endpoint): serves = false
                default: break
                }
            }
            return serves
        }
        let began = milliseconds()
        #expect(eventually { others.contains { serves($0, kept) } })
        // It said good-bye, so nobody waited for its silence.
        #expect(milliseconds() - began < 2000)
        usleep(300_000)
        #expect(others.filter { serves($0, kept) }.count == 1, "one instance serves")
        #expect(!(others + imports).contains { serves($0, ended) } && !imports.contains { serves($0, kept) })
    }

    @Test("While etcd's database is full nobody is declared dead and no subscription changes hands, and it is over by itself")
    func noSpace() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instances = try etcd.instances(3)
        let subscriptions = (1...20).map {
            SharedSubscription(
                prefix: IPPrefix(address("192.0.2.1")), endpoint: Endpoint(address("198.51.100.\($0)"), port: 6289),
                local: address("203.0.113.1"), lasts: .seconds(300))
        }
        for (number, instance) in instances.enumerated() {
            instance.store.share(subscriptions.enumerated().filter { $0.offset % 3 == number }.map { .subscribed($0.element) })
        }
        // All hear of all: each of the others is told to leave them to who granted them.
        #expect(eventually { instances.reduce(0) { $0 + $1.told.shared.count } == 40 })
        let before = instances.map { $0.told.all.count }
        #expect(etcd.alarm("ACTIVATE"))
        #expect(eventually { instances.allSatisfy { !$0.told.isAvailable } })
        // Longer than silence may last.
        usleep(6_000_000)
        for (instance, before) in zip(instances, before) {
            let since = instance.told.all.dropFirst(before)
            #expect(since.count == 1, "\(since)")
            guard case .unavailable(let reason)? = since.first else { continue }
            #expect(reason.contains("etcd's database is full"))
        }
        #expect(etcd.alarm("DEACTIVATE"))
        #expect(eventually { instances.allSatisfy { $0.told.isAvailable } })
        #expect(instances[0].commit(1, StoreChange(mapping: try TestNode("192.0.2.1").stored(1))) == .durable)
        usleep(1_000_000)
        #expect(instances.reduce(0) { $0 + $1.told.shared.count } == 40, "all live on")
    }

    @Test(
        "Without etcd changes are refused, and taken again by themselves when it is back; a change that was under way is not lost"
    )
    func outage() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let instance = try TestInstance(etcd.configuration())
        let node = try TestNode("192.0.2.1")
        #expect(eventually { instance.told.hasLoaded })
        #expect(instance.commit(1, StoreChange(mapping: try node.stored(1))) == .durable)

        etcd.members[0].program.signal(SIGSTOP)
        guard case .failed? = instance.commit(2, StoreChange(mapping: try node.stored(2))) else {
            etcd.members[0].program.signal(SIGCONT)
            return #expect(Bool(false), "a change was taken without etcd")
        }
        #expect(eventually { !instance.told.isAvailable })
        etcd.members[0].program.signal(SIGCONT)
        #expect(eventually { instance.told.isAvailable })
        // Whether the second was done is unknown; either way the third is newer.
        #expect(instance.commit(3, StoreChange(mapping: try node.stored(3))) == .durable)

        etcd.members[0].program.end()
        instance.store.commit(StoreTicket(number: 4), StoreChange(mapping: try node.stored(4)))
        try etcd.members[0].program.start()
        #expect(eventually { instance.told.outcome(4) != nil })
        #expect(eventually { instance.told.isAvailable })
        #expect(instance.commit(5, StoreChange(mapping: try node.stored(5))) == .durable)
    }
}

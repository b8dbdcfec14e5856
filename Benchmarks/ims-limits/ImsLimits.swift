import ArgumentParser
import Dispatch
import Glibc
import IMS
import IMSCore
import MATRuntime
import MATSignal
import SeededRandom
import Synchronization

/// What bounds the rate of IMS Updates, each part by itself: signature checks, the store's group commits, the core's own work;
/// and how fast a store is read at a start. One JSON object a line.
@main
struct ImsLimits: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ims-limits", abstract: "Measures what bounds the rate of IMS Updates.", version: MATVersion.text,
        subcommands: [Verify.self, Store.self, Core.self])

    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    static func seconds(_ body: () throws -> Void) rethrows -> Double { try measure(body).seconds }

    /// Time on the wall and on all processors: the second says what something costs on a machine that others use as well.
    static func measure(_ body: () throws -> Void) rethrows -> (seconds: Double, processor: Double) {
        let start = SystemClock.now().monotonic
        let startProcessor = processorSeconds()
        try body()
        return (
            max(1e-9, Double((SystemClock.now().monotonic - start).nanosecondsSaturated) / 1e9), max(1e-9, processorSeconds() - startProcessor)
        )
    }

    private static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// What this process has had written to disks.
    static func octetsWritten() -> Int {
        let text = (try? TextFile.read("/proc/self/io")) ?? ""
        for line in text.split(separator: "\n") where line.hasPrefix("write_bytes: ") { return Int(line.dropFirst(13)) ?? 0 }
        return 0
    }

    static func population() throws -> Population {
        guard let population = Population() else { throw Failure(description: "no keys") }
        return population
    }
}

/// Ed25519 checks of one mapping's signature, as for an update under a known certificate.
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Signature checks a second.")
    @Option var threads = 1
    @Option var checks = 20_000

    func run() throws {
        let population = try ImsLimits.population()
        let now = SystemClock.now().wallMilliseconds
        guard let unsigned = population.mapping(1, sequence: now, now: now), let signed = unsigned.record.signed(with: population.nodeKey) else {
            throw ImsLimits.Failure(description: "no signature")
        }
        let job = VerificationJob(CertifiedMapping(mapping: signed, certificate: unsigned.certificate), issuers: nil)
        let failures = Atomic<Int>(0)
        let checks = checks
        let taken = ImsLimits.measure {
            DispatchQueue.concurrentPerform(iterations: threads) { _ in
                for _ in 0..<checks where job.run() != nil { failures.add(1, ordering: .relaxed) }
            }
        }
        guard failures.load(ordering: .relaxed) == 0 else { throw ImsLimits.Failure(description: "a good signature was refused") }
        let all = Double(threads * checks)
        print(
            #"{"what":"verify","threads":\#(threads),"perSecond":\#(Int(all / taken.seconds)),"perProcessorSecond":\#(Int(all / taken.processor))}"#)
    }
}

/// Random updates of a store of many mappings, with so many at a time waiting for their outcome; then the time that a start takes.
struct Store: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Durable changes a second, and mappings read a second.")
    @Option(help: "The file; made and filled if it isn't there.") var path: String
    @Option var mappings = 1_000_000
    @Option(help: "Changes waiting at a time.") var waiting: [Int] = [1, 16, 128, 1024]
    @Option(help: "Seconds for each.") var time = 5.0

    func run() throws {
        let population = try ImsLimits.population()
        try fill(population)
        try readAlone()
        try read()
        for waiting in waiting { try update(population, waiting) }
    }

    /// What the store says, counted.
    private final class Outcomes: Sendable {
        let room: DispatchSemaphore
        let durable = Atomic<Int>(0)
        let transactions = Atomic<Int>(0)
        let failed = Mutex<String?>(nil)
        init(_ waiting: Int) { room = DispatchSemaphore(value: waiting) }

        func take(_ event: StoreEvent) {
            guard case .committed(let outcomes) = event else { return }
            transactions.add(1, ordering: .relaxed)
            for outcome in outcomes {
                switch outcome.result {
                case .durable: durable.add(1, ordering: .relaxed)
                case .failed(let reason): failed.withLock { $0 = reason }
                case .outrun, .conflict: failed.withLock { $0 = "outrun" }
                }
                room.signal()
            }
        }
    }

    private func fill(_ population: Population) throws {
        guard access(path, F_OK) != 0 else { return }
        let store = try MappingStore(path: path)
        let outcomes = Outcomes(4096)
        store.start { outcomes.take($0) }
        let now = SystemClock.now().wallMilliseconds
        let taken = ImsLimits.seconds {
            for number in 0..<mappings {
                outcomes.room.wait()
                guard let stored = population.stored(number, sequence: now, now: now) else { continue }
                store.commit(StoreTicket(number: UInt64(number)), StoreChange(mapping: stored))
            }
            store.close()
        }
        for _ in 0..<4096 { outcomes.room.signal() }
        print(#"{"what":"fill","mappings":\#(mappings),"perSecond":\#(Int(Double(mappings) / taken))}"#)
    }

    private func update(_ population: Population, _ waiting: Int) throws {
        let store = try MappingStore(path: path)
        let outcomes = Outcomes(waiting)
        let loaded = DispatchSemaphore(value: 0)
        store.start { event in
            if case .loadEnded = event { loaded.signal() }
            outcomes.take(event)
        }
        loaded.wait()
        var numbers = SeededGenerator(seed: UInt64(waiting))
        let now = SystemClock.now().wallMilliseconds
        // Made before: only the store is to be measured. As many as could be done in the time.
        let changes = (0..<Int(time * 100_000)).compactMap { step -> StoreChange? in
            let number = Int.random(in: 0..<mappings, using: &numbers)
            return population.stored(number, sequence: now + UInt64(step), now: now).map { StoreChange(mapping: $0) }
        }
        let end = SystemClock.now().monotonic + .seconds(time)
        var given = 0
        let written = ImsLimits.octetsWritten()
        let taken = ImsLimits.measure {
            for change in changes {
                outcomes.room.wait()
                store.commit(StoreTicket(number: UInt64(given)), change)
                given += 1
                if given % 16 == 0, SystemClock.now().monotonic > end { break }
            }
            for _ in 0..<waiting { outcomes.room.wait() }
        }
        for _ in 0..<waiting { outcomes.room.signal() }
        store.close()
        if let failure = outcomes.failed.withLock({ $0 }) { throw ImsLimits.Failure(description: failure) }
        let transactions = outcomes.transactions.load(ordering: .relaxed)
        let octets = (ImsLimits.octetsWritten() - written) / max(1, given)
        let processor = taken.processor / Double(max(1, given)) * 1e6
        print(
            #"{"what":"store","mappings":\#(mappings),"waiting":\#(waiting),"perSecond":\#(Int(Double(given) / taken.seconds)),"transactionsPerSecond":\#(Int(Double(transactions) / taken.seconds)),"processorMicrosecondsEach":\#(processor),"octetsWrittenEach":\#(octets)}"#
        )
    }

    /// The reader's part of a start.
    private func readAlone() throws {
        let store = try MappingStore(path: path)
        let loaded = DispatchSemaphore(value: 0)
        let count = Atomic<Int>(0)
        let taken = ImsLimits.measure {
            store.start { event in
                if case .loaded(let contents) = event { count.add(contents.mappings.count, ordering: .relaxed) }
                if case .loadEnded = event { loaded.signal() }
            }
            loaded.wait()
        }
        store.close()
        print(
            #"{"what":"read","mappings":\#(count.load(ordering: .relaxed)),"seconds":\#(taken.seconds),"processorSeconds":\#(taken.processor)}"#)
    }

    private func read() throws {
        guard
            var core = IMSCore(
                IMSCoreConfiguration(served: [ServedPrefix(prefix: Population.prefix)]), cookieSecrets: [[UInt8](repeating: 1, count: 16)],
                clientSecret: [UInt8](repeating: 2, count: 16), random: SeededGenerator(seed: 1))
        else { throw ImsLimits.Failure(description: "no core") }
        core.loadBegins()
        let store = try MappingStore(path: path)
        let loop = try EventLoop()
        let events = Mutex<[StoreEvent]>([])
        let poster = loop.poster
        let box = Box(core)
        let taken = try ImsLimits.measure {
            store.start { event in
                events.withLock { $0.append(event) }
                poster.post {
                    for event in events.withLock({ all in
                        defer { all = [] }
                        return all
                    }) {
                        _ = box.core.store(event, now: SystemClock.now())
                        if case .loadEnded = event { box.loop?.stop() }
                    }
                }
            }
            box.loop = loop
            try loop.run()
        }
        let count = box.core.mappingsCount
        let resident = Self.residentOctets()
        store.close()
        print(
            #"{"what":"start","mappings":\#(count),"seconds":\#(taken.seconds),"processorSeconds":\#(taken.processor),"residentOctetsPerMapping":\#(resident / max(1, count))}"#
        )
    }

    /// Used in the loop's thread alone.
    private final class Box: @unchecked Sendable {
        var core: IMSCore
        var loop: EventLoop?
        init(_ core: IMSCore) { self.core = core }
    }

    private static func residentOctets() -> Int {
        let text = (try? TextFile.read("/proc/self/statm")) ?? ""
        let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}

/// The core's own work for an update: decoding, cookies, comparisons, the table and the answer; the signature taken as good and
/// the record as stored at once.
struct Core: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "IMS Updates a second in the core's thread.")
    @Option var nodes = 100_000
    @Option var rounds = 3

    func run() throws {
        let population = try ImsLimits.population()
        var now = SystemClock.now()
        var limits = IMSLimits()
        limits.ratesMax = 10_000_000
        let configuration = IMSCoreConfiguration(
            served: [ServedPrefix(prefix: Population.prefix)], publicKeys: [population.issuer.publicKey], limits: limits)
        guard
            var core = IMSCore(
                configuration, cookieSecrets: [[UInt8](repeating: 1, count: 16)], clientSecret: [UInt8](repeating: 2, count: 16),
                random: SeededGenerator(seed: 1))
        else { throw ImsLimits.Failure(description: "no core") }
        let local = IPAddress(ipv4: 0xCB00_7101)
        var cookies: [Cookie] = []
        for number in 0..<nodes {
            let query = SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: Cookie(client: 1), hoa: population.hoa(number))))
            let source = Endpoint(population.moa(number).address, port: SignalPort.node)
            for case .send(let octets, _, _) in core.received(query.octets, from: source, to: local, now: now) {
                if case .message(let message, _)? = SignalDatagram.decode(octets).first { cookies.append(message.cookie) }
            }
        }
        guard cookies.count == nodes else { throw ImsLimits.Failure(description: "\(cookies.count) cookies for \(nodes) nodes") }
        for round in 0..<rounds {
            let sequence = now.wallMilliseconds + UInt64(round)
            let datagrams = (0..<nodes).compactMap { number -> [UInt8]? in
                guard let certified = population.mapping(number, sequence: sequence, now: now.wallMilliseconds) else { return nil }
                // The certificate whole in the first round; by its name when it is known.
                let reference: CertificateReference = round == 0 ? .whole(certified.certificate) : .id(certified.certificate.id)
                let record = EnclosedRecord(mapping: certified.mapping, certificate: reference)
                return SignalMessage(sequence: 1, .imsUpdate(IMSUpdate(cookie: cookies[number], record: record))).octets
            }
            var done = 0
            let taken = ImsLimits.measure {
                for (number, datagram) in datagrams.enumerated() {
                    let source = Endpoint(population.moa(number).address, port: SignalPort.node)
                    for case .verify(let ticket, _) in core.received(datagram, from: source, to: local, now: now) {
                        for case .commit(let write, _) in core.verified([VerificationResult(ticket, failure: nil)], now: now) {
                            for case .send in core.store(.committed([StoreOutcome(write, .durable)]), now: now) { done += 1 }
                        }
                    }
                }
            }
            guard done == nodes else { throw ImsLimits.Failure(description: "\(done) of \(nodes) updates were answered") }
            print(
                #"{"what":"core","nodes":\#(nodes),"round":\#(round),"perSecond":\#(Int(Double(nodes) / taken.seconds)),"perProcessorSecond":\#(Int(Double(nodes) / taken.processor))}"#
            )
            now.monotonic = now.monotonic + .seconds(2)
        }
    }
}

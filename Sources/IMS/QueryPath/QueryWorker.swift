import CLinux
import Glibc
import MATRuntime
import MATSignal
import MappingMemory
import Synchronization

/// A thread that receives at sockets of its own, answers queries, refuses what is not worth more, and hands everything else to the core.
///
/// ```
///   poll ──► receive up to 64 ──► for each: answer, or into the ring ──► send all answers ──► more there? ──► poll
///    ▲            └──────────── under one announcement of the epoch ────────────┘                    │
///    └────────────────────── after a short rest if datagrams come fast and one by one ──────────────┘
/// ```
final class QueryWorker: @unchecked Sendable {
    let counters = QueryCounters()
    let ring = DatagramRing()
    let sockets: [BoundSocket]

    private let table: MappingTable
    private let rules: QueryRulesCell
    /// Tells the core that there is something in a ring.
    private let wakeup: CoreWakeup
    private let freshness: Freshness?
    /// What the core's time is spent on; touched by the thread alone.
    private var gate: AdmissionGate
    /// Which rules' limits the gate has.
    private var gateRules: UInt64 = 0
    /// Readable when the worker is to end.
    private let ending: Int32
    private var thread = pthread_t()
    private var isStarted = false

    init(sockets: [BoundSocket], table: MappingTable, rules: QueryRulesCell, wakeup: CoreWakeup, freshness: Freshness?, gate: AdmissionGate)
        throws(SystemError)
    {
        self.sockets = sockets
        self.table = table
        self.rules = rules
        self.wakeup = wakeup
        self.freshness = freshness
        self.gate = gate
        ending = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard ending >= 0 else { throw SystemError("eventfd") }
    }

    deinit {
        close(ending)
        counters.deallocate()
    }

    func start() throws(SystemError) {
        let failure = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<QueryWorker>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        guard failure == 0 else {
            Unmanaged.passUnretained(self).release()
            throw SystemError("pthread_create", errno: failure)
        }
        isStarted = true
    }

    /// Ends the thread, which still answers what has arrived, and waits for that. The sockets stay open.
    func stop() {
        guard isStarted else { return }
        isStarted = false
        var one: UInt64 = 1
        _ = write(ending, &one, 8)
        pthread_join(thread, nil)
    }

    /// A turn with fewer datagrams than this, so soon after the one before, means that the thread is woken for each few of very many. It
    /// then rests a moment, so that the next turn has more: a wake-up, two system calls and a change of threads cost several times what a
    /// query costs, and the core has other threads to run. A query waits 40 us longer at most, and only at rates above some 10,000/s.
    private static let restBelow = 16
    private static let restWithin = Duration.microseconds(100)
    private static let restNanoseconds = 40_000

    private func run() {
        guard let reader = table.epochs.makeReader() else { return }
        mat_sleep_exactly()
        var before = MonotonicTime.zero
        var responder = QueryResponder(table: table.view, counters: counters)
        var batch = QueryBatch()
        let polled = UnsafeMutablePointer<pollfd>.allocate(capacity: sockets.count + 1)
        for (index, descriptor) in (sockets.map(\.descriptor) + [ending]).enumerated() {
            (polled + index).initialize(to: pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
        }
        let count = sockets.count
        let view = rules.view
        var isEnding = false
        while true {
            // When it is to end nothing is waited for any more.
            if poll(polled, nfds_t(count + 1), isEnding ? 0 : -1) < 0, errno != EINTR { break }
            if polled[count].revents != 0 { isEnding = true }
            var received = 0
            for index in 0..<count where polled[index].revents != 0 {
                var last = QueryBatch.datagramsMax
                // As long as batches are full there is more, and poll would only say so. Now and then it is asked all the same, for
                // the other sockets' sake.
                var turns = 0
                while last == QueryBatch.datagramsMax, turns < 16 {
                    last = serve(polled[index].fd, &batch, &responder, view, reader)
                    received += last
                    turns += 1
                }
            }
            if isEnding, received == 0 { break }
            let now = SystemClock.now().monotonic
            if received < Self.restBelow, now - before < Self.restWithin {
                var rest = timespec(tv_sec: 0, tv_nsec: Self.restNanoseconds)
                nanosleep(&rest, nil)
            }
            before = now
        }
        table.epochs.remove(reader)
        responder.deallocate()
        batch.deallocate()
        polled.deallocate()
    }

    /// One batch of one socket.
    ///
    /// - Returns: the datagrams received.
    private func serve(
        _ descriptor: Int32, _ batch: inout QueryBatch, _ responder: inout QueryResponder, _ view: QueryRulesCell.View, _ reader: ReaderEpochs.Reader
    ) -> Int {
        let count = batch.receive(descriptor)
        guard count > 0 else { return 0 }
        counters.add(.datagrams, count)
        let now = SystemClock.now()
        guard freshness?.mayAnswer(at: now.monotonic) ?? true else {
            counters.add(.heldBack, count)
            return count
        }
        var hasPassedOn = false
        reader.begin()
        let snapshot = view.snapshot
        if snapshot.pointee.number != gateRules {
            gateRules = snapshot.pointee.number
            gate.setLimits(snapshot.pointee.limits)
        }
        for index in 0..<count { batch.hints[index] = responder.hint(batch.octets(index)) }
        for index in 0..<count { responder.prefetchBlock(batch.hints[index]) }
        for index in 0..<count {
            let (octets, source, local) = batch.datagram(index)
            guard source.port != 0, source.address.isUsableUnicast || source.address.isLoopback || source.address.isLinkLocal else {
                // Such a source can't be answered, and only a forger has it.
                counters.add(.dropped)
                continue
            }
            guard octets.count >= SignalHeader.octetsCount, octets.count <= SignalDatagram.octetsMax else {
                counters.add(.malformed)
                continue
            }
            var writer = batch.writer()
            switch responder.answer(octets, from: source, snapshot, now, into: &writer) {
            case .answered:
                batch.add(writer, to: index, descriptor, counters)
            case .passedOn:
                let inspected = responder.inspect(octets)
                if let request = inspected.request, !responder.isProven(request, source, snapshot, now) {
                    guard gate.takeShare(of: source.address, at: now.monotonic) else {
                        counters.add(.droppedAtGate)
                        continue
                    }
                    responder.askForCookie(request, octets.count, source, snapshot, now, into: &writer)
                    batch.add(writer, to: index, descriptor, counters)
                    continue
                }
                let verdict = gate.judge(inspected.kind, source: source.address, at: now.monotonic)
                guard verdict != .drop else {
                    counters.add(inspected.kind == .odd ? .malformed : .droppedAtGate)
                    continue
                }
                if verdict == .tryLater, let request = inspected.request {
                    responder.putOff(request, source, snapshot, now, into: &writer)
                    batch.add(writer, to: index, descriptor, counters)
                } else if ring.put(octets, isPutOff: verdict == .tryLater, from: source, to: local) {
                    hasPassedOn = true
                    counters.add(.passedOn)
                } else {
                    counters.add(.overflowed)
                }
            }
        }
        // All answers are copies, so sending needs no announcement.
        reader.end()
        // Asked again, since a stop of this process may have come between the look into the table and now.
        if let freshness, !freshness.mayAnswer(at: SystemClock.now().monotonic) { batch.dropAnswers(counters) }
        batch.send(descriptor, counters)
        if hasPassedOn { wakeup.signal() }
        return count
    }
}

/// Wakes the core's loop, once for all that workers put into their rings before it comes.
final class CoreWakeup: Sendable {
    let descriptor: Int32
    private let isSignalled = Atomic<Bool>(false)

    init() throws(SystemError) {
        descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard descriptor >= 0 else { throw SystemError("eventfd") }
    }

    deinit { close(descriptor) }

    func signal() {
        guard !isSignalled.exchange(true, ordering: .acquiringAndReleasing) else { return }
        var one: UInt64 = 1
        _ = write(descriptor, &one, 8)
    }

    /// Before the rings are looked at: what comes in after that signals again.
    func clear() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        isSignalled.store(false, ordering: .sequentiallyConsistent)
    }
}

import IMSCore
import MATRuntime
import MATServer
import MATSignal
import MappingMemory

/// What one worker's thread does: answers queries, refuses what is not worth more, and hands everything else to the core.
///
/// ```
///   receive up to 64 ──► for each: answer, or into the ring ──► send all answers
///            └────── under one announcement of the epoch ────┘
/// ```
final class QueryWorker: DatagramServing, @unchecked Sendable {
    let counters = QueryCounters()
    let ring = DatagramRing()

    private let table: MappingTable
    private let rules: QueryRulesCell.View
    /// Tells the core that there is something in a ring.
    private let wakeup: LoopWakeup
    private let freshness: Freshness?
    // From here on touched by the thread alone.
    /// What the core's time is spent on.
    private var gate: AdmissionGate
    /// What the kernel does not even bring.
    private var filter: FloodFilter
    /// Which rules' limits both have.
    private var gateRules: UInt64 = 0
    private var responder: QueryResponder
    private var batch = DatagramBatch(answersPerDatagramMax: AnswerWriter.datagramsPerRequestMax)
    /// For each received datagram what its first message will look up.
    private let hints: UnsafeMutablePointer<QueryResponder.Hint>
    /// While the thread runs.
    private var reader: ReaderEpochs.Reader?

    init(table: MappingTable, rules: QueryRulesCell, wakeup: LoopWakeup, freshness: Freshness?, gate: AdmissionGate, filter: FloodFilter) {
        self.table = table
        self.rules = rules.view
        self.wakeup = wakeup
        self.freshness = freshness
        self.gate = gate
        self.filter = filter
        responder = QueryResponder(table: table.view, counters: counters)
        hints = .allocate(capacity: DatagramBatch.datagramsMax)
        hints.initialize(repeating: QueryResponder.Hint(), count: DatagramBatch.datagramsMax)
    }

    deinit {
        responder.deallocate()
        batch.deallocate()
        hints.deallocate()
        counters.deallocate()
    }

    func begin() -> Bool {
        reader = table.epochs.makeReader()
        return reader != nil
    }

    func end() {
        if let reader { table.epochs.remove(reader) }
        reader = nil
    }

    func serve(_ socket: Int32) -> Int {
        guard let reader else { return 0 }
        // One access to the object for a whole batch, and not one for each datagram.
        return serve(socket, &batch, &responder, &gate, &filter, reader)
    }

    func turn(at now: MonotonicTime) -> Int32 { filter.turn(at: now) ? Self.samplingMilliseconds : -1 }

    /// A flood's end is to be seen also if nothing comes after it.
    private static let samplingMilliseconds: Int32 = 100

    /// One batch of one socket.
    ///
    /// - Returns: the datagrams received.
    private func serve(
        _ descriptor: Int32, _ batch: inout DatagramBatch, _ responder: inout QueryResponder, _ gate: inout AdmissionGate,
        _ filter: inout FloodFilter, _ reader: ReaderEpochs.Reader
    ) -> Int {
        let received = batch.receive(descriptor)
        guard received > 0 else { return 0 }
        counters.add(.datagrams, received)
        let now = SystemClock.now()
        guard freshness?.mayAnswer(at: now.monotonic) ?? true else {
            counters.add(.heldBack, received)
            return received
        }
        var hasPassedOn = false
        reader.begin()
        let snapshot = rules.snapshot
        if snapshot.pointee.number != gateRules {
            gateRules = snapshot.pointee.number
            gate.setLimits(snapshot.pointee.limits.admission)
            filter.setLimits(snapshot.pointee.limits.admission)
        }
        for index in 0..<received { hints[index] = responder.hint(batch.octets(index)) }
        for index in 0..<received { responder.prefetchBlock(hints[index]) }
        for index in 0..<received {
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
            var writer = AnswerWriter(batch.answerRoom, batch.lengths)
            switch responder.answer(octets, from: source, snapshot, now, into: &writer) {
            case .answered:
                count(batch.add(writer.datagramsCount, to: index, descriptor))
            case .passedOn:
                filter.came(octets, from: source.address)
                let inspected = responder.inspect(octets)
                if let request = inspected.request, request.isAsk || !responder.isProven(request, source, snapshot, now) {
                    guard gate.takeShare(of: source.address, at: now.monotonic) else {
                        counters.add(.droppedAtGate)
                        continue
                    }
                    responder.answerFirst(request, octets.count, source, snapshot, now, into: &writer)
                    count(batch.add(writer.datagramsCount, to: index, descriptor))
                    continue
                }
                var kind = inspected.kind
                if !responder.areAsked(inspected.responses, from: source.address, to: local, snapshot) {
                    kind = .unasked
                    filter.cameUnasked(from: source.address)
                }
                let verdict = gate.judge(kind, source: source.address, at: now.monotonic)
                guard verdict != .drop else {
                    counters.add(kind == .odd ? .malformed : .droppedAtGate)
                    continue
                }
                if verdict == .tryLater, let request = inspected.request {
                    responder.putOff(request, source, snapshot, now, into: &writer)
                    count(batch.add(writer.datagramsCount, to: index, descriptor))
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
        if let freshness, !freshness.mayAnswer(at: SystemClock.now().monotonic) { counters.add(.heldBack, batch.dropAnswers()) }
        count(batch.send(descriptor))
        if hasPassedOn { wakeup.signal() }
        return received
    }

    @inline(__always)
    private func count(_ sendFailures: Int) {
        if sendFailures > 0 { counters.add(.sendFailures, sendFailures) }
    }
}

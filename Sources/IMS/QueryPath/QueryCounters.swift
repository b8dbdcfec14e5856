import IMSCore
import MATSignal
import Synchronization

/// A worker's counts. Only the worker writes them, in memory that no other worker writes to; anyone may read.
struct QueryCounters: @unchecked Sendable {
    enum Count: Int, CaseIterable {
        /// Datagrams received.
        case datagrams
        /// Handed to the core.
        case passedOn
        /// Lost, because the core had not taken those before.
        case overflowed
        /// That the gate let nobody look at.
        case droppedAtGate
        /// Held back, because the store may have gone on without this server.
        case heldBack
        /// Too long or too short for a message.
        case malformed
        /// From sources that can't be answered.
        case dropped
        case sendFailures
        /// Told to come later, here or by the core.
        case putOff
        /// Requests answered here, by type.
        case maQueries
        case haQueries
        case updates
        case haNotifies
        case maNotifies
        case binds
        case joins
    }

    private static let codesMax = 16
    /// Requests that are answered here, where they are counted, and their answers.
    private static let types: [(request: MessageType, count: Count, answer: MessageType)] = [
        (.maQuery, .maQueries, .maAnswer), (.haQuery, .haQueries, .haAnswer), (.imsUpdate, .updates, .imsUpdateReply),
        (.haNotify, .haNotifies, .haNotifyAck), (.maNotify, .maNotifies, .maNotifyAck), (.bind, .binds, .bindAck),
        (.join, .joins, .joinReply),
    ]
    private static let maAnswers = Count.allCases.count
    private static let haAnswers = maAnswers + codesMax
    private static let words = maAnswers + types.count * codesMax

    private let counts: UnsafeMutablePointer<Atomic<UInt64>>

    init() {
        let raw = UnsafeMutableRawPointer.allocate(byteCount: (Self.words * 8 + 255) / 128 * 128, alignment: 128)
        counts = raw.bindMemory(to: Atomic<UInt64>.self, capacity: Self.words)
        for index in 0..<Self.words { (counts + index).initialize(to: Atomic(0)) }
    }

    func deallocate() { UnsafeMutableRawPointer(counts).deallocate() }

    @inline(__always)
    private func add(_ number: UInt64, _ index: Int) {
        // One writer, so no read-modify-write that would lock the line.
        counts[index].store(counts[index].load(ordering: .relaxed) &+ number, ordering: .relaxed)
    }

    @inline(__always)
    func add(_ count: Count, _ number: Int = 1) { add(UInt64(truncatingIfNeeded: number), count.rawValue) }

    @inline(__always)
    func answered(_ code: UInt8, isHA: Bool) {
        add(1, (isHA ? Self.haAnswers : Self.maAnswers) + Int(code) % Self.codesMax)
    }

    /// A request that is no query was answered with this code.
    @inline(__always)
    func answered(_ type: MessageType, _ code: ResponseCode) {
        let (count, place) =
            switch type {
            case .imsUpdate: (Count.updates, 2)
            case .haNotify: (.haNotifies, 3)
            case .bind: (.binds, 5)
            case .join: (.joins, 6)
            default: (.maNotifies, 4)
            }
        add(count)
        add(1, Self.maAnswers + place * Self.codesMax + Int(code.rawValue) % Self.codesMax)
    }

    subscript(count: Count) -> UInt64 { counts[count.rawValue].load(ordering: .relaxed) }

    /// Adds these to what the core has counted.
    func add(to counters: inout IMSCounters) {
        counters.malformed += self[.malformed]
        counters.dropped += self[.dropped]
        counters.droppedAtGate += self[.droppedAtGate]
        counters.putOff += self[.putOff]
        for (place, type) in Self.types.enumerated() {
            counters.received[type.request, default: 0] += self[type.count]
            for code in 0..<Self.codesMax {
                let count = counts[Self.maAnswers + place * Self.codesMax + code].load(ordering: .relaxed)
                guard count > 0 else { continue }
                let answer = IMSCounters.Answer(type: type.answer, code: ResponseCode(rawValue: UInt8(truncatingIfNeeded: code)))
                counters.answered[answer, default: 0] += count
            }
        }
    }
}

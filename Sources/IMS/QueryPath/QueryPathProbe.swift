import IMSCore
import MATServer
import MATSignal
import MappingMemory

/// A worker without its thread and sockets, for fuzzing: what it makes of one datagram after the other.
public final class QueryPathProbe {
    public enum Outcome: Hashable, Sendable {
        /// Datagrams for the source.
        case answered([[UInt8]])
        /// For the core, unless the gate has enough of its kind.
        case passedOn
    }

    private var responder: QueryResponder
    let counters = QueryCounters()
    private let room: UnsafeMutableRawPointer
    private let lengths: UnsafeMutablePointer<Int32>
    private let rules: QueryRulesCell

    /// - Parameter core: whose table is looked into, and whose rules hold at the moment.
    public convenience init(_ core: IMSCore) { self.init(core, options: .standard) }

    /// - Parameter options: the grammar of messages.
    package init(_ core: IMSCore, options: OptionTable) {
        responder = QueryResponder(table: core.mappings.view, counters: counters, options: options)
        do throws(MemoryRefusal) {
            rules = try QueryRulesCell(core.queryRules, table: core.mappings)
        } catch {
            preconditionFailure("no memory for a test: \(error)")
        }
        room = .allocate(byteCount: AnswerWriter.datagramsPerRequestMax * DatagramBatch.octetsPerDatagram, alignment: 64)
        lengths = .allocate(capacity: AnswerWriter.datagramsPerRequestMax)
        lengths.initialize(repeating: 0, count: AnswerWriter.datagramsPerRequestMax)
    }

    deinit {
        responder.deallocate()
        counters.deallocate()
        room.deallocate()
        lengths.deallocate()
    }

    /// Whether the kernel would not even bring this datagram.
    public static func isRefusedByKernel(_ datagram: [UInt8]) -> Bool { datagram.withUnsafeBytes { MessageFilter.verdict($0) == .refused } }

    /// Takes over what the core's rules are now.
    public func takeRules(of core: IMSCore) { rules.publish(core.queryRules) }

    /// - Parameter datagram: at least as long as a header, and no longer than the protocol's: others are dropped before.
    public func take(_ datagram: [UInt8], from source: Endpoint, now: Now) -> Outcome {
        var writer = AnswerWriter(room, lengths)
        let snapshot = rules.view.snapshot
        let isAnswered = datagram.withUnsafeBytes { octets in
            if case .answered = responder.answer(octets, from: source, snapshot, now, into: &writer) { return true }
            guard let request = responder.inspect(octets).request, request.isAsk || !responder.isProven(request, source, snapshot, now)
            else { return false }
            responder.answerFirst(request, octets.count, source, snapshot, now, into: &writer)
            return true
        }
        return isAnswered ? .answered(written(writer)) : .passedOn
    }

    /// What is told a notify for which there is no time; `passedOn` if the datagram is not just one notify.
    public func putOff(_ datagram: [UInt8], from source: Endpoint, now: Now) -> Outcome {
        var writer = AnswerWriter(room, lengths)
        guard let request = datagram.withUnsafeBytes({ responder.inspect($0).request }) else { return .passedOn }
        responder.putOff(request, source, rules.view.snapshot, now, into: &writer)
        return .answered(written(writer))
    }

    private func written(_ writer: AnswerWriter) -> [[UInt8]] {
        (0..<writer.datagramsCount).map {
            Array(UnsafeRawBufferPointer(start: room + $0 * DatagramBatch.octetsPerDatagram, count: Int(lengths[$0])))
        }
    }
}

import CLinux
import Glibc
import MATSignal

/// The memory with which one worker receives, answers and sends; used again for each batch.
struct QueryBatch {
    /// Datagrams received by one call.
    static let datagramsMax = 64
    /// Answers sent by one call: room for a whole batch of single answers, and for all answers to one more datagram.
    private static let answersMax = datagramsMax + AnswerWriter.datagramsPerRequestMax

    private let received: UnsafeMutablePointer<mat_message>
    private let receivedSlots: UnsafeMutablePointer<mat_slot>
    private let receivedOctets: UnsafeMutableRawPointer
    private let answers: UnsafeMutablePointer<mat_message>
    private let answerVectors: UnsafeMutablePointer<iovec>
    private let answerOctets: UnsafeMutableRawPointer
    private let lengths: UnsafeMutablePointer<Int32>
    private var answersCount = 0
    /// For each received datagram what its first message will look up.
    let hints: UnsafeMutablePointer<QueryResponder.Hint>

    init() {
        received = .allocate(capacity: Self.datagramsMax)
        received.initialize(repeating: mat_message(), count: Self.datagramsMax)
        receivedSlots = .allocate(capacity: Self.datagramsMax)
        receivedSlots.initialize(repeating: mat_slot(), count: Self.datagramsMax)
        receivedOctets = .allocate(byteCount: Self.datagramsMax * AnswerWriter.datagramStride, alignment: 64)
        answers = .allocate(capacity: Self.answersMax)
        answers.initialize(repeating: mat_message(), count: Self.answersMax)
        answerVectors = .allocate(capacity: Self.answersMax)
        answerVectors.initialize(repeating: iovec(), count: Self.answersMax)
        answerOctets = .allocate(byteCount: Self.answersMax * AnswerWriter.datagramStride, alignment: 64)
        hints = .allocate(capacity: Self.datagramsMax)
        hints.initialize(repeating: QueryResponder.Hint(), count: Self.datagramsMax)
        lengths = .allocate(capacity: AnswerWriter.datagramsPerRequestMax)
        lengths.initialize(repeating: 0, count: AnswerWriter.datagramsPerRequestMax)
    }

    func deallocate() {
        received.deallocate()
        receivedSlots.deallocate()
        receivedOctets.deallocate()
        answers.deallocate()
        answerVectors.deallocate()
        answerOctets.deallocate()
        lengths.deallocate()
        hints.deallocate()
    }

    /// Receives what is there, without waiting.
    ///
    /// - Returns: how many datagrams.
    func receive(_ descriptor: Int32) -> Int {
        for index in 0..<Self.datagramsMax {
            mat_batch_receives(
                received + index, receivedSlots + index, receivedOctets + index * AnswerWriter.datagramStride, AnswerWriter.datagramStride)
        }
        return max(0, Int(mat_recvmmsg(descriptor, received, UInt32(Self.datagramsMax), Int32(MSG_DONTWAIT))))
    }

    /// The octets alone.
    @inline(__always)
    func octets(_ index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: receivedOctets + index * AnswerWriter.datagramStride, count: min(Int(received[index].length), AnswerWriter.datagramStride))
    }

    /// One received datagram. Longer ones than the protocol's are cut off, but still too long.
    @inline(__always)
    func datagram(_ index: Int) -> (octets: UnsafeRawBufferPointer, source: Endpoint, local: IPAddress) {
        var header = mat_datagram()
        mat_batch_received(received + index, receivedSlots + index, &header)
        return (octets(index), Endpoint(Self.address(header.peer), port: header.peer_port), Self.address(header.local))
    }

    @inline(__always)
    private static func address(_ address: in6_addr) -> IPAddress {
        withUnsafeBytes(of: address) {
            IPAddress(
                high: UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }

    /// Where the answers to the next datagram go.
    @inline(__always)
    func writer() -> AnswerWriter { AnswerWriter(answerOctets + answersCount * AnswerWriter.datagramStride, lengths) }

    /// Takes what was written as answers to this received datagram; sends if there is no room for more.
    @inline(__always)
    mutating func add(_ writer: AnswerWriter, to index: Int, _ descriptor: Int32, _ counters: QueryCounters) {
        for number in 0..<writer.datagramsCount {
            mat_batch_answers(
                answers + answersCount, answerVectors + answersCount, answerOctets + answersCount * AnswerWriter.datagramStride,
                Int(lengths[number]), received + index)
            answersCount += 1
        }
        if answersCount > Self.answersMax - AnswerWriter.datagramsPerRequestMax { send(descriptor, counters) }
    }

    /// Forgets the answers that were added: what they were made from has become old.
    mutating func dropAnswers(_ counters: QueryCounters) {
        counters.add(.heldBack, answersCount)
        answersCount = 0
    }

    /// Sends all that was added. Waits for room in the socket's buffer: the kernel then tells the senders by their own full queue.
    mutating func send(_ descriptor: Int32, _ counters: QueryCounters) {
        var sent = 0
        while sent < answersCount {
            let count = Int(mat_sendmmsg(descriptor, answers + sent, UInt32(answersCount - sent), Int32(MSG_NOSIGNAL)))
            if count > 0 {
                sent += count
            } else if errno != EINTR {
                // The first can't be sent, to nowhere that is routed for example; the others may.
                counters.add(.sendFailures)
                sent += 1
            }
        }
        answersCount = 0
    }
}

import CLinux
import Glibc
import MATSignal

/// The memory with which one worker receives, answers and sends many datagrams by one system call each; used again for each batch.
///
/// ```
///   receive ──► datagram 0 ... 63, each with its source and the address it was sent to
///                    │ the caller writes up to `answersPerDatagramMax` answers at `answerRoom`
///                    └─► add ──► ... ──► send
/// ```
/// Answers are written where they are sent from, so nothing is copied on the way. Whoever has a batch calls `deallocate` last.
package struct DatagramBatch {
    /// Datagrams received by one call.
    @inlinable package static var datagramsMax: Int { 64 }
    /// Room for one datagram of the protocol, in whole cache lines.
    @inlinable package static var octetsPerDatagram: Int { 1280 }

    private let received: UnsafeMutablePointer<mat_message>
    private let receivedSlots: UnsafeMutablePointer<mat_slot>
    private let receivedOctets: UnsafeMutableRawPointer
    private let answers: UnsafeMutablePointer<mat_message>
    private let answerVectors: UnsafeMutablePointer<iovec>
    private let answerOctets: UnsafeMutableRawPointer
    /// Answers sent by one call: room for a whole batch of single answers, and for all answers to one more datagram.
    private let answersMax: Int
    private let answersPerDatagramMax: Int
    private var answersCount = 0

    /// The octets of each answer that stands at `answerRoom`; room for `answersPerDatagramMax`.
    package let lengths: UnsafeMutablePointer<Int32>

    package init(answersPerDatagramMax: Int) {
        self.answersPerDatagramMax = answersPerDatagramMax
        answersMax = Self.datagramsMax + answersPerDatagramMax
        received = .allocate(capacity: Self.datagramsMax)
        received.initialize(repeating: mat_message(), count: Self.datagramsMax)
        receivedSlots = .allocate(capacity: Self.datagramsMax)
        receivedSlots.initialize(repeating: mat_slot(), count: Self.datagramsMax)
        receivedOctets = .allocate(byteCount: Self.datagramsMax * Self.octetsPerDatagram, alignment: 64)
        answers = .allocate(capacity: answersMax)
        answers.initialize(repeating: mat_message(), count: answersMax)
        answerVectors = .allocate(capacity: answersMax)
        answerVectors.initialize(repeating: iovec(), count: answersMax)
        answerOctets = .allocate(byteCount: answersMax * Self.octetsPerDatagram, alignment: 64)
        lengths = .allocate(capacity: answersPerDatagramMax)
        lengths.initialize(repeating: 0, count: answersPerDatagramMax)
    }

    package func deallocate() {
        received.deallocate()
        receivedSlots.deallocate()
        receivedOctets.deallocate()
        answers.deallocate()
        answerVectors.deallocate()
        answerOctets.deallocate()
        lengths.deallocate()
    }

    /// Receives what is there, without waiting.
    ///
    /// - Returns: how many datagrams.
    package func receive(_ descriptor: Int32) -> Int {
        for index in 0..<Self.datagramsMax {
            mat_batch_receives(
                received + index, receivedSlots + index, receivedOctets + index * Self.octetsPerDatagram, Self.octetsPerDatagram)
        }
        return max(0, Int(mat_recvmmsg(descriptor, received, UInt32(Self.datagramsMax), Int32(MSG_DONTWAIT))))
    }

    /// The octets alone.
    package func octets(_ index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: receivedOctets + index * Self.octetsPerDatagram, count: min(Int(received[index].length), Self.octetsPerDatagram))
    }

    /// One received datagram. Longer ones than the protocol's are cut off, but still too long.
    package func datagram(_ index: Int) -> (octets: UnsafeRawBufferPointer, source: Endpoint, local: IPAddress) {
        var header = mat_datagram()
        mat_batch_received(received + index, receivedSlots + index, &header)
        return (octets(index), Endpoint(IPAddress(ofMessage: header.peer), port: header.peer_port), IPAddress(ofMessage: header.local))
    }

    /// Where the answers to the next datagram go: room for `answersPerDatagramMax`, `octetsPerDatagram` apart.
    package var answerRoom: UnsafeMutableRawPointer { answerOctets + answersCount * Self.octetsPerDatagram }

    /// Takes so many answers, which stand at `answerRoom`, to this received datagram; sends if there is no room for more.
    ///
    /// - Returns: how many could not be sent.
    package mutating func add(_ count: Int, to index: Int, _ descriptor: Int32) -> Int {
        for number in 0..<count {
            mat_batch_answers(
                answers + answersCount, answerVectors + answersCount, answerOctets + answersCount * Self.octetsPerDatagram,
                Int(lengths[number]), received + index)
            answersCount += 1
        }
        return answersCount > answersMax - answersPerDatagramMax ? send(descriptor) : 0
    }

    /// Forgets the answers that were added: what they were made from has become old.
    ///
    /// - Returns: how many.
    package mutating func dropAnswers() -> Int {
        defer { answersCount = 0 }
        return answersCount
    }

    /// Sends all that was added. Waits for room in the socket's buffer: the kernel then tells the senders by their own full queue.
    ///
    /// - Returns: how many could not be sent.
    package mutating func send(_ descriptor: Int32) -> Int {
        var failures = 0
        sendMessages(answers, answersCount, by: descriptor, flags: Int(MSG_NOSIGNAL)) { _ in failures += 1 }
        answersCount = 0
        return failures
    }
}

import Glibc
import Synchronization

/// A numbered stream of UDP probes in both directions at once, one each way, on one socket.
///
///     client                     server
///       | -- hello (every 100 ms) -> |      until the server answers: what a first packet costs is not a gap of the stream
///       | <------------------ hello  |
///       | -- probe 0, 1, 2 ... ----> |      the first one makes the server start its own stream
///       | <---- probe 0, 1, 2 ...    |
///       | -- finish (how many) ----> |      repeated until the peer's has come, at most `finishWaitMax`
///       | <---- finish (how many)    |
public struct StreamRun: Sendable {
    /// Four hours of probes at 1 ms; a longer run ends early rather than fill the memory.
    public static let receptionsMax = 14_400_000
    static let helloEvery: Nanoseconds = 100 * ProbeClock.perMillisecond
    static let finishEvery: Nanoseconds = 50 * ProbeClock.perMillisecond
    /// Between the last probe and the first finish, so that a finish does not overtake probes that are held on their way.
    static let settle: Nanoseconds = 300 * ProbeClock.perMillisecond
    static let finishWaitMax: Nanoseconds = 5 * ProbeClock.perSecond
    static let finishesMin = 4

    /// Identifies a run and says how it is to go; the client decides, the server learns it from the first packet.
    struct Terms: Sendable {
        var run: UInt32
        var interval: Nanoseconds
        var duration: Nanoseconds

        func packet(_ kind: ProbePacket.Kind, number: UInt64 = 0) -> ProbePacket {
            ProbePacket(
                kind: kind, run: run, intervalMicroseconds: UInt32(clamping: interval / 1000),
                durationMilliseconds: UInt32(clamping: duration / ProbeClock.perMillisecond), number: number, sent: ProbeClock.now())
        }
    }

    /// Connects and measures for the given time.
    /// - Parameter answerWithin: how long the server may take to answer the hello
    public static func connect(
        to host: String, port: UInt16, family: AddressFamily?, interval: Nanoseconds, duration: Nanoseconds,
        answerWithin: Nanoseconds = 15 * ProbeClock.perSecond
    ) throws -> StreamLog {
        let socket = try ProbeSocket.connected(to: host, port: port, family: family, type: SOCK_DGRAM)
        let terms = Terms(run: UInt32.random(in: 1...UInt32.max), interval: interval, duration: duration)
        let started = ProbeClock.now()
        var helloAt = started
        var inbox = StreamInbox(socket)
        while true {
            guard !Interruption.isRequested else { throw ProbeError("interrupted before the server answered") }
            let now = ProbeClock.now()
            guard now - started < answerWithin else {
                throw ProbeError("\(host) port \(port) did not answer within \(answerWithin / ProbeClock.perSecond) s")
            }
            if now >= helloAt {
                _ = transmit(terms.packet(.hello), socket)
                helloAt = now + helloEvery
            }
            if let (packet, _) = inbox.next(waitingMilliseconds: 20), packet.run == terms.run, packet.kind == .hello { break }
        }
        return exchange(socket, family: socket.family, role: .client, terms, answeredAfter: ProbeClock.now() - started, inbox)
    }

    /// Serves one run; nil when interrupted before a client came.
    public static func listen(port: UInt16, family: AddressFamily?) throws -> StreamLog? {
        let socket = try ProbeSocket.bound(port: port, family: family, type: SOCK_DGRAM)
        var inbox = StreamInbox(socket)
        while !Interruption.isRequested {
            guard socket.isReadable(withinMilliseconds: 200) else { continue }
            let peerFamily = try socket.connectToSender()
            guard let (hello, _) = inbox.next(waitingMilliseconds: 0), hello.kind == .hello, hello.intervalMicroseconds > 0 else { continue }
            let terms = Terms(
                run: hello.run, interval: Nanoseconds(hello.intervalMicroseconds) * 1000,
                duration: Nanoseconds(hello.durationMilliseconds) * ProbeClock.perMillisecond)
            _ = transmit(terms.packet(.hello), socket)
            return exchange(socket, family: peerFamily, role: .server, terms, answeredAfter: 0, inbox)
        }
        return nil
    }

    private static func exchange(
        _ socket: ProbeSocket, family: AddressFamily, role: StreamLog.Role, _ terms: Terms, answeredAfter: Nanoseconds, _ inbox: StreamInbox
    ) -> StreamLog {
        var inbox = inbox
        let sender = StreamSender(socket, terms)
        let isFirst = PreciseThread.preferCurrent()
        let started = ProbeClock.now()
        if role == .client { sender.start() }
        var receptions: [Reception] = []
        receptions.reserveCapacity(min(receptionsMax, Int(clamping: terms.duration / max(1, terms.interval)) + 1000))
        var peerSent: UInt64?
        // A server whose client vanished ends as well: after the time a run may take at most.
        let end = started + terms.duration + settle + finishWaitMax + (role == .server ? 20 * ProbeClock.perSecond : 0)
        while ProbeClock.now() < end, receptions.count < receptionsMax {
            if Interruption.isRequested { sender.stop() }
            if sender.isFinished && peerSent != nil { break }
            if let giveUp = sender.finishesUntil, ProbeClock.now() > giveUp { break }
            guard let (packet, received) = inbox.next(waitingMilliseconds: 20), packet.run == terms.run else { continue }
            switch packet.kind {
            case .hello:
                // Our answer to the first one was lost.
                if role == .server { _ = transmit(terms.packet(.hello), socket) }
            case .probe:
                if role == .server { sender.start() }
                receptions.append(Reception(number: packet.number, sent: packet.sent, received: received))
            case .finish:
                peerSent = packet.number
            }
        }
        sender.stop()
        let result = sender.joined()
        return StreamLog(
            header: StreamLog.Header(
                role: role, family: family, intervalMicroseconds: terms.interval / 1000, started: started,
                answeredAfterMilliseconds: Double(answeredAfter) / 1e6, hasRealTimePriority: isFirst, sent: result.sent,
                sendErrors: result.errors, lastSendError: result.lastError, largestSendDelayMilliseconds: Double(result.latest) / 1e6,
                inbound: StreamAnalysis(receptions, sent: peerSent, interval: terms.interval)),
            receptions: receptions)
    }

    /// false: the system refused; errno says why.
    static func transmit(_ packet: ProbePacket, _ socket: ProbeSocket) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: ProbePacket.octets, alignment: 8) { buffer in
            packet.encode(into: buffer)
            return send(socket.descriptor, buffer.baseAddress, ProbePacket.octets, Int32(MSG_NOSIGNAL)) == ProbePacket.octets
        }
    }
}

/// The sending half: a thread of its own, woken at absolute times.
private final class StreamSender: @unchecked Sendable {
    struct Result: Sendable {
        var sent: UInt64 = 0
        var errors: UInt64 = 0
        var lastError: String?
        /// The most that a probe left later than meant.
        var latest: Nanoseconds = 0
    }

    private let socket: ProbeSocket
    private let terms: StreamRun.Terms
    private let result = Mutex(Result())
    private let isStopped = Atomic<Bool>(false)
    private let finishesSent = Atomic<Int>(0)
    private let deadline = Atomic<Nanoseconds>(0)
    // Used by the receiving thread only, which starts and joins this one.
    private var thread: PreciseThread?

    init(_ socket: ProbeSocket, _ terms: StreamRun.Terms) {
        self.socket = socket
        self.terms = terms
    }

    var isFinished: Bool { finishesSent.load(ordering: .relaxed) >= StreamRun.finishesMin }

    /// When to stop waiting for the peer's finish; nil while probes are still sent.
    var finishesUntil: Nanoseconds? {
        let time = deadline.load(ordering: .relaxed)
        return time == 0 ? nil : time
    }

    func start() {
        guard thread == nil else { return }
        thread = PreciseThread { [self] in run() }
    }

    /// The first call ends the probes and lets the finishes follow; after them it ends those.
    func stop() { isStopped.store(true, ordering: .relaxed) }

    func joined() -> Result {
        thread?.join()
        return result.withLock { $0 }
    }

    private func run() {
        var own = Result()
        let started = ProbeClock.now()
        var due = started
        while due < started + terms.duration, !isStopped.load(ordering: .relaxed) {
            ProbeClock.sleep(until: due)
            own.latest = max(own.latest, ProbeClock.now() - due)
            if !StreamRun.transmit(terms.packet(.probe, number: own.sent), socket) {
                own.lastError = String(cString: strerror(errno))
                own.errors += 1
            }
            own.sent += 1
            due += terms.interval
        }
        let finishFrom = ProbeClock.now() + StreamRun.settle
        deadline.store(finishFrom + StreamRun.finishWaitMax, ordering: .relaxed)
        ProbeClock.sleep(until: finishFrom)
        due = finishFrom
        // At least a few even if the peer's word came first: the peer needs ours.
        while finishesSent.load(ordering: .relaxed) < StreamRun.finishesMin
            || (!isStopped.load(ordering: .relaxed) && ProbeClock.now() < finishFrom + StreamRun.finishWaitMax)
        {
            _ = StreamRun.transmit(terms.packet(.finish, number: own.sent), socket)
            finishesSent.wrappingAdd(1, ordering: .relaxed)
            due += StreamRun.finishEvery
            ProbeClock.sleep(until: due)
        }
        result.withLock { [own] in $0 = own }
    }
}

/// The receiving half's view of the socket: packets with the time the kernel received them, which does not depend on when
/// this process gets its turn.
struct StreamInbox {
    private let socket: ProbeSocket
    private static let controlOctets = 64
    private static let timestampOption: Int32 = 35  // SO_TIMESTAMPNS and SCM_TIMESTAMPNS of asm-generic/socket.h

    init(_ socket: ProbeSocket) {
        self.socket = socket
        socket.set(SOL_SOCKET, Self.timestampOption, 1)
        socket.set(SOL_SOCKET, SO_RCVBUF, 4 << 20)
    }

    /// nil: nothing came in time, or nothing of ours. Errors that ICMP brought (a host that is unreachable for a while) are
    /// what is being measured, and show as loss.
    mutating func next(waitingMilliseconds: Int32) -> (ProbePacket, Nanoseconds)? {
        guard socket.isReadable(withinMilliseconds: waitingMilliseconds) else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: 2048, alignment: 8) { data in
            withUnsafeTemporaryAllocation(byteCount: Self.controlOctets, alignment: 8) { control in
                var vector = iovec(iov_base: data.baseAddress, iov_len: data.count)
                return withUnsafeMutablePointer(to: &vector) { vector in
                    var message = msghdr()
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    let count = recvmsg(socket.descriptor, &message, Int32(MSG_DONTWAIT))
                    guard count > 0, let packet = ProbePacket(decoding: UnsafeRawBufferPointer(rebasing: data[..<count])) else { return nil }
                    let stamp = Self.stamp(UnsafeRawBufferPointer(rebasing: control[..<min(control.count, message.msg_controllen)]))
                    return (packet, stamp ?? ProbeClock.now())
                }
            }
        }
    }

    /// The first control message, if it is the time stamp: struct cmsghdr (length, level, type), then struct timespec.
    private static func stamp(_ control: UnsafeRawBufferPointer) -> Nanoseconds? {
        guard control.count >= 32, control.loadUnaligned(fromByteOffset: 8, as: Int32.self) == SOL_SOCKET,
            control.loadUnaligned(fromByteOffset: 12, as: Int32.self) == timestampOption
        else { return nil }
        let seconds = control.loadUnaligned(fromByteOffset: 16, as: Int64.self)
        let nanoseconds = control.loadUnaligned(fromByteOffset: 24, as: Int64.self)
        return seconds &* ProbeClock.perSecond &+ nanoseconds &+ ProbeClock.monotonicMinusWall()
    }
}

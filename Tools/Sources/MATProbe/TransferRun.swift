import Glibc

/// One bulk TCP transfer in one direction. The client opens with 24 octets that say how it is to go; at the end the receiver
/// answers with the number of octets it got, so that both know whether everything arrived.
public struct TransferRun {
    static let sampleEvery: Nanoseconds = 10 * ProbeClock.perMillisecond
    static let bufferOctets = 65_536
    /// Two hours of samples.
    static let samplesMax = 720_000
    /// After the time to send: for what is still under way, and for TCP's own retries after a long gap.
    static let drainMax: Nanoseconds = 30 * ProbeClock.perSecond

    /// magic "MATT", sender is server (4), duration in ms (8), rate in octets/s, 0: as fast as it goes (8).
    private struct Terms {
        static let octets = 24
        static let magic: UInt32 = 0x4d41_5454
        var isReversed: Bool
        var duration: Nanoseconds
        var octetsPerSecond: UInt64

        func encoded() -> [UInt8] {
            var bytes: [UInt8] = []
            for value in [UInt64(Self.magic) << 32 | (isReversed ? 1 : 0), UInt64(clamping: duration / ProbeClock.perMillisecond), octetsPerSecond] {
                withUnsafeBytes(of: value.bigEndian) { bytes += $0 }
            }
            return bytes
        }

        init(isReversed: Bool, duration: Nanoseconds, octetsPerSecond: UInt64) {
            self.isReversed = isReversed
            self.duration = duration
            self.octetsPerSecond = octetsPerSecond
        }

        init?(decoding bytes: [UInt8]) {
            guard bytes.count == Self.octets else { return nil }
            let values = stride(from: 0, to: Self.octets, by: 8).map { offset in
                bytes[offset..<offset + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            }
            guard values[0] >> 32 == UInt64(Self.magic), let duration = Nanoseconds(exactly: values[1]), duration <= 86_400_000 else { return nil }
            isReversed = values[0] & 1 == 1
            self.duration = duration * ProbeClock.perMillisecond
            octetsPerSecond = values[2]
        }
    }

    private let socket: ProbeSocket
    private let role: StreamLog.Role
    private let isSender: Bool
    private let started = ProbeClock.now()
    private var progress: [TransferLog.Progress] = []
    private var octets: UInt64 = 0
    private var lastProgress: Nanoseconds
    private var longestStall: Nanoseconds = 0
    private var longestStallFrom: Nanoseconds
    private var failure: String?
    private var isReset = false
    private var isComplete = false

    public static func connect(
        to host: String, port: UInt16, family: AddressFamily?, duration: Nanoseconds, megabitsPerSecond: UInt64?, isReversed: Bool
    ) throws -> TransferLog {
        let socket = try ProbeSocket.connected(to: host, port: port, family: family, type: SOCK_STREAM)
        let terms = Terms(isReversed: isReversed, duration: duration, octetsPerSecond: (megabitsPerSecond ?? 0) * 125_000)
        var run = TransferRun(socket, role: .client, isSender: !isReversed)
        run.sendAll(terms.encoded())
        return run.log(terms)
    }

    /// Serves one transfer; nil when interrupted before a client came.
    public static func listen(port: UInt16, family: AddressFamily?) throws -> TransferLog? {
        let listener = try ProbeSocket.bound(port: port, family: family, type: SOCK_STREAM)
        guard let socket = try listener.accepted() else { return nil }
        var run = TransferRun(socket, role: .server, isSender: false)
        guard let terms = Terms(decoding: run.receiveExactly(Terms.octets)) else {
            throw ProbeError("the client does not speak mat-probe tcp" + (run.failure.map { ": \($0)" } ?? ""))
        }
        if terms.isReversed { run = TransferRun(socket, role: .server, isSender: true) }
        return run.log(terms)
    }

    private init(_ socket: ProbeSocket, role: StreamLog.Role, isSender: Bool) {
        self.socket = socket
        self.role = role
        self.isSender = isSender
        lastProgress = started
        longestStallFrom = started
    }

    private mutating func log(_ terms: Terms) -> TransferLog {
        if failure == nil {
            if isSender { send(terms) } else { receive(terms) }
        }
        note(ProbeClock.now(), isLast: true)
        return TransferLog(
            header: TransferLog.Header(
                role: role, family: socket.family, isSender: isSender, started: started, ended: ProbeClock.now(), octets: octets,
                isComplete: isComplete, isReset: isReset, failure: failure, longestStallMilliseconds: Double(longestStall) / 1e6,
                longestStallFrom: longestStallFrom),
            progress: progress)
    }

    private mutating func send(_ terms: Terms) {
        let buffer = [UInt8](repeating: 0x6d, count: Self.bufferOctets)
        let end = started + terms.duration
        let giveUp = end + Self.drainMax
        // What may be sent now. A stall is not made up for afterwards: the catching up would look like a peak of the network.
        var allowance = 0.0
        var allowedAt = started
        while ProbeClock.now() < end, !Interruption.isRequested {
            var most = Self.bufferOctets
            if terms.octetsPerSecond > 0 {
                let now = ProbeClock.now()
                let most50ms = Double(terms.octetsPerSecond) / 20
                allowance = min(max(most50ms, 2896), allowance + Double(now - allowedAt) / 1e9 * Double(terms.octetsPerSecond))
                allowedAt = now
                guard allowance >= 1448 else {
                    ProbeClock.sleep(until: ProbeClock.now() + ProbeClock.perMillisecond)
                    continue
                }
                most = min(most, Int(allowance))
            }
            guard socket.isWritable(withinMilliseconds: 10) else { continue }
            let count = Glibc.send(socket.descriptor, buffer, most, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            guard moved(count) else { return }
            allowance -= Double(max(0, count))
        }
        shutdown(socket.descriptor, Int32(SHUT_WR))
        let answer = receiveExactly(8, until: giveUp)
        guard answer.count == 8 else {
            failure = failure ?? "the receiver did not confirm what it got"
            return
        }
        let got = answer.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        isComplete = got == octets
        if !isComplete { failure = "\(octets) octets sent, \(got) received" }
    }

    private mutating func receive(_ terms: Terms) {
        var buffer = [UInt8](repeating: 0, count: Self.bufferOctets)
        let giveUp = started + terms.duration + Self.drainMax
        while true {
            guard ProbeClock.now() < giveUp else {
                failure = "the transfer did not end in time"
                return
            }
            guard socket.isReadable(withinMilliseconds: 10) else { continue }
            let count = recv(socket.descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            if count == 0 { break }
            guard moved(count) else { return }
        }
        // The end of the data is no stall, but the time until now may have been one.
        var answer: [UInt8] = []
        withUnsafeBytes(of: octets.bigEndian) { answer += $0 }
        sendAll(answer)
        isComplete = failure == nil
    }

    /// Takes account of what a call moved; false: the connection is broken.
    private mutating func moved(_ count: Int) -> Bool {
        let number = errno
        let now = ProbeClock.now()
        if count < 0 {
            if number == EAGAIN || number == EINTR { return true }
            fail(number)
            return false
        }
        if now - lastProgress > longestStall {
            longestStall = now - lastProgress
            longestStallFrom = lastProgress
        }
        lastProgress = now
        octets += UInt64(count)
        note(now)
        return true
    }

    private mutating func fail(_ number: Int32) {
        isReset = number == ECONNRESET || number == EPIPE || number == ECONNREFUSED
        failure = String(cString: strerror(number))
    }

    /// One line per 10 ms in which something moved.
    private mutating func note(_ now: Nanoseconds, isLast: Bool = false) {
        guard progress.count < Self.samplesMax else { return }
        if let last = progress.last, now - last.time < Self.sampleEvery, !isLast { return }
        progress.append(TransferLog.Progress(time: now, octets: octets))
    }

    private mutating func sendAll(_ bytes: [UInt8]) {
        // A few octets on a fresh connection or after EOF fit into its buffer at once.
        if Glibc.send(socket.descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) != bytes.count { fail(errno) }
    }

    private mutating func receiveExactly(_ count: Int, until: Nanoseconds? = nil) -> [UInt8] {
        let giveUp = until ?? ProbeClock.now() + 10 * ProbeClock.perSecond
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: count)
        while result.count < count, ProbeClock.now() < giveUp {
            guard socket.isReadable(withinMilliseconds: 10) else { continue }
            let got = recv(socket.descriptor, &buffer, count - result.count, Int32(MSG_DONTWAIT))
            if got == 0 { break }
            if got < 0 {
                if errno == EAGAIN || errno == EINTR { continue }
                fail(errno)
                break
            }
            result += buffer[..<got]
        }
        return result
    }
}

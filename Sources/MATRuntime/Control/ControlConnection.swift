import CLinux
import Glibc
import MATSignal

/// One client of a `ControlServer`: lines in, lines out, all of it bounded.
final class ControlConnection {
    /// The longest request line.
    static let requestBytesMax = 65_536
    /// What may wait for a slow reader; a longer response is replaced by an error.
    static let responseBytesMax = 32 << 20
    /// How long a client that has closed its sending side may take to read its answer.
    static let lingerMax = Duration.seconds(10)
    static let lingerRetry = Duration.milliseconds(10)

    private let loop: EventLoop
    private var descriptor: Int32
    private let peerUID: UInt32
    private let peerProcess: Int32
    /// Stands for that process (pidfd), so that nobody is taken for it who has got its number since; -1 if there is none.
    private var peerDescriptor: Int32
    private let number: UInt64
    private let handler: ControlServer.Handler
    private let closed: () -> Void

    private var input: [UInt8] = []
    private var output: [UInt8] = []
    private var written = 0
    /// Counts requests, so that a second or late answer to an earlier one is recognised.
    private var request = 0
    private var isAnswering = false
    private var inputEnded = false
    private var lingerUntil: MonotonicTime?

    init(
        loop: EventLoop, descriptor: Int32, peerUID: UInt32, number: UInt64, handler: @escaping ControlServer.Handler,
        closed: @escaping () -> Void
    ) {
        self.number = number
        self.loop = loop
        self.descriptor = descriptor
        self.peerUID = peerUID
        peerProcess = mat_peer_process(descriptor)
        let named = mat_peer_process_descriptor(descriptor)
        // Linux before 6.5: from the number, which only just was its own.
        peerDescriptor = named >= 0 || peerProcess <= 0 ? named : mat_open_process(peerProcess)
        self.handler = handler
        self.closed = closed
    }

    deinit { close() }

    /// It has something that ends with it, and so is not closed to make room.
    var isHeld = false

    var isIdle: Bool { !isAnswering && output.isEmpty }

    /// - Returns: `false` if the kernel refused to watch the descriptor; it is closed then.
    func start() -> Bool {
        do {
            try loop.watch(descriptor) { [unowned self] in receive() }
            return true
        } catch {
            close()
            return false
        }
    }

    func close() {
        guard descriptor >= 0 else { return }
        loop.unwatch(descriptor)
        Glibc.close(descriptor)
        descriptor = -1
        if peerDescriptor >= 0 { Glibc.close(peerDescriptor) }
        peerDescriptor = -1
    }

    private func end() {
        close()
        closed()
    }

    // MARK: Requests

    private func receive() {
        var chunk = [UInt8](repeating: 0, count: 16_384)
        let count = recv(descriptor, &chunk, chunk.count, 0)
        if count < 0 {
            if errno != EAGAIN && errno != EINTR { end() }
            return
        }
        if count == 0 {
            // The client has sent all it wanted and may still wait for its answer. The descriptor would report its end of
            // input for ever, so it is no longer watched.
            inputEnded = true
            loop.unwatch(descriptor)
        } else {
            input += chunk.prefix(count)
        }
        work()
    }

    /// Answers the lines that have come, until one is not answered at once. `self` stays alive through the caller's reference.
    private func work() {
        // Lines are removed from the input once, at the end: a client may send thousands of empty ones.
        var start = 0
        while !isAnswering, descriptor >= 0, let end = input[start...].firstIndex(of: 10) {
            let line = Array(input[start..<end])
            start = end + 1
            if line.isEmpty { continue }
            guard line.count <= Self.requestBytesMax else {
                reply(.failed("the request is longer than \(Self.requestBytesMax) bytes"))
                break
            }
            answer(line)
        }
        input.removeFirst(start)
        guard descriptor >= 0 else { return }
        if input.count > Self.requestBytesMax, !isAnswering {
            // Without a line end in sight there is no telling where the next request starts.
            reply(.failed("the request is longer than \(Self.requestBytesMax) bytes"))
            end()
        } else if input.count > 2 * Self.requestBytesMax {
            end()
        } else if inputEnded {
            if isIdle { end() } else if !isAnswering { linger() }
        }
    }

    private func answer(_ line: [UInt8]) {
        let parsed: ControlRequest
        do throws(ControlError) {
            parsed = try ControlRequest(
                line: line, peerUID: peerUID, peerProcess: peerProcess, peerDescriptor: peerDescriptor, connection: number)
        } catch {
            reply(.failed(error.description))
            return
        }
        request += 1
        isAnswering = true
        let number = request
        var isSynchronous = true
        handler(parsed) { [weak self] response in
            guard let self, isAnswering, request == number, descriptor >= 0 else { return }
            isAnswering = false
            reply(response)
            if !isSynchronous { work() }
        }
        isSynchronous = false
    }

    // MARK: Responses

    private func reply(_ response: ControlResponse) {
        var line = response.line
        if output.count - written + line.count > Self.responseBytesMax {
            line = ControlResponse.failed("the answer is longer than \(Self.responseBytesMax) bytes; ask for less").line
        }
        output += line
        output.append(10)
        flush()
    }

    private func flush() {
        guard descriptor >= 0 else { return }
        while written < output.count {
            let count = output.withUnsafeBytes { bytes in
                send(
                    descriptor, bytes.baseAddress.map { $0 + written }, bytes.count - written, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            }
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { break }
                end()
                return
            }
            written += count
        }
        if written == output.count {
            output = []
            written = 0
            loop.whenWritable(descriptor, nil)
        } else if !inputEnded {
            loop.whenWritable(descriptor) { [unowned self] in flush() }
        }
    }

    /// Writes what is left to a client that only reads any more, by timer since the descriptor is not watched.
    private func linger() {
        let now = SystemClock.now().monotonic
        let until = lingerUntil ?? now + Self.lingerMax
        lingerUntil = until
        guard now < until else { return end() }
        loop.schedule(after: Self.lingerRetry) { [weak self] in
            guard let self, descriptor >= 0 else { return }
            flush()
            if descriptor >= 0 { work() }
        }
    }
}

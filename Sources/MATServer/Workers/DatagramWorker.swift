import CLinux
import Glibc
import MATRuntime
import MATSignal

/// What a worker does with the datagrams of its sockets. All calls come in the worker's thread.
package protocol DatagramServing: AnyObject {
    /// Before the first datagram.
    ///
    /// - Returns: whether it can serve; if not, the thread ends.
    func begin() -> Bool

    /// Receives one batch from this socket, without waiting, and does with it what is to be done.
    ///
    /// - Returns: how many datagrams; `DatagramBatch.datagramsMax` if there may be more.
    func serve(_ socket: Int32) -> Int

    /// Between batches, and when what it returned before has passed.
    ///
    /// - Returns: for how many milliseconds at most to wait for the next datagram; -1: until one comes.
    func turn(at now: MonotonicTime) -> Int32

    /// After the last datagram.
    func end()
}

extension DatagramServing {
    package func turn(at now: MonotonicTime) -> Int32 { -1 }
}

/// A thread that receives at sockets of its own.
///
/// ```
///   poll ──► a batch of a socket, served ──► more there? ──► next socket ... ──► poll
///    ▲                                                                           │
///    └─────── after a short rest if datagrams come fast and one by one ──────────┘
/// ```
package final class DatagramWorker: @unchecked Sendable {
    package let sockets: [BoundSocket]
    private let descriptors: [Int32]
    private let service: any DatagramServing
    private let rests: Bool
    /// Readable when the worker is to end.
    private let ending: Int32
    private var thread = pthread_t()
    private var isStarted = false

    /// - Parameter rests: whether datagrams that come fast and one by one may wait a moment for others, to be served together.
    package convenience init(sockets: [BoundSocket], service: any DatagramServing, rests: Bool = true) throws(SystemError) {
        try self.init(sockets, sockets.map(\.descriptor), service, rests: rests)
    }

    /// Likewise for one descriptor of another kind, such as a TUN device's. It stays open until the worker has gone.
    package convenience init(descriptor: Int32, service: any DatagramServing) throws(SystemError) {
        try self.init([], [descriptor], service, rests: false)
    }

    private init(_ sockets: [BoundSocket], _ descriptors: [Int32], _ service: any DatagramServing, rests: Bool) throws(SystemError) {
        self.sockets = sockets
        self.descriptors = descriptors
        self.service = service
        self.rests = rests
        ending = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard ending >= 0 else { throw SystemError("eventfd") }
    }

    deinit { close(ending) }

    package func start() throws(SystemError) {
        thread = try SystemThread.start { [self] in run() }
        isStarted = true
    }

    /// Ends the thread, which still serves what has arrived, and waits for that. The sockets stay open.
    package func stop() {
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
    /// Batches of one socket in a row; then the other sockets are looked at.
    private static let batchesPerTurnMax = 16

    private func run() {
        guard service.begin() else { return }
        defer { service.end() }
        mat_sleep_exactly()
        var before = MonotonicTime.zero
        var polled = (descriptors + [ending]).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let count = descriptors.count
        var patience: Int32 = -1
        var isEnding = false
        while true {
            // When it is to end nothing is waited for any more.
            if poll(&polled, nfds_t(count + 1), isEnding ? 0 : patience) < 0, errno != EINTR { break }
            if polled[count].revents != 0 { isEnding = true }
            var received = 0
            for index in 0..<count where polled[index].revents != 0 {
                // As long as batches are full there is more, and poll would only say so. Now and then it is asked all the same, for
                // the other sockets' sake.
                var last = DatagramBatch.datagramsMax
                var turns = 0
                while last == DatagramBatch.datagramsMax, turns < Self.batchesPerTurnMax {
                    last = service.serve(polled[index].fd)
                    received += last
                    turns += 1
                }
            }
            if isEnding, received == 0 { break }
            let now = SystemClock.now().monotonic
            if rests, received < Self.restBelow, now - before < Self.restWithin {
                var rest = timespec(tv_sec: 0, tv_nsec: Self.restNanoseconds)
                nanosleep(&rest, nil)
            }
            before = now
            patience = service.turn(at: now)
        }
    }
}

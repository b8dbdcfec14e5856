import CLinux
import Glibc
import MATSignal

/// One thread that waits for file descriptors, timers and posts from other threads, and calls back in that thread.
///
/// Both daemons run all their protocol work here, so nothing in them needs a lock: a callback has the whole state to itself
/// and must not block. The class is deliberately not `Sendable`; other threads hold a `Poster`.
public final class EventLoop {
    /// Events taken from the kernel per wait; more simply wait for the next turn.
    static let eventsPerWaitMax = 64

    private let epoll: Int32
    private let wakeup: Int32
    private var watchers: [Int32: Watcher] = [:]
    private var timers = TimerQueue()
    private let posts = PostQueue()
    private var running = false

    private struct Watcher {
        var readable: () -> Void
        var writable: (() -> Void)?
    }

    public init() throws(SystemError) {
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw SystemError("epoll_create1") }
        wakeup = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard wakeup >= 0 else {
            let error = SystemError("eventfd")
            close(epoll)
            throw error
        }
        posts.wakeup = wakeup
        try watch(wakeup) { [unowned self] in runPosts() }
    }

    deinit {
        close(wakeup)
        close(epoll)
    }

    // MARK: File descriptors

    /// Calls `readable` whenever the descriptor can be read, until `unwatch`. The caller keeps ownership of the
    /// descriptor. Level-triggered: a callback that leaves data behind is called again.
    public func watch(_ descriptor: Int32, readable: @escaping () -> Void) throws(SystemError) {
        var event = epoll_event()
        event.events = EPOLLIN.rawValue
        event.data.fd = descriptor
        guard epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0 else { throw SystemError("epoll_ctl add \(descriptor)") }
        watchers[descriptor] = Watcher(readable: readable)
    }

    /// Calls `writable` once the descriptor (already watched) can be written; `nil` stops asking.
    public func whenWritable(_ descriptor: Int32, _ writable: (() -> Void)?) {
        guard watchers[descriptor] != nil else { return }
        watchers[descriptor]?.writable = writable
        var event = epoll_event()
        event.events = writable == nil ? EPOLLIN.rawValue : EPOLLIN.rawValue | EPOLLOUT.rawValue
        event.data.fd = descriptor
        epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event)
    }

    public func unwatch(_ descriptor: Int32) {
        guard watchers.removeValue(forKey: descriptor) != nil else { return }
        epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, nil)
    }

    // MARK: Timers

    /// Calls `body` once, at `time` or as soon after as the loop is free.
    @discardableResult
    public func schedule(at time: MonotonicTime, _ body: @escaping () -> Void) -> TimerID {
        timers.add(at: time, body)
    }

    @discardableResult
    public func schedule(after delay: Duration, _ body: @escaping () -> Void) -> TimerID {
        schedule(at: SystemClock.now().monotonic + delay, body)
    }

    public func cancel(_ timer: TimerID) { timers.cancel(timer) }

    // MARK: Other threads

    /// For other threads, which can hand work to this loop and do nothing else with it.
    public var poster: Poster { Poster(queue: posts) }

    private func runPosts() {
        var count: UInt64 = 0
        _ = read(wakeup, &count, 8)
        for body in posts.takeAll() { body() }
    }

    // MARK: Running

    /// Runs until `stop()`.
    public func run() throws(SystemError) {
        running = true
        let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: Self.eventsPerWaitMax)
        defer { events.deallocate() }
        while running {
            let count = epoll_wait(epoll, events, Int32(Self.eventsPerWaitMax), waitMilliseconds())
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError("epoll_wait")
            }
            for index in 0..<Int(count) {
                let event = events[index]
                // A callback may unwatch any descriptor, also one later in this batch: look each up again.
                if event.events & ~EPOLLOUT.rawValue != 0 { watchers[event.data.fd]?.readable() }
                if event.events & EPOLLOUT.rawValue != 0 { watchers[event.data.fd]?.writable?() }
            }
            runTimers()
        }
    }

    public func stop() { running = false }

    private func runTimers() {
        guard !timers.isEmpty else { return }
        let now = SystemClock.now().monotonic
        while let body = timers.takeDue(now) { body() }
    }

    private func waitMilliseconds() -> Int32 {
        guard let next = timers.next else { return -1 }
        let left = next - SystemClock.now().monotonic
        // Rounded up: waking a little early would spin until the timer is due.
        let milliseconds = (left.nanosecondsSaturated / 1_000_000).advanced(by: 1)
        return left <= .zero ? 0 : Int32(clamping: milliseconds)
    }
}

/// Hands work to an `EventLoop` from any thread.
public struct Poster: Sendable {
    fileprivate let queue: PostQueue

    /// Runs `body` in the loop's thread, in the order of the posts of one thread.
    public func post(_ body: @escaping @Sendable () -> Void) { queue.add(body) }
}

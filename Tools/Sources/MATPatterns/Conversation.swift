import Glibc
import MATLab
import MATProbe
import Namespaces
import Synchronization

/// Two hosts that talk all the time: numbered datagrams each way, and a TCP connection that writes at both ends. One thread has all sockets and
/// one clock, so what left and what arrived compares directly.
///
/// Or one end alone sends datagrams, and no octet of the connection: nothing that arrives tells it where the other is.
///
/// A host without MAT answers whoever speaks to it; so the far end learns from the first datagram whom it talks to.
public final class Conversation: Sendable {
    /// Between two datagrams, and between two writes, of each end.
    public static let interval: Int64 = 2_000_000
    private static let streamInterval: Int64 = 10_000_000
    private static let streamOctets = 100
    private static let beginSeconds = 20.0
    private static let drainSeconds = 20.0
    /// Errors that end a conversation. Others say that there is no way just now.
    private static let fatal = [ECONNRESET, ECONNREFUSED, EPIPE, ECONNABORTED, ETIMEDOUT, ENOTCONN]

    /// Who speaks: the near end's name in patterns is the mover.
    public enum Speakers: String, Sendable, CaseIterable {
        case both, mover, peer

        var isNear: Bool { self != .peer }
        var isFar: Bool { self != .mover }
    }

    private struct State {
        var isTalking = true
        var isOver = false
        var toFar = Flow()
        var toNear = Flow()
        var streamToFar = StreamCheck()
        var streamToNear = StreamCheck()
        var ends: [String] = []
    }

    private let state = Mutex(State())
    private let interval: Int64
    private let speakers: Speakers
    private let sockets: Sockets
    private let thread: UncheckedThread

    private struct Sockets: Sendable {
        var near: LabSocket
        var far: LabSocket
        var nearStream: LabSocket
        var farStream: LabSocket
        var all: [LabSocket] { [near, far, nearStream, farStream] }
    }

    private final class UncheckedThread: @unchecked Sendable {
        private var thread: JoinableThread?
        func start(_ body: @escaping () -> Void) { thread = JoinableThread(body) }
        func join() { thread?.join() }
    }

    /// Waits until both ends hear each other.
    ///
    /// - Parameter interval: between two datagrams of each end, in nanoseconds.
    public init(
        _ lab: Lab, _ near: Walk.Ending, _ far: Walk.Ending, port: UInt16, interval: Int64 = Conversation.interval, speakers: Speakers = .both
    ) throws {
        (self.interval, self.speakers) = (interval, speakers)
        let listener = try LabSocket(lab, far.host, SOCK_STREAM, isIPv4: far.isIPv4)
        try listener.bind(far.isIPv4 ? "0.0.0.0" : "::", port)
        try listener.listen()
        let farDatagrams = try LabSocket(lab, far.host, SOCK_DGRAM, isIPv4: far.isIPv4)
        try farDatagrams.bind(far.address, port)
        let nearStream = try LabSocket(lab, near.host, SOCK_STREAM, isIPv4: near.isIPv4)
        try nearStream.bind(near.address, 0)
        try nearStream.connect(far.address, port, within: Self.beginSeconds)
        let farStream = try listener.accept(within: Self.beginSeconds)
        let nearDatagrams = try LabSocket(lab, near.host, SOCK_DGRAM, isIPv4: near.isIPv4)
        try nearDatagrams.bind(near.address, 0)
        try nearDatagrams.connect(far.address, port, within: 1)
        try Self.introduce(nearDatagrams, farDatagrams)
        sockets = Sockets(near: nearDatagrams, far: farDatagrams, nearStream: nearStream, farStream: farStream)
        for socket in sockets.all { socket.setNonBlocking() }
        thread = UncheckedThread()
        thread.start { [self] in talk() }
    }

    private static func introduce(_ near: LabSocket, _ far: LabSocket) throws {
        let deadline = monotonicSeconds() + beginSeconds
        while monotonicSeconds() < deadline {
            _ = near.send([])
            if far.connectToSender(withinMilliseconds: 200) { return }
        }
        throw LabError("no datagram arrived within \(beginSeconds) s")
    }

    private func talk() {
        PreciseThread.preferCurrent()
        var (next, nextStream) = (ProbeClock.now(), ProbeClock.now())
        while !state.withLock({ $0.isOver }) {
            let now = ProbeClock.now()
            if now >= next {
                speak(now)
                next = max(next + interval, now)
            }
            if now >= nextStream {
                write(now)
                nextStream = max(nextStream + Self.streamInterval, now)
            }
            LabSocket.wait(sockets.all, nanoseconds: max(0, min(next, nextStream) - ProbeClock.now()))
            listen()
        }
    }

    private func speak(_ now: Int64) {
        state.withLock { state in
            guard state.isTalking else { return }
            if speakers.isNear { note(sockets.near.send(Self.datagram(state.toFar.send(at: now))), "UDP at the near end", &state) }
            if speakers.isFar { note(sockets.far.send(Self.datagram(state.toNear.send(at: now))), "UDP at the far end", &state) }
        }
    }

    private func write(_ now: Int64) {
        guard speakers == .both else { return }
        state.withLock { state in
            guard state.isTalking else { return }
            let there = sockets.nearStream.send(state.streamToFar.next(Self.streamOctets))
            if case .success(let count) = there { state.streamToFar.wrote(count, at: now) }
            note(there, "TCP at the near end", &state)
            let back = sockets.farStream.send(state.streamToNear.next(Self.streamOctets))
            if case .success(let count) = back { state.streamToNear.wrote(count, at: now) }
            note(back, "TCP at the far end", &state)
        }
    }

    private func listen() {
        state.withLock { state in
            while let octets = take(sockets.far, "UDP at the far end", &state) {
                if let number = Self.number(octets) { state.toFar.arrive(number, at: ProbeClock.now()) }
            }
            while let octets = take(sockets.near, "UDP at the near end", &state) {
                if let number = Self.number(octets) { state.toNear.arrive(number, at: ProbeClock.now()) }
            }
            while let octets = take(sockets.farStream, "TCP at the far end", &state) { state.streamToFar.took(octets, at: ProbeClock.now()) }
            while let octets = take(sockets.nearStream, "TCP at the near end", &state) { state.streamToNear.took(octets, at: ProbeClock.now()) }
        }
    }

    private func take(_ socket: LabSocket, _ name: String, _ state: inout State) -> [UInt8]? {
        switch socket.receive() {
        case .success(let octets):
            if octets.isEmpty, socket.isStream {
                end("\(name): closed by the other end", &state)
                return nil
            }
            return octets
        case .failure(let error):
            note(Result<Int, LabSocket.Refusal>.failure(error), name, &state)
            return nil
        }
    }

    private func note(_ result: Result<Int, LabSocket.Refusal>, _ name: String, _ state: inout State) {
        guard case .failure(let refusal) = result, Self.fatal.contains(refusal.number) else { return }
        end("\(name): \(String(cString: strerror(refusal.number)))", &state)
    }

    private func end(_ what: String, _ state: inout State) { if !state.ends.contains(what) { state.ends.append(what) } }

    private static func datagram(_ number: Int) -> [UInt8] { withUnsafeBytes(of: UInt64(number).bigEndian) { Array($0) } }
    private static func number(_ octets: [UInt8]) -> Int? {
        octets.count == 8 ? Int(exactly: octets.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }) : nil
    }

    // MARK: What came of it

    public var flows: (toFar: Flow, toNear: Flow) { state.withLock { ($0.toFar, $0.toNear) } }
    public var streams: (toFar: StreamCheck, toNear: StreamCheck) { state.withLock { ($0.streamToFar, $0.streamToNear) } }
    /// What ended, and by what.
    public var ends: [String] { state.withLock { $0.ends } }

    /// Datagrams that left since then have arrived where somebody speaks, and octets of the stream.
    private func hasArrived(since began: Int64, _ state: State) -> Bool {
        (!speakers.isNear || state.toFar.resumption(after: began) != nil) && (!speakers.isFar || state.toNear.resumption(after: began) != nil)
            && (speakers != .both || state.streamToFar.resumption(after: began) != nil && state.streamToNear.resumption(after: began) != nil)
    }

    /// Datagrams arrive in both directions, and octets of the stream, that left from now on.
    public func goesOn(within seconds: Double) -> Bool {
        let began = ProbeClock.now()
        let deadline = monotonicSeconds() + seconds
        while monotonicSeconds() < deadline {
            if state.withLock({ hasArrived(since: began, $0) }) { return true }
            usleep(5_000)
        }
        return false
    }

    /// Both fall silent; what is under way arrives.
    ///
    /// - Returns: octets of the connection that did not.
    public func end() -> (missing: UInt64, isDamaged: Bool) {
        state.withLock { $0.isTalking = false }
        let deadline = monotonicSeconds() + Self.drainSeconds
        var rest: UInt64 = 0
        repeat {
            rest = state.withLock { $0.streamToFar.missing + $0.streamToNear.missing }
            if rest > 0 { usleep(20_000) }
        } while rest > 0 && monotonicSeconds() < deadline && ends.isEmpty
        let isDamaged = state.withLock { state in
            state.isOver = true
            return state.streamToFar.isDamaged || state.streamToNear.isDamaged
        }
        thread.join()
        return (rest, isDamaged)
    }
}

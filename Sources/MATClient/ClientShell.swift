import Glibc
import MATCore
import MATDNS
import MATRuntime
import MATSignal

/// Does what `ClientCore` says: asks the DNS, sends and receives, waits. All of it in one thread, that of its loop.
final class ClientShell {
    let loop: EventLoop
    private let resolver: Resolver
    private var socket: UDPSocket?
    private var core = ClientCore(random: SystemRandomNumberGenerator())
    private var listeners: [ClientCore.FollowingID: Listener] = [:]
    private var visits: [UInt64: Visit] = [:]
    private var timer: TimerID?
    private var hasStopped = false

    struct Listener {
        var tell: (WatchNews) -> Void
        var end: () -> Void
    }

    /// A visited home: the connection that holds it, and who waits for its end.
    private struct Visit {
        var session: ControlSession
        var waiting: [() -> Void] = []
    }

    /// - Parameter resolvers: the system's if empty.
    init(resolvers: [Endpoint], requiresDNSSEC: Bool) throws(SystemError) {
        loop = try EventLoop()
        resolver = Resolver(loop: loop, configuration: .named(resolvers, requireDNSSEC: requiresDNSSEC))
        socket = try UDPSocket(loop: loop, port: 0) { [unowned self] octets, source, _ in
            perform(core.received(Array(octets), from: source, SystemClock.now()))
        }
    }

    func run() {
        // It fails only where the loop itself is no more; then everybody is told that it is over.
        try? loop.run()
        stop()
    }

    func stop() {
        guard !hasStopped else { return }
        hasStopped = true
        let ended = listeners.sorted { $0.key < $1.key }
        listeners = [:]
        for (id, listener) in ended {
            core.end(id)
            listener.end()
        }
        for number in visits.keys.sorted() { endVisit(number) }
        loop.stop()
    }

    // MARK: Home addresses

    /// - Returns: `nil` if there is no room for more, or all is over.
    func follow(_ hoa: HomeAddress, _ purpose: Following.Purpose, _ listener: Listener) -> ClientCore.FollowingID? {
        guard !hasStopped, let (id, actions) = core.begin(hoa, purpose) else { return nil }
        listeners[id] = listener
        perform(actions)
        return id
    }

    func end(_ id: ClientCore.FollowingID) {
        core.end(id)
        listeners.removeValue(forKey: id)?.end()
        setTimer()
    }

    private func perform(_ actions: [ClientCore.Action]) {
        for action in actions {
            switch action {
            case .lookUp(let id, let hoa):
                _ = resolver.followSystem()
                IMSLookup(resolver: resolver).lookup(hoa) { [self] in perform(core.lookedUp(id, $0, SystemClock.now())) }
            case .send(let octets, let server): socket?.send(octets, to: server)
            case .tell(let id, let news): listeners[id]?.tell(news)
            case .end(let id): listeners.removeValue(forKey: id)?.end()
            }
        }
        setTimer()
    }

    private func setTimer() {
        if let timer { loop.cancel(timer) }
        timer = core.nextDue.map { due in loop.schedule(at: due) { [unowned self] in perform(core.due(SystemClock.now())) } }
    }

    // MARK: Visited homes

    func hold(_ number: UInt64, _ session: ControlSession) {
        guard !hasStopped else { return }
        visits[number] = Visit(session: session)
        let watched: Void? = try? loop.watch(session.descriptor) { [unowned self] in
            // The agent says nothing more over it; whatever comes is its end, or passed over.
            var octet: UInt8 = 0
            let count = recv(session.descriptor, &octet, 1, 0)
            if count == 0 || count < 0 && errno != EAGAIN && errno != EINTR { endVisit(number) }
        }
        if watched == nil { endVisit(number) }
    }

    func whenEnded(_ number: UInt64, _ body: @escaping () -> Void) {
        guard visits[number] != nil else { return body() }
        visits[number]?.waiting.append(body)
    }

    func endVisit(_ number: UInt64) {
        guard let visit = visits.removeValue(forKey: number) else { return }
        loop.unwatch(visit.session.descriptor)
        for body in visit.waiting { body() }
    }
}

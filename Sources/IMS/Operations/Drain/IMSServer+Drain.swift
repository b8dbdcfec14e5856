import Glibc
import IMSCore
import MATRuntime
import MATSignal

/// How a server ends.
///
/// ```
///             SIGTERM              other instances know, pushes of      writes durable and answered,
///                                  that moment are acked,               or as long again has passed
///                                  or `drain` has passed
///   serving ──────────► draining ───────────────────────► closing ──────────────────────────► ended
///                          │ SIGTERM again                    │ SIGTERM again
///                          └──────────────────────────────────┴─────► ended at once
/// ```
/// While it drains it serves as ever: an update that comes now is better taken than refused, since its node would otherwise wait for the
/// next server. While it closes nothing more is read, so that everything that was read gets its answer; what still arrives waits in
/// the socket and is lost with it, and the nodes' retransmission finds the next server, or this one after its restart.
enum DrainState {
    case serving
    /// A push that a newer record replaces meanwhile is waited for in its stead; those to others are not. `hasLeft`: what changes from now on
    /// is pushed by other instances, if there are any.
    case draining(pushes: Set<PushKey>, hasLeft: Bool, until: MonotonicTime)
    case closing(until: MonotonicTime)
}

extension IMSServer {
    /// How often it is looked whether all is done.
    private static let drainInterval: Duration = .milliseconds(10)

    /// Begins to end service; the second call ends it at once.
    public func drain() {
        guard case .serving = drainState else { return endAtOnce() }
        let now = SystemClock.now().monotonic
        logger.notice("stopping: finishing what is in flight, for at most \(configuration.drainMax.millisecondsSaturated) ms")
        serviceManager.stopping()
        drainState = .draining(pushes: core.pushesUnderWay, hasLeft: sharing == nil, until: now + configuration.drainMax)
        sharing?.leave()
        drainOn()
    }

    /// The store says that other instances push from now on: what is being pushed at this moment is the last.
    func hasLeft() {
        guard case .draining(_, _, let until) = drainState else { return }
        drainState = .draining(pushes: core.pushesUnderWay, hasLeft: true, until: until)
    }

    private func drainOn() {
        let now = SystemClock.now().monotonic
        switch drainState {
        case .serving:
            return
        case .draining(let pushes, let hasLeft, let until):
            let left = pushes.filter { core.isUnderWay($0) }
            guard (left.isEmpty && hasLeft) || now >= until else { break }
            if !left.isEmpty { logger.notice("pushes not acknowledged in time: \(left.count); subscribers ask again by themselves") }
            stopReceiving()
            drainState = .closing(until: now + configuration.drainMax)
            return drainOn()
        case .closing(let until):
            guard core.writesCount == 0 || now >= until else { break }
            if core.writesCount > 0 {
                logger.warning("changes that the store did not take in time: \(core.writesCount); none of them was acknowledged")
            }
            return stop()
        }
        loop.schedule(after: Self.drainInterval) { [weak self] in self?.drainOn() }
    }

    /// For a person who does not want to wait. Every acknowledged update is durable, so nothing is lost but answers.
    private func endAtOnce() {
        logger.notice("stopping at once")
        removeControlSocket()
        _exit(0)
    }
}

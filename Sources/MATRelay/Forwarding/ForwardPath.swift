import CLinux
import MATRuntime
import MATServer
import MATSignal
import RelayCore
import Synchronization

/// All that the relay receives comes in here: by workers, one thread and one socket (per address) each.
final class ForwardPath {
    /// Datagrams of one worker's signalling that the loop takes before it sees to other things.
    private static let datagramsPerTurnMax = 64

    private let loop: EventLoop
    private let wakeup: LoopWakeup
    private let workers: [Worker]
    private var isReceiving = false
    private let releasing: Releasing

    /// A thread with its sockets, and what it does.
    private struct Worker {
        let thread: DatagramWorker
        let forwarding: ForwardWorker
    }

    /// Opens the sockets. Nothing is received before `start`.
    init(core: SharedCore, loop: EventLoop, port: UInt16, addresses: [IPAddress], threads: Int) throws(SystemError) {
        self.loop = loop
        wakeup = try LoopWakeup()
        let places: [IPAddress?] = addresses.isEmpty ? [nil] : addresses
        // Sockets that share their port would share it with another relay's as well. One that does not share finds that out.
        for address in places { _ = try BoundSocket(port: port, address: address, options: Self.socketOptions(isShared: false)) }
        var workers: [Worker] = []
        let releasing = Releasing(core: core, loop: loop, socketsCount: places.count)
        self.releasing = releasing
        for _ in 0..<max(1, min(threads, RelayConfiguration.threadsMax)) {
            var sockets: [BoundSocket] = []
            for address in places { sockets.append(try BoundSocket(port: port, address: address, options: Self.socketOptions(isShared: true))) }
            let forwarding = ForwardWorker(core: core, sockets: sockets, wakeup: wakeup) { releasing.begin() }
            workers.append(Worker(thread: try DatagramWorker(sockets: sockets, service: forwarding, rests: false), forwarding: forwarding))
        }
        self.workers = workers
        releasing.sockets = workers.first?.thread.sockets ?? []
    }

    /// One thread for each core that the process may use.
    static var coresCount: Int { Int(mat_cores()) }

    private static func socketOptions(isShared: Bool) -> BoundSocket.Options {
        var options = BoundSocket.Options()
        options.isShared = isShared
        options.waits = true
        options.receiveBufferBytes = 8 << 20
        options.exceedsReceiveBound = true
        options.forwards = true
        return options
    }

    /// Of one worker: what others send leaves by these.
    var sockets: [BoundSocket] { workers.first?.thread.sockets ?? [] }

    /// Where packets for plain hosts go. Before `start`.
    func setGateway(_ gateway: GatewayPath) {
        for worker in workers { worker.forwarding.gateway = gateway }
        releasing.gateway = gateway
    }

    /// Packets wait to be released. In any thread.
    var holds: @Sendable () -> Void { { [releasing] in releasing.begin() } }

    /// - Parameter received: gets, in the loop's thread, each datagram of signalling, its source, and the address it was sent to.
    func start(_ received: @escaping ([UInt8], Endpoint, IPAddress) -> Void) throws(SystemError) {
        try loop.watch(wakeup.descriptor) { [unowned self] in drain(received) }
        isReceiving = true
        for worker in workers { try worker.thread.start() }
    }

    private func drain(_ received: ([UInt8], Endpoint, IPAddress) -> Void) {
        wakeup.clear()
        var hasMore = false
        for worker in workers {
            if worker.forwarding.ring.take(Self.datagramsPerTurnMax, { datagram, _, source, local in received(datagram, source, local) }) {
                hasMore = true
            }
        }
        // The loop comes back after its other callbacks.
        if hasMore { wakeup.signal() }
    }

    /// Sends by a socket that is bound to the local address, or to all.
    func send(_ octets: [UInt8], from local: IPAddress, to peer: Endpoint) -> SystemError? {
        let sockets = workers.first?.thread.sockets ?? []
        return (sockets.first { $0.address == nil || $0.address == local } ?? sockets.first)?.send(octets, from: local, to: peer)
    }

    /// Ends the workers, which forward what has arrived. Sending goes on.
    func stop() {
        guard isReceiving else { return }
        isReceiving = false
        for worker in workers { worker.thread.stop() }
        releasing.end()
        loop.unwatch(wakeup.descriptor)
    }

    /// Over all workers.
    func total(_ count: ForwardWorker.Count) -> UInt64 {
        workers.reduce(count == .sendFailures ? releasing.sendFailures : 0) { $0 &+ $1.forwarding.total(count) }
    }
}

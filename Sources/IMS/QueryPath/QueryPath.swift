import CLinux
import Glibc
import IMSCore
import MATRuntime
import MATServer
import MATSignal
import MappingMemory

/// All that the server receives comes in here: by workers, one thread and one socket (per address) each. What they do not answer
/// comes to the core in the loop's thread.
final class QueryPath {
    /// Threads that `threads` can ask for.
    static let threadsMax = 256
    /// Datagrams of one worker that the core takes before the loop sees to other things.
    static let datagramsPerTurnMax = 64

    private let loop: EventLoop
    private let rules: QueryRulesCell
    private let wakeup: LoopWakeup
    private let workers: [Worker]
    private var isReceiving = false
    /// What the core sends, until `flush`.
    private let outbox: DatagramOutbox
    /// Why the kernel brings everything, malformed datagrams and floods too; `nil` if it does not.
    private(set) var filterFault: SystemError?
    /// Of each socket what the kernel's counter said last, which is of 32 bits, and all that it has counted.
    private var refusals: [Int32: (last: UInt32, total: UInt64)] = [:]

    /// A thread with its sockets, and what it does.
    private struct Worker {
        let thread: DatagramWorker
        let queries: QueryWorker
    }

    /// Opens the sockets. Nothing is received before `start`.
    ///
    /// - Parameters:
    ///   - addresses: to listen on; all if empty.
    ///   - freshness: says when nothing may be answered, if others share the store.
    ///   - refused: gets what the kernel would not send.
    init(
        core: IMSCore, loop: EventLoop, port: UInt16, addresses: [IPAddress], threads: Int, freshness: Freshness?,
        refused: @escaping ([UInt8], IPAddress?, Endpoint) -> Void = { _, _, _ in }
    ) throws(SystemError) {
        self.loop = loop
        do throws(MemoryRefusal) {
            rules = try QueryRulesCell(core.queryRules, table: core.mappings)
        } catch {
            throw SystemError("memory for the rules of queries", errno: ENOMEM)
        }
        wakeup = try LoopWakeup()
        outbox = DatagramOutbox(refused: refused)
        let places: [IPAddress?] = addresses.isEmpty ? [nil] : addresses
        // Sockets that share their port would share it with another daemon's as well. One that does not share finds that out.
        for address in places { _ = try BoundSocket(port: port, address: address, options: Self.socketOptions(isShared: false)) }
        var workers: [Worker] = []
        var filterFault: SystemError?
        let threads = max(1, min(threads, Self.threadsMax))
        for _ in 0..<threads {
            var sockets: [BoundSocket] = []
            for address in places { sockets.append(try BoundSocket(port: port, address: address, options: Self.socketOptions(isShared: true))) }
            let limits = core.configuration.limits.admission
            let keys: (UInt32, UInt32) = (.random(in: .min ... .max), .random(in: .min ... .max))
            var filter = FloodFilter(descriptors: sockets.map(\.descriptor), limits: limits, threads: threads, keys: keys)
            do throws(SystemError) {
                try filter.attach()
            } catch {
                filterFault = error
                filter = FloodFilter(descriptors: [], limits: limits, threads: threads, keys: keys)
            }
            let queries = QueryWorker(
                table: core.mappings, rules: rules, wakeup: wakeup, freshness: freshness,
                gate: AdmissionGate(limits: limits, key: (.random(in: .min ... .max), .random(in: .min ... .max)), threads: threads), filter: filter)
            workers.append(Worker(thread: try DatagramWorker(sockets: sockets, service: queries), queries: queries))
        }
        self.workers = workers
        self.filterFault = filterFault
    }

    /// Workers share their ports; without sharing, a port must be free, which tells whether another daemon has it.
    private static func socketOptions(isShared: Bool) -> BoundSocket.Options {
        var options = BoundSocket.Options()
        options.isShared = isShared
        options.waits = true
        options.receiveBufferBytes = 8 << 20
        options.exceedsReceiveBound = true
        return options
    }

    /// One thread for each core that the process may use.
    static var coresCount: Int { Int(mat_cores()) }

    var threadsCount: Int { workers.count }

    /// - Parameters:
    ///   - turn: makes all that it is given one turn of the core's.
    ///   - received: gets, in the loop's thread, each datagram that is for the core, whether it is only to be put off, its source, and the
    ///     address it was sent to.
    func start(turn: @escaping (() -> Void) -> Void, _ received: @escaping ([UInt8], Bool, Endpoint, IPAddress) -> Void) throws(SystemError) {
        try loop.watch(wakeup.descriptor) { [unowned self] in turn { drain(received) } }
        isReceiving = true
        for worker in workers { try worker.thread.start() }
    }

    private func drain(_ received: ([UInt8], Bool, Endpoint, IPAddress) -> Void) {
        wakeup.clear()
        var hasMore = false
        for worker in workers {
            if worker.queries.ring.take(Self.datagramsPerTurnMax, received) { hasMore = true }
        }
        // The loop comes back after its other callbacks.
        if hasMore { wakeup.signal() }
    }

    /// Tells the workers what has changed; costs a comparison if nothing has.
    func publish(_ rules: QueryRules) { self.rules.publish(rules) }

    /// Sends by a socket that is bound to the local address, or to all.
    func send(_ octets: [UInt8], from local: IPAddress?, to peer: Endpoint) -> SystemError? {
        socket(from: local, to: peer)?.send(octets, from: local, to: peer)
    }

    /// Likewise, with all that is added until `flush`.
    func add(_ octets: [UInt8], from local: IPAddress?, to peer: Endpoint) {
        if let socket = socket(from: local, to: peer) { outbox.add(octets, from: local, to: peer, by: socket) }
    }

    /// Whether the next `add` would send what waits.
    var isFull: Bool { outbox.isFull }

    /// Sends what was added.
    func flush() { outbox.send() }

    /// Forgets what was added.
    func drop() { outbox.drop() }

    private func socket(from local: IPAddress?, to peer: Endpoint) -> BoundSocket? {
        guard let sockets = workers.first?.thread.sockets else { return nil }
        for socket in sockets where socket.address == local { return socket }
        for socket in sockets where socket.address.map({ $0.family == peer.family }) ?? true { return socket }
        return nil
    }

    /// Ends the workers, which answer what has arrived, and lets the core have the rest in the loop's next turn. Sending goes on.
    func stopReceiving() {
        guard isReceiving else { return }
        isReceiving = false
        for worker in workers { worker.thread.stop() }
        wakeup.signal()
    }

    /// The last call: what is still on its way to the core is dropped.
    func stop() {
        stopReceiving()
        loop.unwatch(wakeup.descriptor)
    }

    // MARK: Counts

    /// Over all workers.
    func total(_ count: QueryCounters.Count) -> UInt64 { workers.reduce(0) { $0 &+ $1.queries.counters[count] } }

    /// What the kernel did not bring, as of now: what the workers' filters refused, and what their queues had no room for. It does not tell one from
    /// the other. To be asked before a counter has gone round once, 2^32 datagrams.
    func refusedByKernel() -> UInt64 {
        for socket in workers.flatMap(\.thread.sockets) {
            let drops = SocketFilter.drops(of: socket.descriptor)
            let before = refusals[socket.descriptor] ?? (0, 0)
            refusals[socket.descriptor] = (drops, before.total + UInt64(drops &- before.last))
        }
        return refusals.values.reduce(0) { $0 + $1.total }
    }

    /// Adds what the workers have counted to what the core has.
    func add(to counters: inout IMSCounters) {
        for worker in workers { worker.queries.counters.add(to: &counters) }
    }
}

extension IMSLimits {
    /// What a worker's gate lets in. Of odd datagrams twice what is answered: not everything odd gets an answer.
    var admission: AdmissionLimits {
        AdmissionLimits(
            perSourcePerSecond: messagesPerSourcePerSecond, strangersPerSecond: strangerMessagesPerSecond, joinsPerSecond: joinsPerSecond,
            draftsPerSecond: draftAnswersPerSecond, oddPerSecond: 2 * errorAnswersPerSecond)
    }
}

import IMTKernel
import IMTPlan
import MATCore
import MATRuntime
import MATServer
import MATSignal
import RelayCore
import Synchronization

/// What a gateway's packets take between the kernel's device and the relay's sockets.
///
/// ```
///   ForwardWorker ──► leave ──► device ──► the kernel, and plain hosts
///   device ──► up to 64 ──► under the core's lock, for each: forward, hold or drop ──► the relay's sockets ──► nodes
/// ```
/// The device is read by a thread of its own, and written to by the workers, and by the loop's thread what had to wait (`Releasing`).
final class GatewayPath: DatagramServing, @unchecked Sendable {
    private let core: SharedCore
    private let device: GatewayDevice
    /// Of the relay: what goes to nodes leaves by these.
    private let sockets: [BoundSocket]
    private let descriptors: [Int32]
    /// Tells the loop that packets wait to be released.
    private let holds: @Sendable () -> Void
    private var batch: ForwardBatch
    private let thread = Mutex<DatagramWorker?>(nil)
    private let unsent = Atomic<UInt64>(0)
    private let congested = Atomic<UInt64>(0)

    init(core: SharedCore, device: GatewayDevice, sockets: [BoundSocket], holds: @escaping @Sendable () -> Void) {
        self.core = core
        self.device = device
        self.holds = holds
        self.sockets = sockets
        descriptors = sockets.map(\.descriptor)
        batch = ForwardBatch(socketsCount: sockets.count)
    }

    deinit { batch.deallocate() }

    func start() throws(SystemError) {
        let worker = try DatagramWorker(descriptor: device.descriptor, service: self)
        try worker.start()
        thread.withLock { $0 = worker }
    }

    /// Ends the thread, which forwards what has arrived.
    func stop() {
        thread.withLock { worker in
            worker?.stop()
            worker = nil
        }
    }

    /// What the kernel, or a socket, did not take, and what came with the network's mark of congestion for a sender that knows nothing of it
    /// (RFC 6040). In any thread.
    var failures: (unsent: UInt64, congested: UInt64) { (unsent.load(ordering: .relaxed), congested.load(ordering: .relaxed)) }

    // MARK: To plain hosts

    /// A node's packet. In any thread.
    ///
    /// - Parameter trafficClass: of the datagram that it came in.
    func leave(_ packet: UnsafeMutableRawBufferPointer, trafficClass: Int32) {
        guard let inner = InnerHeader(UnsafeRawBufferPointer(packet)) else { return }
        guard let marked = CongestionNotice.inner(inner.trafficClass, within: UInt8(truncatingIfNeeded: trafficClass)) else {
            congested.wrappingAdd(1, ordering: .relaxed)
            return
        }
        if marked != inner.trafficClass { InnerHeader.setTrafficClass(marked, in: packet) }
        if !device.write(UnsafeRawBufferPointer(packet)) { unsent.wrappingAdd(1, ordering: .relaxed) }
    }

    // MARK: To nodes

    func begin() -> Bool { true }
    func end() {}

    func serve(_ descriptor: Int32) -> Int {
        let count = batch.fill(device.read)
        guard count > 0 else { return 0 }
        let now = SystemClock.now().monotonic
        let isHolding = core.use { core in
            for index in 0..<count {
                let packet = UnsafeRawBufferPointer(batch.payload(index))
                let trafficClass = InnerHeader(packet).map { Int32(CongestionNotice.outer(of: $0.trafficClass)) } ?? 0
                guard case .forward(let way) = core.arrive(packet, trafficClass: trafficClass, now: now) else { continue }
                batch.forward(index, from: way.from.address, to: way.to, by: sockets.number(for: way.from.address), trafficClass: trafficClass)
            }
            return core.isHolding
        }
        if isHolding { holds() }
        let lost = batch.send(descriptors)
        if lost.isFull { core.use { $0.stalled(now: now) } }
        if lost.count > 0 { unsent.wrappingAdd(UInt64(lost.count), ordering: .relaxed) }
        return count
    }
}

import MATCore
import MATRuntime
import MATServer
import MATSignal
import RelayCore
import Synchronization

/// Sends, in the loop's thread, packets that had to wait for a rate.
///
/// ```
///            a worker held a packet: `begin`                      every millisecond: what may go
///   (idle) ──────────────────────────────────► releasing ──────┐ ◄──────────────────────────────┐
///      ▲                                                       └────────────────────────────────┘
///      └──────────────────── nothing waits any more ──────────────────────────────┘
/// ```
final class Releasing: @unchecked Sendable {
    private let core: SharedCore
    private let poster: Poster
    private let loop: EventLoop
    private let isReleasing = Atomic<Bool>(false)
    /// All below in the loop's thread only.
    var sockets: [BoundSocket] = [] {
        didSet { descriptors = sockets.map(\.descriptor) }
    }
    private var descriptors: [Int32] = []
    /// Takes what is for plain hosts.
    var gateway: GatewayPath?
    private var batch: ForwardBatch
    private var isEnded = false
    private(set) var sendFailures: UInt64 = 0

    private static let interval = Duration.milliseconds(1)
    /// Batches before the loop sees to other things.
    private static let batchesPerTurnMax = 8

    init(core: SharedCore, loop: EventLoop, socketsCount: Int) {
        self.core = core
        self.loop = loop
        poster = loop.poster
        batch = ForwardBatch(socketsCount: socketsCount)
    }

    deinit { batch.deallocate() }

    /// In any thread.
    func begin() {
        guard !isReleasing.exchange(true, ordering: .acquiringAndReleasing) else { return }
        poster.post { [weak self] in self?.release() }
    }

    /// What still waits is lost, as what waits in a socket is.
    func end() { isEnded = true }

    private func release() {
        guard !isEnded else { return }
        let now = SystemClock.now().monotonic
        for _ in 0..<Self.batchesPerTurnMax {
            let released = core.use { $0.release(max: ForwardBatch.datagramsMax, now: now) }
            for packet in released {
                guard let way = packet.way else {
                    var octets = packet.octets
                    octets.withUnsafeMutableBytes { gateway?.leave($0, trafficClass: packet.trafficClass) }
                    continue
                }
                _ = batch.forward(packet.octets, packet.trafficClass, from: way.from.address, to: way.to, by: sockets.number(for: way.from.address))
            }
            let unsent = batch.send(descriptors)
            sendFailures &+= UInt64(unsent.count)
            if unsent.isFull { core.use { $0.stalled(now: now) } }
            if released.count < ForwardBatch.datagramsMax { break }
        }
        // Given back before the core is asked: who holds a packet after that begins anew.
        isReleasing.store(false, ordering: .releasing)
        guard core.use({ $0.isHolding }), !isReleasing.exchange(true, ordering: .acquiringAndReleasing) else { return }
        loop.schedule(after: Self.interval) { [weak self] in self?.release() }
    }
}

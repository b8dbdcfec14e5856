import MATCore
import MATRuntime
import MATServer
import MATSignal
import RelayCore
import Synchronization

/// What one worker's thread does: forwards packets, and hands signalling to the loop.
///
/// ```
///   receive up to 64 ──► under the core's lock, for each: forward, hold, drop, or into the ring ──► send all that is forwarded
/// ```
/// Nothing is allocated on the way of a packet that does not have to wait.
final class ForwardWorker: DatagramServing, @unchecked Sendable {
    enum Count: Int, CaseIterable { case datagrams, signalling, overflowed, sendFailures }

    let ring = DatagramRing()
    private let core: SharedCore
    private let wakeup: LoopWakeup
    private let port: UInt16
    /// Tells the loop that packets wait to be released.
    private let holds: @Sendable () -> Void
    private let sockets: [BoundSocket]
    private let descriptors: [Int32]
    private var batch: ForwardBatch
    /// Takes what is for plain hosts. Set before the thread starts.
    var gateway: GatewayPath?
    /// The places in the batch of what is for plain hosts.
    private var leaving: ContiguousArray<Int> = []
    private let datagrams = Atomic<UInt64>(0)
    private let signalling = Atomic<UInt64>(0)
    private let overflowed = Atomic<UInt64>(0)
    private let sendFailures = Atomic<UInt64>(0)

    init(core: SharedCore, sockets: [BoundSocket], port: UInt16, wakeup: LoopWakeup, holds: @escaping @Sendable () -> Void) {
        self.core = core
        self.sockets = sockets
        self.port = port
        self.wakeup = wakeup
        self.holds = holds
        descriptors = sockets.map(\.descriptor)
        batch = ForwardBatch(socketsCount: sockets.count)
        leaving.reserveCapacity(ForwardBatch.datagramsMax)
    }

    deinit { batch.deallocate() }

    func begin() -> Bool { true }
    func end() {}

    func serve(_ socket: Int32) -> Int {
        let received = batch.receive(socket)
        guard received > 0 else { return 0 }
        let now = SystemClock.now().monotonic
        var passedOn = 0
        var lost = 0
        let isHolding = core.use { core in
            for index in 0..<received {
                let (octets, source, local) = batch.datagram(index)
                if let first = octets.first, InnerPacket.isSignalling(firstOctet: first) {
                    if ring.put(octets, from: source, to: local) { passedOn += 1 } else { lost += 1 }
                    continue
                }
                switch core.forward(octets, from: source, trafficClass: batch.trafficClass(index), now: now) {
                case .forward(let way): batch.forward(index, from: way.from.address, to: way.to, by: sockets.number(for: way.from.address))
                case .leave: leaving.append(index)
                case .drop, .held: break
                }
            }
            return core.isHolding
        }
        if isHolding { holds() }
        for index in leaving { gateway?.leave(batch.payload(index), trafficClass: batch.trafficClass(index)) }
        leaving.removeAll(keepingCapacity: true)
        let unsent = batch.send(descriptors)
        if unsent.isFull { core.use { $0.stalled(now: now) } }
        datagrams.wrappingAdd(UInt64(received), ordering: .relaxed)
        if unsent.count > 0 { sendFailures.wrappingAdd(UInt64(unsent.count), ordering: .relaxed) }
        if lost > 0 { overflowed.wrappingAdd(UInt64(lost), ordering: .relaxed) }
        if passedOn > 0 {
            signalling.wrappingAdd(UInt64(passedOn), ordering: .relaxed)
            wakeup.signal()
        }
        return received
    }

    /// In any thread.
    func total(_ count: Count) -> UInt64 {
        switch count {
        case .datagrams: datagrams.load(ordering: .relaxed)
        case .signalling: signalling.load(ordering: .relaxed)
        case .overflowed: overflowed.load(ordering: .relaxed)
        case .sendFailures: sendFailures.load(ordering: .relaxed)
        }
    }
}

extension [BoundSocket] {
    /// The one that is bound to the address, or to all.
    func number(for address: IPAddress) -> Int {
        for (number, socket) in enumerated() where socket.address == nil || socket.address == address { return number }
        return 0
    }
}

import IMTPlan
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
///        │                                            ▲
///        └── what a kernel left to a card: sums finished, packets of TCP cut up
/// ```
/// Nothing is allocated on the way of a packet that does not have to wait.
final class ForwardWorker: DatagramServing, @unchecked Sendable {
    enum Count: Int, CaseIterable { case datagrams, signalling, overflowed, sendFailures }

    let ring = DatagramRing()
    private let core: SharedCore
    private let wakeup: LoopWakeup
    /// Tells the loop that packets wait to be released.
    private let holds: @Sendable () -> Void
    private let sockets: [BoundSocket]
    private let descriptors: [Int32]
    private var batch: ForwardBatch
    /// Those of a packet that was cut up, and where that is done.
    private var pieces: ForwardBatch
    private let room = UnsafeMutableRawBufferPointer.allocate(byteCount: LeftSegments.roomOctets, alignment: 64)
    /// Takes what is for plain hosts. Set before the thread starts.
    var gateway: GatewayPath?
    /// What is for plain hosts: places in the batch, or in `room`.
    private var leaving: ContiguousArray<Int> = []
    private let datagrams = Atomic<UInt64>(0)
    private let signalling = Atomic<UInt64>(0)
    private let overflowed = Atomic<UInt64>(0)
    private let sendFailures = Atomic<UInt64>(0)

    init(core: SharedCore, sockets: [BoundSocket], wakeup: LoopWakeup, holds: @escaping @Sendable () -> Void) {
        self.core = core
        self.sockets = sockets
        self.wakeup = wakeup
        self.holds = holds
        descriptors = sockets.map(\.descriptor)
        batch = ForwardBatch(socketsCount: sockets.count)
        pieces = ForwardBatch(socketsCount: sockets.count)
        leaving.reserveCapacity(ForwardBatch.datagramsMax)
    }

    deinit {
        batch.deallocate()
        pieces.deallocate()
        room.deallocate()
    }

    func begin() -> Bool { true }
    func end() {}

    func serve(_ socket: Int32) -> Int {
        let received = batch.receive(socket)
        guard received > 0 else { return 0 }
        let now = SystemClock.now().monotonic
        var passedOn = PassedOn()
        var first = 0
        for index in 0..<received {
            let payload = batch.payload(index)
            guard InnerPacket(UnsafeRawBufferPointer(payload)) != nil else { continue }
            if let cut = LeftSegments.cut(UnsafeRawBufferPointer(payload), into: room) {
                // In its turn, so that nothing of its flow overtakes it.
                pass(first..<index, &passedOn, now)
                passPieces(of: index, cut, &passedOn, now)
                first = index + 1
            } else {
                LeftSum.finish(payload)
            }
        }
        pass(first..<received, &passedOn, now)
        datagrams.wrappingAdd(UInt64(received), ordering: .relaxed)
        if passedOn.unsent > 0 { sendFailures.wrappingAdd(UInt64(passedOn.unsent), ordering: .relaxed) }
        if passedOn.lost > 0 { overflowed.wrappingAdd(UInt64(passedOn.lost), ordering: .relaxed) }
        if passedOn.toLoop > 0 {
            signalling.wrappingAdd(UInt64(passedOn.toLoop), ordering: .relaxed)
            wakeup.signal()
        }
        return received
    }

    /// What became of a batch.
    private struct PassedOn {
        /// Signalling.
        var toLoop = 0, lost = 0
        var unsent = 0
    }

    private func pass(_ indices: Range<Int>, _ passedOn: inout PassedOn, _ now: MonotonicTime) {
        guard !indices.isEmpty else { return }
        var (toLoop, lost) = (0, 0)
        let isHolding = core.use { core in
            for index in indices {
                let (octets, source, local) = batch.datagram(index)
                if let first = octets.first, InnerPacket.isSignalling(firstOctet: first) {
                    if ring.put(octets, from: source, to: local) { toLoop += 1 } else { lost += 1 }
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
        passedOn.toLoop += toLoop
        passedOn.lost += lost
        for index in leaving { gateway?.leave(batch.payload(index), trafficClass: batch.trafficClass(index)) }
        finish(batch.send(descriptors), isHolding: isHolding, &passedOn, now)
    }

    /// What the packet at this place was cut into.
    private func passPieces(of index: Int, _ cut: PacketSegments.Outcome, _ passedOn: inout PassedOn, _ now: MonotonicTime) {
        let (_, source, _) = batch.datagram(index)
        let trafficClass = batch.trafficClass(index)
        func piece(_ start: Int) -> UnsafeMutableRawBufferPointer { room.part(start..<min(start + cut.each, cut.octets)) }
        let isHolding = core.use { core in
            for start in stride(from: 0, to: cut.octets, by: cut.each) {
                let packet = UnsafeRawBufferPointer(piece(start))
                switch core.forward(packet, from: source, trafficClass: trafficClass, now: now) {
                case .forward(let way):
                    _ = pieces.forward(packet, trafficClass, from: way.from.address, to: way.to, by: sockets.number(for: way.from.address))
                case .leave: leaving.append(start)
                case .drop, .held: break
                }
            }
            return core.isHolding
        }
        for start in leaving { gateway?.leave(piece(start), trafficClass: trafficClass) }
        finish(pieces.send(descriptors), isHolding: isHolding, &passedOn, now)
    }

    private func finish(_ unsent: ForwardBatch.Unsent, isHolding: Bool, _ passedOn: inout PassedOn, _ now: MonotonicTime) {
        leaving.removeAll(keepingCapacity: true)
        if isHolding { holds() }
        if unsent.isFull { core.use { $0.stalled(now: now) } }
        passedOn.unsent += unsent.count
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

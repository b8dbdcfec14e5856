import MATCore
import MATRuntime
import MATServer
import MATSignal
import RelayCore
import Synchronization

/// What one worker's thread does: forwards packets, and hands signalling to the loop.
///
/// ```
///   receive up to 64 ──► under the core's lock, for each: forward, drop, or into the ring ──► send all that is forwarded
/// ```
/// Nothing is allocated on the way of a packet.
final class ForwardWorker: DatagramServing, @unchecked Sendable {
    enum Count: Int, CaseIterable { case datagrams, signalling, overflowed, sendFailures }

    let ring = DatagramRing()
    private let core: SharedCore
    private let wakeup: LoopWakeup
    private let port: UInt16
    private let sockets: [BoundSocket]
    private let descriptors: [Int32]
    private var batch: ForwardBatch
    private let datagrams = Atomic<UInt64>(0)
    private let signalling = Atomic<UInt64>(0)
    private let overflowed = Atomic<UInt64>(0)
    private let sendFailures = Atomic<UInt64>(0)

    init(core: SharedCore, sockets: [BoundSocket], port: UInt16, wakeup: LoopWakeup) {
        self.core = core
        self.sockets = sockets
        self.port = port
        self.wakeup = wakeup
        descriptors = sockets.map(\.descriptor)
        batch = ForwardBatch(socketsCount: sockets.count)
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
        core.use { core in
            for index in 0..<received {
                let (octets, source, local) = batch.datagram(index)
                if let first = octets.first, InnerPacket.isSignalling(firstOctet: first) {
                    if ring.put(octets, from: source, to: local) { passedOn += 1 } else { lost += 1 }
                    continue
                }
                if case .forward(let from, let to) = core.forward(octets, from: source, now: now) {
                    batch.forward(index, from: from.address, to: to, by: self.socket(for: from.address))
                }
            }
        }
        let failures = batch.send(descriptors)
        datagrams.wrappingAdd(UInt64(received), ordering: .relaxed)
        if failures > 0 { sendFailures.wrappingAdd(UInt64(failures), ordering: .relaxed) }
        if lost > 0 { overflowed.wrappingAdd(UInt64(lost), ordering: .relaxed) }
        if passedOn > 0 {
            signalling.wrappingAdd(UInt64(passedOn), ordering: .relaxed)
            wakeup.signal()
        }
        return received
    }

    /// The socket that is bound to the address, or to all.
    private func socket(for address: IPAddress) -> Int {
        for (number, socket) in sockets.enumerated() where socket.address == nil || socket.address == address { return number }
        return 0
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

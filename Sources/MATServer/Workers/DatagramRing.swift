import MATSignal
import Synchronization

/// Datagrams on their way from one worker to the core, in memory of fixed size: one thread puts in, one takes out, nobody waits. When it
/// is full the worker drops; UDP's senders try again.
///
/// ```
///   put ──► │ t │   │   │ ... │ h ──► take        head, tail: numbers that only grow; place = number mod count
/// ```
package final class DatagramRing: @unchecked Sendable {
    /// Datagrams waiting for the core. A core that takes 50,000 a second empties it in 20 ms.
    package static let datagramsMax = 1024
    private static let headOctets = 48
    private static let stride = 1280

    private let slots: UnsafeMutableRawPointer
    /// The numbers of the next to take and the next to put, far enough apart that the two threads do not disturb each other.
    private let numbers: UnsafeMutablePointer<Atomic<UInt64>>
    private static let tailIndex = 32

    package init() {
        slots = .allocate(byteCount: Self.datagramsMax * Self.stride, alignment: 64)
        let raw = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 128)
        numbers = raw.bindMemory(to: Atomic<UInt64>.self, capacity: 64)
        for index in 0..<64 { (numbers + index).initialize(to: Atomic(0)) }
    }

    deinit {
        slots.deallocate()
        UnsafeMutableRawPointer(numbers).deallocate()
    }

    /// - Parameter isPutOff: whether the core has only to say that it has no time for it.
    /// - Returns: whether there was room. Longer datagrams than the protocol's are not for this.
    package func put(_ datagram: UnsafeRawBufferPointer, isPutOff: Bool = false, from source: Endpoint, to local: IPAddress) -> Bool {
        let head = numbers[0].load(ordering: .acquiring)
        let tail = numbers[Self.tailIndex].load(ordering: .relaxed)
        guard tail &- head < UInt64(Self.datagramsMax), datagram.count <= SignalDatagram.octetsMax, let octets = datagram.baseAddress else {
            return false
        }
        let slot = slots + Int(tail % UInt64(Self.datagramsMax)) * Self.stride
        slot.storeBytes(of: source.address.high, as: UInt64.self)
        slot.storeBytes(of: source.address.low, toByteOffset: 8, as: UInt64.self)
        slot.storeBytes(of: local.high, toByteOffset: 16, as: UInt64.self)
        slot.storeBytes(of: local.low, toByteOffset: 24, as: UInt64.self)
        slot.storeBytes(of: source.port, toByteOffset: 32, as: UInt16.self)
        slot.storeBytes(of: UInt16(truncatingIfNeeded: datagram.count), toByteOffset: 34, as: UInt16.self)
        slot.storeBytes(of: isPutOff ? 1 : 0, toByteOffset: 36, as: UInt8.self)
        (slot + Self.headOctets).copyMemory(from: octets, byteCount: datagram.count)
        numbers[Self.tailIndex].store(tail &+ 1, ordering: .releasing)
        return true
    }

    /// Calls `body` with up to `count` datagrams, the oldest first.
    ///
    /// - Returns: whether there are more.
    package func take(_ count: Int, _ body: ([UInt8], Bool, Endpoint, IPAddress) -> Void) -> Bool {
        for _ in 0..<count {
            let head = numbers[0].load(ordering: .relaxed)
            guard head != numbers[Self.tailIndex].load(ordering: .acquiring) else { return false }
            let slot = UnsafeRawPointer(slots + Int(head % UInt64(Self.datagramsMax)) * Self.stride)
            let octets = UnsafeRawBufferPointer(start: slot + Self.headOctets, count: Int(slot.load(fromByteOffset: 34, as: UInt16.self)))
            let datagram = Array(octets)
            let isPutOff = slot.load(fromByteOffset: 36, as: UInt8.self) == 1
            let source = Endpoint(
                IPAddress(high: slot.load(as: UInt64.self), low: slot.load(fromByteOffset: 8, as: UInt64.self)),
                port: slot.load(fromByteOffset: 32, as: UInt16.self))
            let local = IPAddress(
                high: slot.load(fromByteOffset: 16, as: UInt64.self), low: slot.load(fromByteOffset: 24, as: UInt64.self))
            numbers[0].store(head &+ 1, ordering: .releasing)
            body(datagram, isPutOff, source, local)
        }
        return numbers[0].load(ordering: .relaxed) != numbers[Self.tailIndex].load(ordering: .acquiring)
    }
}

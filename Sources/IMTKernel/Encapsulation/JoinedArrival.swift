import CLinux
import Glibc
import IMTPlan

/// Packets that came in datagrams and go to the stack as one: the parts where they lie, gathered by the call that hands them over.
///
///     | offload header | first packet | data of the second | data of the third | ...
struct JoinedArrival: ~Copyable {
    private let header = UnsafeMutableRawBufferPointer.allocate(byteCount: OffloadHeader.octets, alignment: 2)
    private let parts: UnsafeMutablePointer<iovec>
    private var count = 0
    private var join: PacketJoin

    init(joinsDatagrams: Bool) {
        join = PacketJoin(joinsDatagrams: joinsDatagrams)
        parts = .allocate(capacity: PacketJoin.packetsMax + 1)
        parts.initialize(repeating: iovec(), count: PacketJoin.packetsMax + 1)
        parts[0] = iovec(iov_base: header.baseAddress, iov_len: header.count)
    }

    deinit {
        header.deallocate()
        parts.deallocate()
    }

    /// Adds a packet, which stays where it is until it is written; writes those before it if it does not go on where they end.
    mutating func add(_ packet: UnsafeMutableRawBufferPointer, to device: TunnelDevice) {
        if count > 0, let data = join.joins(UnsafeRawBufferPointer(packet)) {
            parts[count] = iovec(iov_base: packet.baseAddress.map { $0 + data }, iov_len: packet.count - data)
            count += 1
            return
        }
        write(to: device)
        join.begin(packet)
        parts[1] = iovec(iov_base: packet.baseAddress, iov_len: packet.count)
        count = 2
    }

    /// Hands over what is there. What the stack does not take is lost like any packet that a busy host drops.
    mutating func write(to device: TunnelDevice) {
        guard count > 0 else { return }
        join.finish().encode(into: header)
        _ = device.write(parts, count)
        count = 0
    }
}

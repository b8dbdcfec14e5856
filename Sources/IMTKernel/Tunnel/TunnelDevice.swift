import CLinux
import Glibc
import IMTPlan
import MATSignal

/// The TUN device that carries the HoAs, catches what has no IMT entry yet, and gives the agent what it encapsulates.
///
/// Packets come with what is left to be done about them (`OffloadHeader`): the stack hands over up to 64 KiB of one connection at a time, and
/// takes as much.
///
/// It is made persistent at once: if the agent is killed, device, HoAs and sockets bound to them stay, and its successor
/// attaches to the same device.
final class TunnelDevice {
    /// The most is an IP packet's.
    static let packetBytesMax = 65_536
    /// Packets taken per turn of the event loop; more wait for the next.
    static let packetsPerTurnMax = 64
    let descriptor: Int32
    let name: String
    let index: UInt32
    /// Whether the stack hands over, and takes, datagrams that are several (Linux 6.2).
    let joinsDatagrams: Bool
    private let header = UnsafeMutableRawBufferPointer.allocate(byteCount: OffloadHeader.octets, alignment: 2)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: TunnelDevice.packetBytesMax, alignment: 16)

    // linux/if_tun.h; _IOW macros are invisible to Swift.
    private static let setInterface: UInt = 0x4004_54CA
    static let setPersist: UInt = 0x4004_54CB
    static let flagTun: Int16 = 0x0001
    static let flagNoPacketInformation: Int16 = 0x1000
    private static let flagOffloadHeader: Int16 = 0x4000
    private static let setOffload: UInt = 0x4004_54D0
    // TUN_F_CSUM, TSO4, TSO6; USO4 and USO6. Without TUN_F_TSO_ECN the stack itself cuts up what has TCP's CWR.
    private static let offloads: UInt = 0x01 | 0x02 | 0x04, datagramOffloads: UInt = 0x20 | 0x40

    init(name: String) throws(KernelError) {
        self.name = name
        do throws(KernelError) {
            descriptor = try Self.attach(name, flags: Self.flagTun | Self.flagNoPacketInformation | Self.flagOffloadHeader)
        } catch {
            buffer.deallocate()
            header.deallocate()
            throw error
        }
        index = if_nametoindex(name)
        mat_ioctl(descriptor, Self.setPersist, UnsafeMutableRawPointer(bitPattern: 1))
        let all = Self.offloads | Self.datagramOffloads
        joinsDatagrams = mat_ioctl(descriptor, Self.setOffload, UnsafeMutableRawPointer(bitPattern: all)) == 0
        // A kernel that refuses these as well cuts up and sums up by itself.
        if !joinsDatagrams { mat_ioctl(descriptor, Self.setOffload, UnsafeMutableRawPointer(bitPattern: Self.offloads)) }
    }

    /// - Returns: the descriptor of a device of this name, which is made if there is none.
    static func attach(_ name: String, flags: Int16) throws(KernelError) -> Int32 {
        let descriptor = mat_open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0)
        guard descriptor >= 0 else {
            let reason = errno
            let remedy =
                reason == ENOENT ? "`modprobe tun` makes it; a container is to be given it" : "the service or container is to be allowed the device"
            throw KernelError(
                reason == ENOENT ? .refused : KernelError.code(of: reason), operation: "open /dev/net/tun", object: "for \(name) (\(remedy))",
                errno: reason)
        }
        var request = ifreq()
        withUnsafeMutableBytes(of: &request) { raw in
            // ifr_name is the first field, 16 octets; ifr_flags follows.
            for (offset, octet) in name.utf8.prefix(15).enumerated() { raw[offset] = octet }
            raw.storeBytes(of: flags, toByteOffset: 16, as: Int16.self)
        }
        guard mat_ioctl(descriptor, setInterface, &request) == 0 else {
            let reason = errno
            close(descriptor)
            let object =
                switch reason {
                case EBUSY: "\(name) is in use by another process; is another agent running?"
                case EINVAL: "\(name) exists and is no TUN device; configure another device name"
                default: name
                }
            throw .system("attach to the TUN device", object, errno: reason)
        }
        return descriptor
    }

    static func exists(_ name: String) -> Bool { if_nametoindex(name) != 0 }

    deinit {
        close(descriptor)
        buffer.deallocate()
        header.deallocate()
    }

    /// Lets the device vanish with its descriptor, and its addresses and routes with it.
    func forget() { mat_ioctl(descriptor, Self.setPersist, nil) }

    /// Calls `body` for each waiting packet, until it says that there is no room for more.
    /// - Returns: whether the device still exists.
    func readPackets(_ body: (OffloadHeader, UnsafeRawBufferPointer) -> Bool) -> Bool {
        for _ in 0..<Self.packetsPerTurnMax {
            let count = mat_read_two(descriptor, header.baseAddress, header.count, buffer.baseAddress, buffer.count)
            guard count > 0 else { return errno == EAGAIN || errno == EINTR }
            guard count > header.count, let offload = OffloadHeader(UnsafeRawBufferPointer(header)) else { continue }
            guard body(offload, UnsafeRawBufferPointer(rebasing: buffer[0..<count - header.count])) else { return true }
        }
        return true
    }

    /// Gives a packet to the stack as if it had arrived on the device.
    func deliver(_ packet: [UInt8]) throws(KernelError) {
        let octets = [UInt8](repeating: 0, count: OffloadHeader.octets) + packet
        let written = octets.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        guard written == octets.count else { throw .system("release a held packet", "\(name), \(packet.count) octets") }
    }

    /// Likewise a packet whose parts lie in several places, the first of them an `OffloadHeader`.
    /// - Returns: whether the stack took it.
    func write(_ parts: UnsafeMutablePointer<iovec>, _ count: Int) -> Bool { mat_write_many(descriptor, parts, Int32(count)) > 0 }
}

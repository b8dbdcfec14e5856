import CLinux
import Glibc
import MATSignal

/// The TUN device that carries the HoAs and catches what has no IMT entry yet.
///
/// It is made persistent at once: if the agent is killed, device, HoAs and sockets bound to them stay, and its successor
/// attaches to the same device.
final class TunnelDevice {
    /// Packets are copied whole; a device without segmentation offload gives none over its MTU, and the most is an IP packet's.
    static let packetBytesMax = 65_536
    /// Packets taken per turn of the event loop; more wait for the next.
    static let packetsPerTurnMax = 64
    let descriptor: Int32
    let name: String
    let index: UInt32
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: TunnelDevice.packetBytesMax, alignment: 16)

    // linux/if_tun.h; _IOW macros are invisible to Swift.
    private static let setInterface: UInt = 0x4004_54CA
    private static let setPersist: UInt = 0x4004_54CB
    private static let flagTun: Int16 = 0x0001
    private static let flagNoPacketInformation: Int16 = 0x1000

    init(name: String) throws(KernelError) {
        self.name = name
        descriptor = mat_open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0)
        guard descriptor >= 0 else {
            let reason = errno
            buffer.deallocate()
            throw KernelError(
                reason == ENOENT ? .unsupported : KernelError.code(of: reason), operation: "open /dev/net/tun",
                object: "device \(name); load the kernel module tun, or allow the device to the service", errno: reason)
        }
        var request = ifreq()
        withUnsafeMutableBytes(of: &request) { raw in
            // ifr_name is the first field, 16 octets; ifr_flags follows.
            for (offset, octet) in name.utf8.prefix(15).enumerated() { raw[offset] = octet }
            raw.storeBytes(of: Self.flagTun | Self.flagNoPacketInformation, toByteOffset: 16, as: Int16.self)
        }
        guard mat_ioctl(descriptor, Self.setInterface, &request) == 0 else {
            let reason = errno
            close(descriptor)
            buffer.deallocate()
            let object =
                switch reason {
                case EBUSY: "\(name) is in use by another process; is another agent running?"
                case EINVAL: "\(name) exists and is no TUN device; configure another device name"
                default: name
                }
            throw .system("attach to the TUN device", object, errno: reason)
        }
        index = if_nametoindex(name)
        mat_ioctl(descriptor, Self.setPersist, UnsafeMutableRawPointer(bitPattern: 1))
    }

    static func exists(_ name: String) -> Bool { if_nametoindex(name) != 0 }

    deinit {
        close(descriptor)
        buffer.deallocate()
    }

    /// Lets the device vanish with its descriptor, and its addresses and routes with it.
    func forget() { mat_ioctl(descriptor, Self.setPersist, nil) }

    /// Calls `body` for each waiting packet.
    /// - Returns: whether the device still exists.
    func readPackets(_ body: (UnsafeRawBufferPointer) -> Void) -> Bool {
        for _ in 0..<Self.packetsPerTurnMax {
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            guard count > 0 else { return errno == EAGAIN || errno == EINTR }
            body(UnsafeRawBufferPointer(rebasing: buffer[0..<count]))
        }
        return true
    }

    /// Gives a packet to the stack as if it had arrived on the device.
    func deliver(_ packet: [UInt8]) throws(KernelError) {
        let written = packet.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard written == packet.count else { throw .system("release a held packet", "\(name), \(packet.count) octets") }
    }
}

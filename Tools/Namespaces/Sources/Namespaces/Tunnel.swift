import CNamespaces
import Glibc

/// A network interface whose packets this program reads and writes (TUN). It is there as long as this value, unless it was there before.
public struct Tunnel: ~Copyable {
    /// Of a packet and what is before it.
    private static let octetsMax = 65_536 + 256

    public let name: String
    private let descriptor: Int32
    private var buffer = [UInt8](repeating: 0, count: octetsMax)

    /// Makes the interface in the network namespace that this thread is in.
    ///
    /// - Parameter whole: packets come, and are to be given back, as a card would get them: segments uncut, with a header of 10 octets that says
    ///   so (`virtio_net_hdr`). Cheaper by far for who only passes them on.
    public init(_ name: String, whole: Bool = false) throws(ShellError) {
        self.name = name
        descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw ShellError("open /dev/net/tun: \(String(cString: strerror(errno)))") }
        guard namespaces_make_tunnel(descriptor, name, whole ? 1 : 0) == 0 else {
            let reason = String(cString: strerror(errno))
            close(descriptor)
            throw ShellError("make the interface \(name): \(reason)")
        }
    }

    deinit { close(descriptor) }

    /// Waits for packets, for so long or until a signal comes.
    public func wait(nanoseconds: Int64) {
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        var time = timespec(tv_sec: Int(max(0, nanoseconds) / 1_000_000_000), tv_nsec: Int(max(0, nanoseconds) % 1_000_000_000))
        namespaces_wait(&waiting, 1, &time)
    }

    /// The next packet; `nil` if none is there.
    public mutating func read() -> [UInt8]? {
        let count = Glibc.read(descriptor, &buffer, buffer.count)
        return count > 0 ? Array(buffer[..<count]) : nil
    }

    /// - Returns: whether the kernel took it.
    @discardableResult
    public func write(_ packet: [UInt8]) -> Bool { Glibc.write(descriptor, packet, packet.count) == packet.count }
}

import CLinux
import Glibc
import MATRuntime
import MATSignal

/// Sends packets that carry their own IP header through the output path, as the socket that made them would now.
final class RawInjector {
    private let v4: Int32
    /// -1 where IPv6 is switched off.
    private let v6: Int32

    init() throws(KernelError) {
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        // IPPROTO_RAW (255) means that the header is given; such a socket receives nothing.
        v4 = socket(AF_INET, type, 255)
        guard v4 >= 0 else { throw .system("open a raw socket", "IPv4") }
        v6 = socket(AF_INET6, type, 255)
    }

    deinit {
        close(v4)
        if v6 >= 0 { close(v6) }
    }

    func send(_ packet: HeldPacket) throws(KernelError) {
        let sent: Int
        if packet.destination.isIPv4 {
            var to = sockaddr_in()
            to.sin_family = sa_family_t(AF_INET)
            to.sin_addr.s_addr = (packet.destination.ipv4 ?? 0).bigEndian
            sent = Self.send(v4, packet.bytes, &to)
        } else {
            var to = sockaddr_in6()
            to.sin6_family = sa_family_t(AF_INET6)
            to.sin6_addr = in6_addr(packet.destination)
            sent = Self.send(v6, packet.bytes, &to)
        }
        guard sent == packet.bytes.count else {
            throw .system("release a held packet", "\(packet.source) to \(packet.destination), \(packet.bytes.count) octets")
        }
    }

    private static func send<Address>(_ descriptor: Int32, _ bytes: [UInt8], _ address: inout Address) -> Int {
        withUnsafePointer(to: &address) { typed in
            typed.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bytes.withUnsafeBytes {
                    sendto(descriptor, $0.baseAddress, $0.count, 0, pointer, socklen_t(MemoryLayout<Address>.size))
                }
            }
        }
    }
}

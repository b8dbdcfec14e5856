import CLinux
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// Tells a link's routers of an IPv6 address that has just become usable on it (RFC 9131).
///
/// A node that comes back to a network has the address it had there. Packets that peers still sent to it while it was away made the
/// router ask for it; with nobody there to answer, the router asks again a second later and not earlier, and drops what comes meanwhile
/// beyond a few hundred packets. The node itself asks nothing that would tell the router: its own way out came with
/// the router advertisement. In IPv4 it asks (ARP) for its gateway, and the gateway learns from the question.
enum NeighbourAnnouncement {
    /// Sends one unsolicited neighbour advertisement to all routers of the link. Links without Ethernet addresses need none.
    static func send(_ local: LocalAddress) throws(KernelError) {
        guard local.address.family == .ipv6, let hardware = try hardwareAddress(of: local) else { return }
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_INET6, type, 58)  // IPPROTO_ICMPV6: the kernel fills in the checksum
        guard descriptor >= 0 else { throw .system("open a raw socket", "ICMPv6") }
        defer { close(descriptor) }
        // Routers believe only what no router has passed on: 255 (RFC 4861 7.1.2).
        var hops: Int32 = 255
        var index = Int32(truncatingIfNeeded: local.interfaceIndex)
        setsockopt(descriptor, 41, 18, &hops, 4)  // SOL_IPV6, IPV6_MULTICAST_HOPS
        setsockopt(descriptor, 41, 17, &index, 4)  // SOL_IPV6, IPV6_MULTICAST_IF
        let bound = SocketName(Endpoint(local.address, port: 0)).use { Glibc.bind(descriptor, $0, $1) }
        guard bound == 0 else { throw .system("bind a raw socket", "\(local.address)") }
        let packet = message(local.address, hardware)
        let sent = SocketName(Endpoint(allRouters, port: 0), scope: local.interfaceIndex).use { sendto(descriptor, packet, packet.count, 0, $0, $1) }
        guard sent == packet.count else {
            throw .system("announce an address", "\(local.address) on \(local.interface)")
        }
    }

    private static let allRouters = IPAddress(high: 0xFF02_0000_0000_0000, low: 2)

    /// RFC 4861 4.4: type 136, code, checksum, flags (none: not a router, not asked, overrides nothing), target, option 2.
    static func message(_ address: IPAddress, _ hardware: [UInt8]) -> [UInt8] {
        [136, 0, 0, 0, 0, 0, 0, 0] + address.packetOctets + [2, 1] + hardware
    }

    /// struct ifreq: the name in 16 octets, then a sockaddr of 16, in 40. `nil` if the link has no Ethernet address.
    private static func hardwareAddress(of local: LocalAddress) throws(KernelError) -> [UInt8]? {
        let name = Array(local.interface.utf8)
        guard name.count < 16 else { return nil }
        let descriptor = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .system("open a socket", "IPv6") }
        defer { close(descriptor) }
        var request = name + [UInt8](repeating: 0, count: 40 - name.count)
        // The link may have gone since.
        guard mat_ioctl(descriptor, 0x8927, &request) == 0 else { return nil }  // SIOCGIFHWADDR
        let isEthernet = request[16..<18].elementsEqual(nativeOctets(UInt16(1)))  // ARPHRD_ETHER
        return isEthernet ? Array(request[18..<24]) : nil
    }
}

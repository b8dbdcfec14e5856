import CLinux
import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// Packets built by hand, for what no socket of this kernel would send.
enum RawPacket {
    /// An IP packet without options; the kernel fills in IPv4's checksum.
    static func ip(from: IPAddress, to: IPAddress, protocolNumber: UInt8, _ payload: [UInt8], hops: UInt8 = 64) -> [UInt8] {
        if from.isIPv4 {
            let header = [0x45, 0] + big(20 + payload.count) + [0, 0, 0, 0, hops, protocolNumber, 0, 0]
            var packet = header + from.packetOctets + to.packetOctets
            packet.replaceSubrange(10..<12, with: big(Int(~ChecksumCompletion.fold(ChecksumCompletion.sum(packet)))))
            return packet + payload
        }
        return [0x60, 0, 0, 0] + big(payload.count) + [protocolNumber, hops] + from.packetOctets + to.packetOctets + payload
    }

    static func udp(from: Endpoint, to: Endpoint, _ payload: [UInt8]) -> [UInt8] {
        let header = big(Int(from.port)) + big(Int(to.port)) + big(8 + payload.count) + [0, 0]
        return finish(header + payload, checksumAt: 6, protocolNumber: 17, from: from.address, to: to.address)
    }

    /// Puts the Internet checksum in place; IPv4's ICMP has no pseudo header.
    static func finish(
        _ transport: [UInt8], checksumAt offset: Int, protocolNumber: UInt8, from: IPAddress, to: IPAddress
    ) -> [UInt8] {
        var sum = ChecksumCompletion.sum(transport)
        if protocolNumber != 1 { sum += pseudoHeader(from, to, protocolNumber, transport.count) }
        var finished = transport
        finished.replaceSubrange(offset..<offset + 2, with: big(Int(~ChecksumCompletion.fold(sum))))
        return finished
    }

    /// Such a packet holds only a part of what its checksum covers.
    private static func isFirstFragment(_ packet: [UInt8]) -> Bool {
        if packet[0] >> 4 == 4 { return packet[6] & 0x20 != 0 }
        var (next, offset) = (packet[6], 40)
        while next != 44 {
            guard next == 0 || next == 60, offset + 8 <= packet.count else { return false }
            (next, offset) = (packet[offset], offset + 8 + Int(packet[offset + 1]) * 8)
        }
        return true
    }

    private static func pseudoHeader(_ from: IPAddress, _ to: IPAddress, _ protocolNumber: UInt8, _ length: Int) -> UInt64 {
        ChecksumCompletion.sum(from.packetOctets) + ChecksumCompletion.sum(to.packetOctets) + UInt64(protocolNumber)
            + UInt64(length)
    }

    /// Whether the transport checksum of a whole packet is right; `nil` where there is none to look at.
    static func hasRightChecksum(_ packet: [UInt8]) -> Bool? {
        guard let layout = PacketLayout(packet), !layout.isLaterFragment, layout.transportOffset + 8 <= layout.end else {
            return nil
        }
        if isFirstFragment(packet) { return nil }
        let transport = packet[layout.transportOffset..<layout.end]
        var sum = ChecksumCompletion.sum(transport)
        switch layout.protocolNumber {
        case 1: break
        case 17 where packet[layout.transportOffset + 6] == 0 && packet[layout.transportOffset + 7] == 0: return nil
        case 6, 17, 58: sum += pseudoHeader(layout.source, layout.destination, layout.protocolNumber, transport.count)
        default: return nil
        }
        return ChecksumCompletion.fold(sum) == 0xFFFF
    }

    static func big(_ value: Int) -> [UInt8] { [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)] }

    /// CRC32c, as SCTP has it (RFC 9260, appendix A): reflected, polynomial 0x1EDC6F41.
    static func crc32c(_ octets: [UInt8]) -> UInt32 {
        var crc = UInt32.max
        for octet in octets {
            crc ^= UInt32(octet)
            for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82F6_3B78 }
        }
        return ~crc
    }

    /// Sends a packet with its own IP header.
    /// - Parameter bound: whether the socket is bound to the packet's source, which must be the host's own then: it decides the
    ///   route, the header does not.
    static func inject(_ packet: [UInt8], in namespace: Namespace, bound: Bool = false) throws {
        let layout = try #require(PacketLayout(packet))
        let socket = try TestSocket(
            namespace, type: TestSocket.raw, isIPv4: layout.source.isIPv4, protocolNumber: 255)
        if bound { try socket.bind(layout.source, port: 0) }
        try socket.send(packet, to: layout.destination, port: 0)
    }
}

/// Copies of all that passes a namespace's links, network header first.
final class WireTap {
    private let descriptor: Int32

    init(_ namespace: Namespace) throws {
        // AF_PACKET 17, ETH_P_ALL 3 in network order: all protocols, link header removed.
        descriptor = try namespace.inside { socket(17, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0x0300) }
        guard descriptor >= 0 else { throw ShellError("packet socket: \(errno)") }
        var size: Int32 = 32 << 20
        // SO_RCVBUFFORCE: a bulk transfer passes before the test looks.
        setsockopt(descriptor, SOL_SOCKET, 33, &size, 4)
    }

    deinit { close(descriptor) }

    /// What passed since the last look; forwarded packets twice.
    func take() -> [[UInt8]] {
        var packets: [[UInt8]] = []
        var buffer = [UInt8](repeating: 0, count: 70_000)
        while true {
            let got = recv(descriptor, &buffer, buffer.count, 0)
            guard got > 0 else { return packets }
            let packet = Array(buffer[0..<got])
            if PacketLayout(packet) != nil { packets.append(packet) }
        }
    }
}

/// Whether these octets are in the packet's header, or in one that an error quotes.
func names(_ packet: [UInt8], _ address: IPAddress) -> Bool {
    let wanted = address.packetOctets
    let end = min(packet.count, 160) - wanted.count
    return end >= 0 && (0...end).contains { packet[$0] == wanted[0] && packet[$0..<$0 + wanted.count].elementsEqual(wanted) }
}

extension Topology {
    static let homes = ["192.0.2.1", "198.51.100.1", "2001:db8:a::1", "2001:db8:b::1"].compactMap { IPAddress($0) }

    /// Switches checksum and segmentation offloads of all links. With them, packets between veth ends never get a checksum, and
    /// nobody looks at one; without, each stack computes and checks as on a plain Ethernet.
    /// - Parameter sender: likewise for mn's links, if they shall differ.
    func setOffloads(_ isOn: Bool, sender: Bool? = nil) throws {
        for (namespace, devices, isOn) in [
            (mn.namespace, ["wlan", "cell"], sender ?? isOn), (cn.namespace, ["eth0"], isOn), (router, ["r1", "r2", "r9"], isOn),
        ] {
            let refused: Int32 = try namespace.inside {
                let descriptor = socket(AF_INET, TestSocket.datagram, 0)
                defer { close(descriptor) }
                // linux/ethtool.h: receive checksums, transmit checksums, scatter-gather, TSO, GSO, GRO.
                let commands: [UInt32] = [0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C]
                for device in devices {
                    // Segmentation needs scatter-gather, so that goes last or comes first.
                    for command in isOn ? commands : commands.reversed() {
                        guard Self.ethtool(descriptor, device, command, isOn ? 1 : 0) == 0 else { return errno }
                    }
                }
                return 0
            }
            guard refused == 0 else { throw ShellError("offloads of \(devices): errno \(refused)") }
        }
    }

    private static func ethtool(_ descriptor: Int32, _ device: String, _ command: UInt32, _ value: UInt32) -> Int32 {
        var setting = (command, value)
        return withUnsafeMutableBytes(of: &setting) { setting in
            // struct ifreq: name 16, then a pointer to struct ethtool_value; 40 octets in all.
            var request = [UInt8](repeating: 0, count: 40)
            request.replaceSubrange(0..<device.utf8.count, with: device.utf8)
            return request.withUnsafeMutableBytes { raw in
                raw.storeBytes(of: UInt(bitPattern: setting.baseAddress), toByteOffset: 16, as: UInt.self)
                // SIOCETHTOOL
                return raw.baseAddress.map { mat_ioctl(descriptor, 0x8946, $0) } ?? -1
            }
        }
    }

    /// Lets the router answer every packet with an error, where it would by default answer one a second.
    func unlimitErrors() throws {
        for namespace in [mn.namespace, cn.namespace, router] {
            try namespace.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
        }
    }

    /// Neither damaged packets at either end, nor a HoA on the wire.
    func expectClean(_ packets: [[UInt8]] = [], sourceLocation: SourceLocation = #_sourceLocation) throws {
        for host in [mn, cn] {
            #expect(try checksumErrors(host) == 0, sourceLocation: sourceLocation)
            #expect(host.failures.isEmpty, "\(host.failures)", sourceLocation: sourceLocation)
        }
        for packet in packets {
            for home in Self.homes {
                #expect(!names(packet, home), "\(home) on the wire: \(packet.prefix(120))", sourceLocation: sourceLocation)
            }
        }
    }
}

func expect(_ socket: TestSocket, toReceive octets: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) throws {
    let got = try socket.receive(octets.count)
    #expect(got == octets, sourceLocation: sourceLocation)
}

/// What the other end of a connection sends.
func expect(
    _ socket: TestSocket, toReceive octets: [UInt8], from other: TestSocket, sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let sending = BackgroundWork { try other.send(octets) }
    try expect(socket, toReceive: octets, sourceLocation: sourceLocation)
    try sending.wait()
}

/// The next ICMP error that a raw ICMP socket gets: who made it, its type and code, and the packet it quotes.
func receiveError(
    _ socket: TestSocket, _ family: Family
) throws -> (from: IPAddress, type: [UInt8], quote: PacketLayout) {
    while true {
        let got = try socket.receiveFrom()
        let message = family.isIPv4 ? Array(got.octets.dropFirst(Int(got.octets[0] & 0xF) * 4)) : got.octets
        // Unreachable, time exceeded, parameter problem; a raw socket gets echo and neighbour discovery too.
        let errors: [UInt8] = family.isIPv4 ? [3, 11, 12] : [1, 3, 4]
        guard message.count > 28, errors.contains(message[0]) else { continue }
        var quoted = Array(message.dropFirst(8))
        // A quote ends early: its own idea of its length is longer.
        let length = quoted.count - (family.isIPv4 ? 0 : 40)
        quoted.replaceSubrange(family.isIPv4 ? 2..<4 : 4..<6, with: RawPacket.big(length))
        return (got.source.address, Array(message.prefix(2)), try #require(PacketLayout(quoted)))
    }
}

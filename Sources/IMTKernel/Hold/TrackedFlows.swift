import Glibc
import IMTPlan
import MATSignal

/// Flows as connection tracking knows them, by ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
///
/// Connection tracking decides about source NAT with a flow's first packet and never again. A flow that it noted before there was a need for
/// NAT would keep its HoA, and so be held, for as long as it speaks: it began while the kernel took in our NAT (which begins to
/// track before it begins to translate), or under a firewall that tracks, or while its HoA was on a link or its destination a peer. Once
/// forgotten, its next packet is a first one again.
struct TrackedFlows {
    // NFNL_SUBSYS_CTNETLINK 1, IPCTNL_MSG_CT_DELETE 2.
    private static let delete: UInt16 = 1 << 8 | 2
    // CTA_TUPLE_ORIG; within it CTA_TUPLE_IP and CTA_TUPLE_PROTO.
    private static let original: UInt16 = 1, addresses: UInt16 = 1, transport: UInt16 = 2
    // CTA_PROTO_NUM, _SRC_PORT, _DST_PORT, and of ICMP and ICMPv6 _ID, _TYPE, _CODE.
    private static let number: UInt16 = 1, sourcePort: UInt16 = 2, destinationPort: UInt16 = 3
    private static let icmp: [UInt16] = [4, 5, 6], icmpv6: [UInt16] = [7, 8, 9]

    /// Of netfilter, like that of nftables.
    let socket: NetlinkSocket

    /// Forgets the flow of a packet, in whichever direction the packet goes.
    /// - Returns: whether there was one.
    func forget(_ packet: HeldPacket) throws(KernelError) -> Bool {
        let family = packet.source.family
        let operation = "forget a flow that is tracked without source NAT"
        var request = socket.writer()
        // Never without a tuple, which would mean all flows of the host.
        request.append(type: Self.delete, flags: KernelValues.flagAck) { message in
            message.putHeader([KernelValues.family(family), 0, 0, 0])
            message.putNested(Self.original) {
                message.putNested(Self.addresses) {
                    message.put(family == .ipv4 ? 1 : 3, address: packet.source)
                    message.put(family == .ipv4 ? 2 : 4, address: packet.destination)
                }
                message.putNested(Self.transport) { Self.putTransport(of: packet, into: message) }
            }
        }
        for answer in try socket.exchange(request, operation: operation) {
            if answer.errno == 0 { return true }
            guard answer.errno == ENOENT else {
                throw .system(operation, "\(packet.source) to \(packet.destination), protocol \(packet.protocolNumber)", errno: answer.errno)
            }
        }
        return false
    }

    private static func putTransport(of packet: HeldPacket, into message: NetlinkMessage) {
        message.put(number, u8: packet.protocolNumber)
        guard let layout = PacketLayout(packet.bytes), !layout.isLaterFragment, packet.bytes.count >= layout.transportOffset + 8 else { return }
        let start = Array(packet.bytes[layout.transportOffset..<layout.transportOffset + 8])
        switch packet.protocolNumber {
        case 1, 58:
            let attributes = packet.protocolNumber == 1 ? icmp : icmpv6
            message.put(attributes[0], octets: Array(start[4..<6]))
            message.put(attributes[1], u8: start[0])
            message.put(attributes[2], u8: start[1])
        // TCP, UDP, DCCP, SCTP, UDP-Lite begin with their ports; others have none.
        case 6, 17, 33, 132, 136:
            message.put(sourcePort, octets: Array(start[0..<2]))
            message.put(destinationPort, octets: Array(start[2..<4]))
        default: break
        }
    }
}

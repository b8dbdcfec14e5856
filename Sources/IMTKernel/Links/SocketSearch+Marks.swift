import IMTPlan
import MATSignal

/// A socket of a program that was steered.
public struct SteeredSocket: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable { case tcp, udp }

    public var kind: Kind
    public var family: AddressFamily
    /// TCP's states as the kernel counts them; 7 of a datagram socket that is not connected.
    public var state: UInt8
    public var mark: UInt32
    public var local: Endpoint
    /// `nil` if it is connected to nobody.
    public var remote: Endpoint?
    public var user: UInt32
    /// By which /proc/PID/fd names it.
    public var inode: UInt32
}

extension SocketSearch {
    /// struct inet_diag_bc_op: code 1, octets to the next if it holds 1, and if not 2; behind INET_DIAG_BC_MARK_COND mark 4, mask 4.
    private static let markCondition: UInt8 = 10
    private static let byteCode: UInt16 = 1, markAttribute: UInt16 = 15
    /// Of what answers: family 1, state 1, timer 1, retransmissions 1, ports 4, addresses 32, link 4, cookie 8, expires 4, queues 8, user 4, inode 4.
    private static let headerOctets = 72
    /// Neither in TIME_WAIT (6), nor half open (3, 12), which belong to no process.
    private static let ofProcesses: UInt32 = (1...11).reduce(0) { $0 | ([3, 6].contains($1) ? 0 : 1 << $1) }

    /// The sockets with such a mark, in the order of the kernel. The kernel filters.
    func sockets(marked mark: UInt32, mask: UInt32) throws(KernelError) -> [SteeredSocket] {
        var found: [SteeredSocket] = []
        for family in AddressFamily.allCases {
            for (kind, number) in [(SteeredSocket.Kind.tcp, UInt8(6)), (.udp, 17)] {
                let header = [KernelValues.family(family), number, 0, 0] + nativeOctets(Self.ofProcesses) + [UInt8](repeating: 0, count: 48)
                let before = found
                try socket.dump(
                    type: KernelValues.socketsByFamily, operation: "list sockets by mark", header: header,
                    attributes: { message in
                        // One that does not fit jumps past the end, which is "no".
                        let condition = [Self.markCondition, 12] + nativeOctets(UInt16(16)) + nativeOctets(mark) + nativeOctets(mask)
                        message.put(Self.byteCode, octets: condition)
                    }, restart: { found = before }
                ) { incoming in
                    if let each = Self.decode(incoming, kind, family) { found.append(each) }
                }
            }
        }
        return found
    }

    private static func decode(_ incoming: NetlinkIncoming, _ kind: SteeredSocket.Kind, _ family: AddressFamily) -> SteeredSocket? {
        let payload = incoming.payload
        guard payload.count >= headerOctets, let ends = decode(incoming, family: family) else { return nil }
        func number(_ place: Int) -> UInt32 { payload.loadUnaligned(fromByteOffset: place, as: UInt32.self) }
        let isConnected = ends.remote.port != 0
        return SteeredSocket(
            kind: kind, family: family, state: payload[1], mark: incoming.attributes(after: headerOctets).first(markAttribute)?.u32 ?? 0,
            local: ends.local, remote: isConnected ? ends.remote : nil, user: number(64), inode: number(68))
    }
}

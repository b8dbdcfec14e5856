import IMTPlan
import MATSignal

/// Asks the kernel for its TCP sockets (sock_diag, linux/inet_diag.h).
struct SocketSearch {
    /// Connections found at most: what is remembered of plain flows is bounded as well.
    static let connectionsMax = Int(TranslationRuleset.plainFlowsMax)
    /// Not listening (10), closed (7) or in TIME_WAIT (6): TCP_ESTABLISHED is 1.
    private static let states: UInt32 = (1...12).reduce(0) { $0 | ([6, 7, 10].contains($1) ? 0 : 1 << $1) }

    let socket: NetlinkSocket

    init() throws(KernelError) { socket = try NetlinkSocket(protocol: KernelValues.netlinkSockets, name: "sock_diag") }

    /// The connections to one of these addresses.
    func connections(to remotes: Set<IPAddress>) throws(KernelError) -> [TCPConnection] {
        var found: [TCPConnection] = []
        // IPv6 sockets also speak IPv4, with mapped addresses.
        let families = remotes.contains { $0.family == .ipv4 } ? AddressFamily.allCases : [.ipv6]
        for family in families {
            // inet_diag_req_v2: family 1, protocol 1, extensions 1, pad 1, states 4, then inet_diag_sockid, here empty.
            let header =
                [KernelValues.family(family), 6, 0, 0] + nativeOctets(Self.states) + [UInt8](repeating: 0, count: 48)
            let before = found
            try socket.dump(
                type: KernelValues.socketsByFamily, operation: "list TCP sockets", header: header, restart: { found = before }
            ) { incoming in
                guard found.count < Self.connectionsMax, let each = Self.decode(incoming, family: family) else { return }
                if remotes.contains(each.remote.address) { found.append(each) }
            }
        }
        return found
    }

    /// inet_diag_msg: family 1, state 1, timer 1, retransmissions 1, then inet_diag_sockid: ports 2 and 2 in network order,
    /// addresses 16 and 16 of which IPv4 uses the first four.
    static func decode(_ incoming: NetlinkIncoming, family: AddressFamily) -> TCPConnection? {
        let payload = incoming.payload
        guard incoming.type == KernelValues.socketsByFamily, payload.count >= 40 else { return nil }
        func endpoint(_ port: Int, _ address: Int) -> Endpoint? {
            let octets = Array(payload[address..<address + family.addressOctets])
            // ::ffff:0:0/96 (RFC 4291, 2.5.5.2).
            let isMapped = family == .ipv6 && octets.prefix(12).elementsEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF])
            guard let address = IPAddress(octets: isMapped ? octets.suffix(4) : octets[...]) else { return nil }
            return Endpoint(address, port: UInt16(payload[port]) << 8 | UInt16(payload[port + 1]))
        }
        guard let local = endpoint(4, 8), let remote = endpoint(6, 24) else { return nil }
        return TCPConnection(local: local, remote: remote)
    }
}

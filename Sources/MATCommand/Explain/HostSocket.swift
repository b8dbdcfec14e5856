import MATSignal

/// A TCP or UDP socket of a host, as /proc/net lists it.
struct HostSocket: Hashable, Sendable {
    enum Transport: String, Codable, Hashable, Sendable {
        case tcp, udp
    }

    var transport: Transport
    /// As ss(8) writes it: ESTAB, LISTEN, UNCONN, ...
    var state: String
    var local: Endpoint
    /// `nil` as long as it has no other end.
    var remote: Endpoint?
    /// What its descriptors name it by; 0 once no process has it (TIME-WAIT).
    var inode: UInt64

    private static let states = [
        "01": "ESTAB", "02": "SYN-SENT", "03": "SYN-RECV", "04": "FIN-WAIT-1", "05": "FIN-WAIT-2", "06": "TIME-WAIT", "07": "UNCONN",
        "08": "CLOSE-WAIT", "09": "LAST-ACK", "0A": "LISTEN", "0B": "CLOSING",
    ]

    /// The sockets of /proc/net/tcp, tcp6, udp or udp6 (proc_net(5)): number, local and remote address with port, state, and the inode as tenth.
    /// Rows of another form are passed over.
    static func parse(_ text: String, _ transport: Transport) -> [HostSocket] {
        text.split(separator: "\n").compactMap { row in
            let fields = row.split { $0 == " " || $0 == "\t" }
            guard fields.count > 9, let local = endpoint(fields[1]), let remote = endpoint(fields[2]), let inode = UInt64(fields[9]) else {
                return nil
            }
            return HostSocket(
                transport: transport, state: states[String(fields[3])] ?? String(fields[3]), local: local, remote: remote.port == 0 ? nil : remote,
                inode: inode)
        }
    }

    /// `0A02000A:0016`: words of four octets, each as a number of this machine's byte order. IPv6 sockets that speak IPv4 have mapped addresses.
    private static func endpoint(_ text: Substring) -> Endpoint? {
        let parts = text.split(separator: ":")
        guard parts.count == 2, parts[0].count == 8 || parts[0].count == 32, let port = UInt16(parts[1], radix: 16) else { return nil }
        var octets: [UInt8] = []
        var rest = parts[0]
        while !rest.isEmpty {
            guard let word = UInt32(rest.prefix(8), radix: 16) else { return nil }
            octets += withUnsafeBytes(of: word) { Array($0) }
            rest = rest.dropFirst(8)
        }
        return IPAddress(octets: octets).map { Endpoint($0, port: port) }
    }
}

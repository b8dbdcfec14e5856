import IMTPlan
import MATSignal

extension SocketSearch {
    /// INET_DIAG_NOCOOKIE: any socket with these addresses.
    private static let anyCookie = [UInt8](repeating: 0xFF, count: 8)

    /// The link that the socket of a local packet is bound to (SO_BINDTODEVICE), by number; 0: none.
    ///
    /// - Parameter device: one of which such sockets are found as well as those that are bound to none.
    /// - Returns: `nil` for what is neither TCP nor UDP or has no ports, and for sockets that have gone.
    func link(ofSocketOf packet: HeldPacket, device: UInt32) throws(KernelError) -> UInt32? {
        guard let from = packet.sourcePort, let to = packet.destinationPort else { return nil }
        func padded(_ address: IPAddress) -> [UInt8] { address.packetOctets + [UInt8](repeating: 0, count: 16 - address.packetOctets.count) }
        func octets(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 0xFF)] }
        let (own, far) = (octets(from) + padded(packet.source), octets(to) + padded(packet.destination))
        // Of UDP the kernel wants both ends the other way round.
        let (first, second) = packet.protocolNumber == 6 ? (own, far) : (far, own)
        let sockets = first.prefix(2) + second.prefix(2) + first.dropFirst(2) + second.dropFirst(2)
        var request = socket.writer()
        request.append(type: KernelValues.socketsByFamily, flags: 0) { message in
            message.putHeader(
                [KernelValues.family(packet.source.family), packet.protocolNumber, 0, 0] + nativeOctets(UInt32.max) + sockets + nativeOctets(device)
                    + Self.anyCookie)
        }
        var found: UInt32?
        _ = try socket.exchange(request, operation: "look for a packet's socket") { incoming in
            let payload = incoming.payload
            // inet_diag_msg: the link's number stands behind the addresses, at 40.
            guard incoming.type == KernelValues.socketsByFamily, payload.count >= 44 else { return }
            found = payload.loadUnaligned(fromByteOffset: 40, as: UInt32.self)
        }
        return found
    }
}

import IMTPlan
import MATSignal

/// Reads octets as each kind of answer that this module takes from the kernel, for tests of what happens if they are not what they
/// should be. What is found is of no interest, only that reading ends.
package enum KernelReplies {
    /// - Returns: how many things were read in all.
    package static func read(_ octets: [UInt8]) -> Int {
        var count = 0
        var rules = RulesetNews()
        var links = LinkNews()
        octets.withUnsafeBytes { datagram in
            NetlinkIncoming.forEach(in: datagram) { message in
                count += NetlinkFailure.decode(message) == nil ? 0 : 1
                count += KernelRoute.decode(message).count
                count += KernelRule.decode(message) == nil ? 0 : 1
                count += ForeignRule.decode(message) == nil ? 0 : 1
                count += LinkState.decode(message) == nil ? 0 : 1
                count += AddressState.decode(message) == nil ? 0 : 1
                count += Neighbour.decode(message) == nil ? 0 : 1
                count += KernelElement.decodeList(message).count
                count += SocketSearch.decode(message, family: .ipv4) == nil ? 0 : 1
                count += SocketSearch.decode(message, family: .ipv6) == nil ? 0 : 1
                for attribute in message.attributes(after: 4) {
                    count += attribute.string.isEmpty ? 0 : 1
                    count += attribute.address == nil ? 0 : 1
                    for nested in attribute.nested { count += nested.u64BigEndian == nil ? 0 : 1 }
                }
                rules.add(message)
                links.add(message)
            }
        }
        return count + (rules.isEmpty ? 0 : 1) + (links.isEmpty ? 0 : 1)
    }

    /// Reads octets as a packet that was held, finishes its checksum as `HoldListener` does, and cuts it up as `RawInjector` may; and as one that came
    /// in a datagram, with signalling in it or not, as `Encapsulator` does.
    ///
    /// - Returns: what is wrong, `nil` if all is well.
    package static func readPacket(_ octets: [UInt8]) -> String? {
        let finished = ChecksumCompletion.complete(octets)
        guard finished.count == octets.count else { return "finishing the checksum changed the packet's length" }
        let before = HeldPacket(octets)
        let after = HeldPacket(finished)
        guard (before == nil) == (after == nil), before?.source == after?.source, before?.destination == after?.destination else {
            return "finishing the checksum changed the packet's header"
        }
        for piece in PacketPieces.cut(octets, identifier: 1) ?? [] where piece.count > PacketPieces.octetsMax || HeldPacket(piece) == nil {
            return "a piece of the packet is no packet that fits"
        }
        guard let message = inPath(octets, isForHome: true) else { return nil }
        guard inPath(octets, isForHome: false) == message else { return "a message within a path is one only for an own HoA" }
        // What the other end would send to say the same.
        let sent = InPathMessage(
            message.octets, between: HomePair(own: message.pair.peer, peer: message.pair.own), from: message.far, to: message.own)
        guard let packet = sent.packet, inPath(packet, isForHome: true) == message else {
            return "a message within a path does not come back from a packet of its own"
        }
        return nil
    }

    private static func inPath(_ packet: [UInt8], isForHome: Bool) -> InPathMessage? {
        packet.withUnsafeBytes { octets in
            guard let header = InnerHeader(octets) else { return nil }
            let (far, own) = (Endpoint(header.source, port: 1), Endpoint(header.destination, port: 2))
            guard case .message(let message) = InPathMessage.find(in: octets, header, isForHome: isForHome, from: far, to: own) else { return nil }
            return message
        }
    }
}

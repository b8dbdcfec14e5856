import MATSignal

/// The packet between HoAs that a datagram carries (protocol.md section 11.2): exactly one IP packet. Only what decides about its way is looked at.
package struct InnerPacket: Hashable, Sendable {
    package let source: IPAddress
    package let destination: IPAddress

    /// What the first octet of a datagram says that it is.
    package static func isSignalling(firstOctet: UInt8) -> Bool { firstOctet < 0x40 }

    /// - Parameter octets: the datagram's payload. Nothing is kept of it.
    /// - Returns: `nil` unless it is one whole IPv4 or IPv6 packet, neither longer nor shorter than its header says.
    @inlinable
    package init?(_ octets: UnsafeRawBufferPointer) {
        // Read where the socket put it: `OctetView` looks at no octet beyond the count.
        let view = unsafe OctetView(octets)
        switch view.uint8(at: 0) >> 4 {
        case 4:
            let headerOctets = Int(view.uint8(at: 0) & 0x0F) &* 4
            guard headerOctets >= 20, view.count >= headerOctets, Int(view.uint16(at: 2)) == view.count else { return nil }
            source = IPAddress(ipv4: view.uint32(at: 12))
            destination = IPAddress(ipv4: view.uint32(at: 16))
        case 6:
            guard view.count >= 40, Int(view.uint16(at: 4)) &+ 40 == view.count else { return nil }
            source = view.address(at: 8)
            destination = view.address(at: 24)
        default: return nil
        }
    }
}
